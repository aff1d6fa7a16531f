"""The analyzer on a real broker and a real database: nothing lost, nothing twice, whoever dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy.local.broker import EmbeddedBroker
from deploy.local.postgres import EmbeddedPostgres
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Record
from libs.common.contracts.customer_event import Touchpoint, encode_event
from libs.common.contracts.customer_model import decode_profile, model_key
from libs.common.contracts.identity import partition_of
from libs.common.contracts.topics import CUSTOMER_EVENTS, CUSTOMER_MODELS, TOPICS
from libs.common.db import Database
from libs.common.progress import ProgressBoard
from libs.common.runtime import Service, running
from services.analyzer.app import create_service
from services.analyzer.handlers.queries import Queries
from services.analyzer.rebuild.run import rebuild
from services.analyzer.rebuild.workers import Plan
from services.analyzer.settings import AnalyzerSettings
from services.analyzer.store.reading import PostgresReadStore

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(120)]

SPOOL = "0f3a9c1e"


@dataclass
class Platform:
    """A broker, a database, and a spool's worth of records that can be sent again."""

    folder: Path
    broker: EmbeddedBroker
    postgres: EmbeddedPostgres
    sent: dict[int, list[Record]] = field(default_factory=dict)

    def analyzer(self, name: str) -> Service:
        settings = AnalyzerSettings(
            data_dir=self.folder, kafka=self.broker.address, postgres=self.postgres.address
        )
        return create_service(settings, bus=KafkaBus(self.broker.address, client_id=name))

    def record(self, event: Touchpoint) -> tuple[int, Record]:
        partition = partition_of(event.customer)
        records = self.sent.setdefault(partition, [])
        headers = (("spool", SPOOL.encode()), ("seq", b"%d" % (len(records) + 1)))
        records.append(Record(event.customer.encode(), encode_event(event), headers))
        return partition, records[-1]

    async def post(self, *events: Touchpoint) -> None:
        bus = KafkaBus(self.broker.address)
        producer = bus.producer()
        batches: dict[int, list[Record]] = {}
        for event in events:
            partition, record = self.record(event)
            batches.setdefault(partition, []).append(record)
        await asyncio.gather(*(producer.send(CUSTOMER_EVENTS, p, batch) for p, batch in batches.items()))
        await bus.close()

    async def ship_again(self) -> None:
        """Everything ever sent, to whatever broker there is now."""
        bus = KafkaBus(self.broker.address)
        await bus.ensure_topics(TOPICS)
        producer = bus.producer()
        await asyncio.gather(*(producer.send(CUSTOMER_EVENTS, p, r) for p, r in self.sent.items()))
        await bus.close()

    async def ledger(self) -> Any:
        database = Database(self.postgres.address, size=1)
        try:
            return await Queries(PostgresReadStore(database)).ledger()
        finally:
            await database.close()

    async def settled(self, applied: int, seconds: float = 40.0) -> Any:
        """The ledger once ``applied`` records are applied."""
        deadline = time.monotonic() + seconds
        while True:
            ledger = await self.ledger()
            if ledger.applied >= applied or time.monotonic() > deadline:
                assert ledger.applied == applied
                assert ledger.balanced
                return ledger
            await asyncio.sleep(0.05)


@pytest.fixture
async def platform(tmp_path: Path, embedded_postgres: EmbeddedPostgres) -> AsyncIterator[Platform]:
    broker = EmbeddedBroker(tmp_path / "broker")
    await broker.start()
    bus = KafkaBus(broker.address)
    await bus.ensure_topics(TOPICS)
    await bus.close()
    database = Database(embedded_postgres.address, size=1)
    async with database.bulk() as connection:
        await connection.execute("DROP SCHEMA IF EXISTS analyzer CASCADE")
    await database.close()
    yield Platform(tmp_path, broker, embedded_postgres)
    await broker.stop()


def view(id_: str, customer: str) -> Touchpoint:
    at = time.time_ns() // 1_000_000
    return Touchpoint(
        id=id_,
        source="shop",
        customer=customer,
        occurred_at=at,
        recorded_at=at,
        type="product_viewed",
        channel="web",
        properties={"product_id": f"p-{len(id_)}"},
    )


def many(prefix: str, count: int) -> list[Touchpoint]:
    return [view(f"{prefix}-{n}", f"u-{n % 50}") for n in range(count)]


async def test_loop_survives_restart_and_two_share_the_partitions(platform: Platform) -> None:
    async with running(platform.analyzer("first")):
        await platform.post(*many("a", 300), *many("a", 20))
        assert (await platform.settled(300)).duplicate == 20
    await platform.post(*many("b", 300))
    async with running(platform.analyzer("second")):
        await platform.settled(600)
        async with running(platform.analyzer("third")):
            for wave in range(5):
                await platform.post(*many(f"c{wave}", 100))
                await asyncio.sleep(0.3)
            await platform.settled(1_100)
    plan = Plan(postgres=platform.postgres.address, kafka=platform.broker.address)
    first, second = await rebuild(plan), await rebuild(plan)
    assert first == second
    assert (first.live, first.events, first.models) == (first.rebuilt, 1_100, 0)


async def test_loss_of_the_broker_publishes_all_models_again(platform: Platform) -> None:
    async with running(platform.analyzer("only")):
        await platform.post(*many("a", 200))
        await platform.settled(200)
        await platform.broker.kill()
        await platform.broker.start()
        await platform.ship_again()
        await platform.post(*many("b", 100))
        ledger = await platform.settled(300, 60.0)
        assert ledger.redelivered == 200
        models = await newest_models(platform, 50)
    profiles = {key: value for key, value in models.items() if key.endswith(b"/profile")}
    assert set(profiles) == {model_key(f"u-{n}", "profile") for n in range(50)}
    assert sum(decode_profile(value).totals["product_viewed"] for value in profiles.values()) == 300


async def newest_models(platform: Platform, profiles: int) -> dict[bytes, bytes]:
    """What a reader from the start of ``customer-models`` ends with."""
    bus = KafkaBus(platform.broker.address)
    reader = bus.reader(CUSTOMER_MODELS)
    await reader.start({})
    found: dict[bytes, bytes] = {}
    deadline = time.monotonic() + 10
    quiet = 0
    while quiet < 5 and time.monotonic() < deadline:
        polled = await reader.poll(1_000, 0.2)
        quiet = 0 if polled else quiet + (len(found) >= profiles)
        for messages in polled.values():
            found.update({m.key: m.value or b"" for m in messages})
    await reader.close()
    await bus.close()
    return found


async def test_event_is_visible_within_the_bar(platform: Platform) -> None:
    """From the journal to progress that others may rely on; the bar for the whole loop is 150 ms."""
    bus = KafkaBus(platform.broker.address)
    board = ProgressBoard(bus)
    async with running(platform.analyzer("only")):
        await board.start()
        producer = bus.producer()
        await platform.post(*many("warm", 100))
        await platform.settled(100)
        waits = []
        for n in range(60):
            partition, record = platform.record(view(f"x-{n}", f"u-{n % 50}"))
            began = time.perf_counter()
            await producer.send(CUSTOMER_EVENTS, partition, [record])
            want = len(platform.sent[partition])
            while board.applied(SPOOL).get(partition, 0) < want:
                assert time.perf_counter() - began < 5
                await asyncio.sleep(0.001)
            waits.append(time.perf_counter() - began)
        waits.sort()
        print(f"journal to progress: p50 {waits[30] * 1000:.0f} ms, p95 {waits[57] * 1000:.0f} ms")
        assert waits[30] < 0.15
        await board.stop()
    await bus.close()
