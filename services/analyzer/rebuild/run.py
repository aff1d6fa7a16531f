"""A whole rebuild: all partitions folded side by side in processes, then switched, then the learner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import ClusterChanged, Record
from libs.common.contracts import customer_event
from libs.common.contracts.customer_event import Tick, encode_event
from libs.common.contracts.topics import CUSTOMER_EVENTS, HEADER_SCHEMA
from libs.common.db import Database
from libs.common.errors import Misconfigured, Transient
from services.analyzer.learner.store import PostgresLearnerStore
from services.analyzer.model.digest import whole_digest
from services.analyzer.rebuild.learned import learn_anew
from services.analyzer.rebuild.workers import PATIENCE, Plan, in_processes
from services.analyzer.store.rebuilding import PostgresRebuildStore

_log = logging.getLogger(__name__)

WAKE_SECONDS = 10.0


class AnotherRebuild(Misconfigured):
    """Two rebuilds at once would fold everything twice for nothing."""


@dataclass(frozen=True)
class Outcome:
    """What came of a rebuild.

    ``live`` and ``rebuilt`` are digests of all customer models; ``models`` and ``lessons`` the rows that the
    switch wrote; ``learned`` says whether the learned models were the same, None where there are none;
    ``events`` were folded, and ``refused`` of them the present code cannot fold.
    """

    live: str
    rebuilt: str
    models: int
    lessons: int
    learned: bool | None
    events: int
    refused: int


async def rebuild(plan: Plan) -> Outcome:
    """Fold everything anew beside the live platform, and switch to it partition by partition.

    A switch is one transaction: whatever dies, each partition is served whole, as it was or as it is anew,
    and a rebuild can be started again. Raises `AnotherRebuild` where one is under way.
    """
    scratch = "analyzer_rebuild_" + "".join(secrets.choice("abcdefghijklmnop") for _ in range(8))
    database = Database(plan.postgres, size=4, timeout=PATIENCE)
    store = PostgresRebuildStore(database, scratch)
    try:
        async with store.alone() as mine:
            if not mine:
                raise AnotherRebuild("another rebuild is under way: wait for it or end it")
            try:
                await store.prepare()
                folded, settled = await in_processes(plan, scratch)
                changed = [partition for partition, each in enumerate(settled) if each.models]
                if changed and plan.kafka:
                    await wake(plan.kafka, changed)
                learned = await _learn_anew(PostgresLearnerStore(database), plan)
            finally:
                # Trap: also where it failed. It holds customers that an erasure does not look for there.
                with contextlib.suppress(Transient):
                    await store.drop()
        return Outcome(
            live=whole_digest(each.live for each in settled),
            rebuilt=whole_digest(each.rebuilt for each in settled),
            models=sum(each.models for each in settled),
            lessons=sum(each.lessons for each in settled),
            learned=learned,
            events=sum(each.events for each in folded),
            refused=sum(each.refused for each in folded),
        )
    finally:
        await database.close()


async def _learn_anew(store: PostgresLearnerStore, plan: Plan) -> bool | None:
    if not plan.kafka:
        return await learn_anew(store, None, plan.learning, switch=plan.switch)
    bus = KafkaBus(plan.kafka, client_id="rebuild")
    try:
        return await learn_anew(store, bus, plan.learning, switch=plan.switch)
    finally:
        await bus.close()


async def wake(kafka: str, partitions: Sequence[int]) -> None:
    """Have the live analyzer look at ``partitions`` now; it would at the next record, tick or restart."""
    bus = KafkaBus(kafka, client_id="rebuild")
    producer = bus.producer()
    try:
        async with asyncio.timeout(WAKE_SECONDS):
            for partition in partitions:
                # Of time 0, so it moves no clock.
                tick = encode_event(Tick(partition=partition, recorded_at=0))
                record = Record(b"tick", tick, ((HEADER_SCHEMA, customer_event.SCHEMA),))
                await producer.send(CUSTOMER_EVENTS, partition, [record])
    except (Transient, ClusterChanged, TimeoutError) as error:
        _log.warning("the analyzer was not told: it publishes at its next record (%s)", error)
    finally:
        await producer.close()
        await bus.close()
