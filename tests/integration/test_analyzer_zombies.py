"""Who may write a partition: an owner that was stopped meanwhile, its heir, and what readers then have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.contracts.customer_event import Erasure
from libs.common.contracts.progress import decode_progress
from libs.common.contracts.topics import CUSTOMER_MODELS, PROGRESS
from libs.common.errors import Fenced
from services.analyzer.store.memory import MemoryAnalyzerStore
from tests.integration.analyzer_world import C7, Rig, base, ledger_of, make_rig, models_on, view


async def test_lower_generation_claims_only_where_the_owner_is_silent(rig: Rig) -> None:
    """A group whose coordinator lost it begins at generation 0 in the same cluster."""
    await rig.claim(C7, generation=7)
    with pytest.raises(Fenced):
        await rig.claim(C7, generation=1)
    if isinstance(rig.stores.slices, MemoryAnalyzerStore):
        rig.stores.slices.silent = True
    else:
        store = rig.stores.slices
        async with store._database.bulk() as connection:
            await connection.execute(
                f"UPDATE {store._schema}.partitions SET touched_at = now() - interval '61 seconds'"
            )
    assert await rig.claim(C7, generation=1) == {C7: 0}
    await rig.claim(C7, generation=1)


async def test_zombie_is_fenced_and_changes_nothing(rig: Rig, bus: MemoryBus) -> None:
    await rig.claim(C7, generation=1)
    await rig.processor.process(C7, rig.messages(view("a")))
    heir = make_rig(rig.stores, bus)
    assert await heir.claim(C7, generation=2) == {C7: 1}
    with pytest.raises(Fenced):
        await rig.processor.process(C7, rig.messages(view("b"), first=2))
    with pytest.raises(Fenced):
        await rig.claim(C7, generation=1)
    assert (await ledger_of(rig)).applied == 1
    await heir.processor.release(frozenset({C7}))


class Freezer:
    """A producer in whose sends the process may be stopped; `time` is what its monotonic clock says."""

    def __init__(self, inner: Any, rig: Rig) -> None:
        self.inner = inner
        self.thaw: Any = None
        self.now = 0.0
        rig.publisher._monotonic = lambda: self.now

    async def send(self, topic: str, partition: int, records: Any) -> int:
        if self.thaw is not None and topic == CUSTOMER_MODELS:
            thaw, self.thaw = self.thaw, None
            await thaw()
        return int(await self.inner.send(topic, partition, records))

    async def close(self) -> None:
        await self.inner.close()


@pytest.mark.parametrize("frozen", ["before the send", "within the send"])
async def test_zombie_leaves_no_older_model_behind_the_newer_one(
    rig: Rig, bus: MemoryBus, frozen: str
) -> None:
    """A compacted topic keeps what came last: there it must not be what a stopped process still had."""
    await rig.claim(C7, generation=1)
    await rig.told()
    freezer = Freezer(rig.publisher._producer, rig)
    rig.publisher._producer = freezer
    heir = make_rig(rig.stores, bus)
    running = asyncio.create_task(heir.publisher.run())

    async def others_go_on() -> None:
        freezer.now += 30.0
        await heir.claim(C7, generation=2)
        heir.offset = rig.offset
        await heir.processor.process(C7, heir.messages(view("b"), first=2))
        await heir.told()

    rig.publisher.renew(C7, 0.0)
    if frozen == "within the send":
        freezer.thaw = others_go_on
        await rig.processor.process(C7, rig.messages(view("a")))
        rig.publisher.renew(C7, 0.0)
    else:
        rig.publisher._producer = None
        await rig.processor.process(C7, rig.messages(view("a")))
        rig.publisher.renew(C7, 0.0)
        await others_go_on()
        rig.publisher._producer = freezer
        rig.publisher._wake.set()
    for _ in range(100):
        await asyncio.sleep(0.005)
    newest = {m.key: m.header("revision") for m in models_on(bus, C7)}
    assert newest == {b"c-7/profile": b"2", b"c-7/items": b"2"}
    told = [decode_progress(m.value or b"") for m in bus.records(PROGRESS) if m.key == b"%d" % C7]
    assert told[-1].epoch == 2
    running.cancel()
    await asyncio.wait([running])


async def test_zombie_leaves_no_model_of_who_was_erased_meanwhile(rig: Rig, bus: MemoryBus) -> None:
    """Erased, withdrawn and purged while it was stopped: the database has nothing to put right by."""
    await rig.claim(C7, generation=1)
    await rig.told()
    freezer = Freezer(rig.publisher._producer, rig)
    rig.publisher._producer = freezer
    heir = make_rig(rig.stores, bus)
    running = asyncio.create_task(heir.publisher.run())

    async def others_erase() -> None:
        freezer.now += 30.0
        await heir.claim(C7, generation=2)
        heir.offset = rig.offset
        await heir.processor.process(C7, heir.messages(Erasure(**base("e")), first=2))
        told = await heir.told()
        store = rig.stores.slices
        await getattr(store, "_erasures", store).purge(C7, told.counters["applied"], 0)
        assert await store.unpublished(C7, 0, ("", ""), 10) == []

    freezer.thaw = others_erase
    await rig.processor.process(C7, rig.messages(view("a")))
    rig.publisher.renew(C7, 0.0)
    for _ in range(100):
        await asyncio.sleep(0.005)
    assert {m.key: m.value for m in models_on(bus, C7)} == {b"c-7/profile": None, b"c-7/items": None}
    running.cancel()
    await asyncio.wait([running])
