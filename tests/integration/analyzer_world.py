"""An analyzer on either store, a bus in memory, and events that happen to one customer."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from random import Random
from typing import Any

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Assignment, Headers, Message
from libs.common.clock import ManualClock
from libs.common.contracts.customer_event import (
    ConsentGiven,
    CustomerEvent,
    DecidedOffer,
    Decision,
    IdentityLinked,
    Outcome,
    SpoolReported,
    Tick,
    Touchpoint,
    encode_event,
)
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.marker import MARKER_KEY
from libs.common.contracts.progress import decode_progress
from libs.common.contracts.topics import CUSTOMER_EVENTS, CUSTOMER_MODELS, PROGRESS
from libs.common.telemetry import Metrics
from services.analyzer.consumer import AnalyzerProcessor
from services.analyzer.handlers.queries import Queries
from services.analyzer.metrics import AnalyzerMetrics
from services.analyzer.model.digest import whole_digest
from services.analyzer.model.erased import KeyHasher
from services.analyzer.publisher import BusPublisher
from services.analyzer.store.memory import MemoryAnalyzerStore

T0 = 1_790_000_000_000
SPOOL = "0f3a9c1e"
C7 = partition_of("c-7")


@dataclass
class Stores:
    """The two faces of one store."""

    slices: Any
    reading: Any


def word() -> str:
    """A name no other test has used; schemas are spelt with letters only."""
    return uuid.uuid4().hex[:12].translate(str.maketrans("0123456789", "ghijklmnop"))


async def models_digest(store: Any) -> str:
    """Of all customer models."""
    return whole_digest([await store.digest(partition) for partition in range(PARTITIONS)])


@dataclass
class Rig:
    stores: Stores
    bus: MemoryBus
    publisher: BusPublisher
    processor: AnalyzerProcessor
    offset: int = 0

    async def claim(self, *partitions: int, generation: int = 1) -> dict[int, int]:
        cluster = await self.bus.cluster_id()
        offsets = dict(await self.processor.claim(Assignment(frozenset(partitions), generation, cluster)))
        for partition in partitions:
            await self.processor._owned[partition].caught_up.wait()
        return offsets

    def messages(
        self, *events: CustomerEvent | bytes, first: int = 1, spool: str = SPOOL, floor: int | None = None
    ) -> list[Message]:
        found = []
        for seq, event in enumerate(events, first):
            value = event if isinstance(event, bytes) else encode_event(event)
            headers: Headers = (
                ("schema", b"customer-event/1"),
                ("spool", spool.encode()),
                ("seq", b"%d" % seq),
            )
            if floor is not None and seq == first:
                headers = (*headers, ("floor", b"%d" % floor))
            found.append(Message(CUSTOMER_EVENTS, C7, self.offset, b"k", value, headers, 0))
            self.offset += 1
        return found

    async def told(self) -> Any:
        """The newest progress of the partition, once nothing waits any more."""
        for _ in range(400):
            if not self.publisher._waits(C7):
                break
            await asyncio.sleep(0.005)
        records = [decode_progress(m.value or b"") for m in self.bus.records(PROGRESS) if m.key == b"%d" % C7]
        return records[-1] if records else None


def make_rig(stores: Stores, bus: MemoryBus, **options: Any) -> Rig:
    metrics = AnalyzerMetrics(Metrics("analyzer"))
    publisher = BusPublisher(bus, stores.slices, Random(1), metrics)
    processor = AnalyzerProcessor(
        stores.slices,
        publisher,
        metrics,
        ManualClock(T0),
        Random(2),
        hasher=KeyHasher(b"k" * 32),
        **{"cache_bytes": 1_000_000, "dead_letter_share": 0.5, **options},
    )
    return Rig(stores, bus, publisher, processor)


def base(id_: str, at: int = T0, customer: str = "c-7", **more: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "source": "shop",
        "customer": customer,
        "occurred_at": at,
        "recorded_at": at + 5,
        **more,
    }


def view(id_: str, at: int = T0, product: str = "tea", **more: Any) -> Touchpoint:
    return Touchpoint(
        **base(id_, at, **more), type="product_viewed", channel="web", properties={"product_id": product}
    )


def order(id_: str, at: int = T0, *lines: tuple[str, float, float | None], **more: Any) -> Touchpoint:
    products = [{"product_id": p, "quantity": q, "price": price} for p, q, price in lines]
    return Touchpoint(
        **base(id_, at, **more),
        type="order_completed",
        channel="store",
        properties={"order_id": id_, "products": products},
    )


def decision(id_: str, at: int = T0) -> Decision:
    offer = DecidedOffer(
        offer_id="product:filter",
        product_id="filter",
        kind="cross_sell",
        rank=1,
        score=0.2,
        propensity=1.0,
        mean=0.2,
        source="complements",
    )
    return Decision(
        **{**base(id_, at), "source": "recommender"},
        placement="basket",
        channel="web",
        group="treatment",
        policy_version="fixed-1",
        model_version=1,
        catalogue_version=1,
        seed=1,
        objective="uplift",
        offers=(offer,),
    )


def clicked(decision_id: str, at: int = T0, word: str = "clicked") -> Outcome:
    return Outcome(
        **{**base(f"{decision_id}/product:filter/{word}", at), "source": "feedback"},
        decision_id=decision_id,
        offer_id="product:filter",
        outcome=word,
    )


def story() -> list[CustomerEvent]:
    return [
        view("v-1"),
        order("o-1", T0 + 1_000, ("coffee", 2, 7.5), ("filter", 1, None)),
        Tick(partition=C7, recorded_at=T0 + 2_000),
        decision("d-1", T0 + 3_000),
        clicked("d-1", T0 + 4_000),
        IdentityLinked(**base("l-1", T0 + 5_000), customer_id="c-7", anonymous_id="v-3"),
        ConsentGiven(**base("k-1", T0 + 6_000), purpose="personalisation", granted=False, channel="email"),
        view("v-1"),
        SpoolReported(
            spool=SPOOL,
            service="collector",
            recorded_at=T0 + 7_000,
            accepted={"shop": 5, "feedback": 1, "recommender": 1},
        ),
    ]


def models_on(bus: MemoryBus, partition: int | None = None) -> list[Message]:
    """What was published of models, without markers."""
    return [m for m in bus.records(CUSTOMER_MODELS, partition) if m.key != MARKER_KEY]


async def ledger_of(rig: Rig) -> Any:
    return await Queries(rig.stores.reading).ledger()


async def lessons(stores: Stores) -> list[tuple[Any, ...]]:
    if isinstance(stores.slices, MemoryAnalyzerStore):
        return [tuple(row) for _, row in sorted(stores.slices.lessons.items())]
    store = stores.slices
    async with store._database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT partition, number, second, kind, body, part FROM {store._schema}.lessons"
            " ORDER BY number, part"
        )
    return [tuple(row) for row in rows]
