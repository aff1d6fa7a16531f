"""All partitions of an analyzer, fed from the bus, and a customer with a visitor who are to be erased."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import msgspec

from libs.common.bus.ports import Record
from libs.common.contracts.customer_event import (
    CustomerEvent,
    Erasure,
    IdentityLinked,
    SpoolReported,
    Tick,
    Touchpoint,
    encode_event,
)
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.topics import CUSTOMER_EVENTS
from services.analyzer.errands import Errands
from services.analyzer.rebuild.partition import PartitionRebuild
from services.analyzer.store.memory import MemoryAnalyzerStore, MemoryErasedKeys
from services.analyzer.store.rebuilding import PostgresRebuildStore
from tests.integration.analyzer_world import SPOOL, T0, Rig, Stores, base, clicked, decision, order, view

KEY = "c-erase-me"
VISITOR = "anon:v-erase-me"
TRACES = (KEY.encode(), VISITOR.removeprefix("anon:").encode())


class World:
    """A rig whose partitions are all ours, fed from the bus as a consumer would."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.file = MemoryErasedKeys()
        self.errands = Errands(
            rig.processor,
            rig.stores.slices if hasattr(rig.stores.slices, "notices") else rig.stores.slices._erasures,
            rig.publisher,
            rig.bus,
            Random(3),
            rig.processor._metrics,
            self.file,
        )
        self.read = dict.fromkeys(range(PARTITIONS), 0)
        self.seq = dict.fromkeys(range(PARTITIONS), 0)

    async def post(self, *events: CustomerEvent | tuple[str, bytes]) -> None:
        """Put ``events`` on the journal as one spool would; (key, value) for what cannot be read."""
        producer = self.rig.bus.producer()
        for event in events:
            if isinstance(event, tuple):
                key, value = event
                partition = partition_of(key)
            elif isinstance(event, Tick):
                key, value, partition = "tick", encode_event(event), event.partition
            else:
                assert not isinstance(event, SpoolReported)
                key, value, partition = event.customer, encode_event(event), partition_of(event.customer)
            self.seq[partition] += 1
            headers = (("spool", SPOOL.encode()), ("seq", b"%d" % self.seq[partition]))
            await producer.send(CUSTOMER_EVENTS, partition, [Record(key.encode(), value, headers)])

    async def apply(self) -> None:
        """Process what is on the journal, partition by partition."""
        for partition in range(PARTITIONS):
            records = self.rig.bus.records(CUSTOMER_EVENTS, partition)
            if len(records) > self.read[partition]:
                await self.rig.processor.process(partition, records[self.read[partition] :])
                self.read[partition] = len(records)

    async def settle(self) -> None:
        """Apply, run errands and publish until nothing is left to be done."""
        for _ in range(200):
            await self.apply()
            left = await self.errands.round()
            unread = any(len(self.rig.bus.records(CUSTOMER_EVENTS, p)) > n for p, n in self.read.items())
            if not left and not unread and not any(map(self.rig.publisher._waits, range(PARTITIONS))):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("errands without end")


async def rebuilds_the_same(stores: Any) -> None:
    """What an erasure leaves is what the events that are left come to."""
    if isinstance(stores.slices, MemoryAnalyzerStore):
        return
    schema = stores.slices._schema
    anew = PostgresRebuildStore(stores.slices._database, f"{schema}_rebuild_anew", schema)
    await anew.prepare()
    for partition in range(PARTITIONS):
        await PartitionRebuild(anew, partition).fold()
        told = await PartitionRebuild(anew, partition).settle(switch=False)
        assert told.live == told.rebuilt


def link(customer: str, visitor: str, id_: str, at: int = T0) -> list[IdentityLinked]:
    """Both records of a link."""
    found = []
    for key, internal in ((customer, False), (f"anon:{visitor}", True)):
        more = base(id_, at, customer=key)
        found.append(IdentityLinked(**more, internal=internal, customer_id=customer, anonymous_id=visitor))
    return found


def erasure(customer: str, id_: str = "e-1", at: int = T0 + 60_000) -> Erasure:
    return Erasure(**{**base(id_, at, customer=customer), "source": "dpo"})


def his(customer: str, event: Any) -> Any:
    return msgspec.structs.replace(event, customer=customer)


def life() -> list[CustomerEvent | tuple[str, bytes]]:
    """A customer with a linked visitor, an order of both, a decision, an outcome and a dead letter."""
    return [
        his(VISITOR, view("v-1")),
        *link(KEY, "v-erase-me", "l-1", T0 + 1_000),
        his(KEY, order("o-1", T0 + 2_000, ("tea", 1, 3.0))),
        Touchpoint(
            **base("o-2", T0 + 3_000, customer=VISITOR, internal=True),
            type="order_completed",
            channel="web",
            properties={"order_id": "o-2", "products": [{"product_id": "tea", "quantity": 1, "price": 3.0}]},
            customer_id=KEY,
            anonymous_id="v-erase-me",
            echo=True,
        ),
        his(KEY, decision("d-1", T0 + 4_000)),
        his(KEY, clicked("d-1", T0 + 5_000)),
        (KEY, b'{"kind":"touchpoint","customer":"c-erase-me","broken":'),
        his("c-other", order("o-3", T0 + 6_000, ("tea", 2, 3.0))),
    ]


async def everything(stores: Stores) -> bytes:
    """All that is stored, as bytes."""
    if hasattr(stores.slices, "stored"):
        return repr(vars(stores.slices)).encode()
    database, schema = stores.slices._database, stores.slices._schema
    found = b""
    async with database.connection() as connection:
        tables = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY 1", schema
        )
        for (table,) in tables:
            for row in await connection.fetch(f"SELECT * FROM {schema}.{table}"):
                found += repr(tuple(row)).encode()
    return found
