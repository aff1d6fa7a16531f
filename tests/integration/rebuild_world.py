"""An analyzer at work on a database of its own, what happens to it, and where a rebuild of it is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Assignment, Message
from libs.common.clock import DAY
from libs.common.contracts.customer_event import CustomerEvent, Decision, Tick, Touchpoint, encode_event
from libs.common.contracts.customer_model import PROFILE, Profile, decode_profile, model_key
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.topics import CUSTOMER_EVENTS, TOPICS
from libs.common.db import Database
from libs.common.errors import Transient
from libs.common.view import MemoryView
from services.analyzer.model.digest import whole_digest
from services.analyzer.model.fold import Models, Step
from services.analyzer.rebuild.workers import Plan
from services.analyzer.store.memory import MemoryAnalyzerStore
from services.analyzer.store.reading import PostgresReadStore
from tests.integration.analyzer_world import Stores, make_rig
from tests.unit.offer_world import decision, outcome
from tests.unit.offer_world import order as bought

T0 = 1_790_000_000_000
SPOOL = "0f3a9c1e"


@dataclass
class Live:
    """An analyzer at work on one database, and a reader of what it publishes."""

    url: str
    database: Database
    rig: Any
    bus: MemoryBus
    view: MemoryView
    sent: dict[int, int] = field(default_factory=dict)

    async def take(self, *events: CustomerEvent) -> None:
        """Have ``events`` become slices, tried again where a rebuild came between."""
        slices: dict[int, list[Message]] = {}
        for event in events:
            partition = event.partition if isinstance(event, Tick) else partition_of(event.customer)
            offset = self.sent.get(partition, 0)
            self.sent[partition] = offset + 1
            headers = (("spool", SPOOL.encode()), ("seq", b"%d" % (offset + 1)))
            message = Message(CUSTOMER_EVENTS, partition, offset, b"k", encode_event(event), headers, 0)
            slices.setdefault(partition, []).append(message)
        for partition, messages in slices.items():
            async with asyncio.timeout(20):
                while True:
                    try:
                        await self.rig.processor.process(partition, messages)
                    except Transient:
                        await asyncio.sleep(0.01)
                    else:
                        break

    async def tick(self, at: int = T0) -> None:
        await self.take(*(Tick(partition=p, recorded_at=at) for p in range(PARTITIONS)))

    async def digest(self) -> str:
        store = PostgresReadStore(self.database)
        return whole_digest([await store.digest(partition) for partition in range(PARTITIONS)])

    async def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        async with self.database.connection() as connection:
            return [tuple(row) for row in await connection.fetch(statement, *values)]

    async def served(self, customer: str) -> Profile | None:
        """The profile as a reader of the topic has it."""
        value = self.view.get(model_key(customer, PROFILE))
        return None if value is None else decode_profile(value)

    def plan(self, **more: Any) -> Plan:
        return Plan(postgres=self.url, **{"processes": 1, **more})


def story(length: int, seed: int = 3, *, first: int = 0, days: int = 0) -> list[CustomerEvent]:
    """Views, orders and mails of 40 customers; spread over ``days``, some of them late."""
    draw = random.Random(seed)
    events: list[CustomerEvent] = []
    for n in range(first, first + length):
        who = f"u-{draw.randrange(40)}"
        at = T0 + n * 1_000 + (n * days // length) * DAY - draw.choice([0, 0, 0, 2 * DAY if days else 0])
        about: dict[str, Any] = {"id": f"e-{n}", "source": "shop", "customer": who, "channel": "web"}
        times = {"occurred_at": at, "recorded_at": at}
        kind = draw.random()
        if kind < 0.6:
            seen = {"product_id": f"p{draw.randrange(30)}"}
            events.append(Touchpoint(**about, **times, type="product_viewed", properties=seen))
        elif kind < 0.9:
            lines = [{"product_id": f"p{draw.randrange(30)}", "price": 3.5} for _ in range(4)]
            bought = {"order_id": f"o-{n}", "products": lines}
            events.append(Touchpoint(**about, **times, type="order_completed", properties=bought))
        else:
            events.append(Touchpoint(**about, **times, type="email_opened"))
    return events


def offered(length: int, seed: int = 5, *, first: int = 0, days: int = 40) -> list[CustomerEvent]:
    """`story`, in which offers are made and shown, clicked and bought; few customers come back often."""
    draw = random.Random(seed)
    events: list[CustomerEvent] = []
    made: list[Decision] = []
    now = T0
    for event in story(length, seed, first=first, days=days):
        now = max(now, event.recorded_at)
        events.append(msgspec.structs.replace(event, recorded_at=now))
        at, draws = now, draw.random()
        who = f"u-{draw.randrange(300)}"
        if draws < 0.4:
            products = [f"p{draw.randrange(30)}" for _ in range(3)]
            ghosts = [("p7", 2)] if draws < 0.2 and "p7" not in products else []
            made.append(
                decision(f"d{len(made)}/{first}", at, products, ghosts, assumed_shown=1, customer=who)
            )
            events.append(made[-1])
        elif draws < 0.8 and made:
            of = made[-1 - draw.randrange(min(9, len(made)))]
            product = of.offers[draw.randrange(3)].product_id or ""
            word = draw.choice(["shown", "shown", "clicked"])
            if draw.random() < 0.3:
                events.append(bought(f"b{event.id}", at, product, customer=of.customer))
            else:
                events.append(outcome(of.id, product, word, at, customer=of.customer))
    return events


async def lessons_of(live: Live) -> list[tuple[Any, ...]]:
    """Everything that was taught, in canonical order."""
    return await live.rows(
        "SELECT partition, number, second, kind, body, part FROM analyzer.lessons"
        " ORDER BY second, partition, number, part"
    )


async def undisturbed(events: Sequence[CustomerEvent]) -> str:
    """The digest of an analyzer that only ever knew the present code and was never rebuilt."""
    return (await apart(events))[0]


async def apart(events: Sequence[CustomerEvent]) -> tuple[str, list[tuple[Any, ...]]]:
    """Digest and lessons of an analyzer that takes ``events`` in one go, in memory."""
    memory = MemoryAnalyzerStore()
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    rig = make_rig(Stores(memory, memory), bus)
    other = Live("", None, rig, bus, MemoryView())  # type: ignore[arg-type]
    await rig.processor.claim(Assignment(frozenset(range(PARTITIONS)), 1, await bus.cluster_id()))
    await other.take(*events)
    await rig.processor.release(frozenset(range(PARTITIONS)))
    lessons = sorted(
        memory.lessons.values(), key=lambda row: (row.second, row.partition, row.number, row.part)
    )
    digest = whole_digest([await memory.digest(partition) for partition in range(PARTITIONS)])
    return digest, [tuple(row) for row in lessons]


def forgets_mail(fold: Callable[..., Step]) -> Callable[..., Step]:
    """An older version of the fold, which knew nothing of mails that are opened."""

    def older(models: Models, event: CustomerEvent, *more: Any, **named: Any) -> Step:
        if isinstance(event, Touchpoint) and event.type == "email_opened":
            return Step(models)
        return fold(models, event, *more, **named)

    return older


SCRATCH = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'analyzer_rebuild%'"


async def begun(live: Live) -> bool:
    return bool(await live.rows(SCRATCH))


def ticks(at: int) -> list[CustomerEvent]:
    return [Tick(partition=partition, recorded_at=at) for partition in range(PARTITIONS)]
