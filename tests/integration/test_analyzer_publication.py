"""What was committed is published, once: after a crash, on a new cluster, without a database for a while."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.contracts.customer_event import Tick
from libs.common.contracts.topics import TOPICS
from libs.common.errors import Transient
from services.analyzer.store.memory import MemoryAnalyzerStore
from tests.integration.analyzer_world import (
    C7,
    SPOOL,
    T0,
    Rig,
    Stores,
    ledger_of,
    make_rig,
    models_on,
    story,
    view,
)


async def test_slice_is_written_once_however_late_a_lost_commit_comes(rig: Rig) -> None:
    """A commit whose answer was lost ends after the owner has read the state again: the second must fail."""
    await rig.claim(C7)
    owned = rig.processor._owned[C7]
    for message in (rig.messages(view("a")), rig.messages(Tick(partition=C7, recorded_at=T0), first=2)):
        slice_ = await rig.processor._handler.prepare(owned.state, owned.cache, message)
        assert slice_ is not None
        await rig.stores.slices.write(slice_.write)
        with pytest.raises(Transient):
            await rig.stores.slices.write(slice_.write)
        owned.state = slice_.write.state
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.internal, ledger.balanced) == (1, 1, True)


async def test_write_in_doubt_has_errands_looked_for(rig: Rig) -> None:
    """It may have met a rebuild that withdrew models: somebody has to purge them."""
    await rig.claim(C7)
    rig.processor.errands.clear()
    rig.processor._owned[C7].certain = False
    await rig.processor.process(C7, rig.messages(view("a")))
    assert rig.processor.errands.is_set()


async def test_heir_publishes_what_the_owner_committed_and_did_not_publish(
    stores: Stores, bus: MemoryBus
) -> None:
    crashed = make_rig(stores, bus)
    await crashed.claim(C7)
    running = asyncio.create_task(crashed.publisher.run())
    await crashed.told()
    running.cancel()
    await asyncio.wait([running])
    await crashed.processor.process(C7, crashed.messages(*story()))
    assert models_on(bus) == []
    heir = make_rig(stores, bus)
    running = asyncio.create_task(heir.publisher.run())
    assert await heir.claim(C7, generation=2) == {C7: 9}
    await asyncio.sleep(0.05)
    told = await heir.told()
    assert told.applied == {SPOOL: 9}
    assert told.epoch == 2
    assert {m.key for m in models_on(bus)} == {b"c-7/profile", b"c-7/items"}
    running.cancel()
    await asyncio.wait([running])


async def test_new_cluster_gets_all_models_again_and_revisions_go_on(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*story()))
    await rig.told()
    rig.bus.replace_cluster("memory-2")
    await rig.bus.ensure_topics(TOPICS)
    assert await rig.claim(C7, generation=0) == {C7: 0}
    rig.offset = 0
    await rig.processor.process(C7, rig.messages(*story(), view("new", T0 + 9_000)))
    told = await rig.told()
    assert told.cluster == "memory-2"
    assert told.applied == {SPOOL: 10}
    newest = {m.key: m.header("revision") for m in models_on(rig.bus, C7)}
    assert newest == {b"c-7/profile": b"7", b"c-7/items": b"7"}
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.redelivered, ledger.balanced) == (7, 9, True)


async def test_commit_whose_answer_was_lost_is_found_and_published(bus: MemoryBus) -> None:
    memory = MemoryAnalyzerStore()
    rig = make_rig(Stores(memory, memory), bus)
    running = asyncio.create_task(rig.publisher.run())
    await rig.claim(C7)
    memory.fail_after_commit = True
    messages = rig.messages(*story())
    with pytest.raises(Transient):
        await rig.processor.process(C7, messages)
    await rig.processor.process(C7, messages)
    told = await rig.told()
    assert told.applied == {SPOOL: 9}
    assert len(memory.stored) == 6
    assert len(models_on(bus)) == 2
    running.cancel()
    await asyncio.wait([running])


async def test_database_away_is_transient_and_heals(bus: MemoryBus) -> None:
    memory = MemoryAnalyzerStore()
    rig = make_rig(Stores(memory, memory), bus)
    running = asyncio.create_task(rig.publisher.run())
    await rig.claim(C7)
    await rig.told()
    memory.away = True
    messages = rig.messages(*story())
    with pytest.raises(Transient):
        await rig.processor.process(C7, messages)
    memory.away = False
    await rig.processor.process(C7, messages)
    assert len(memory.stored) == 6
    running.cancel()
    await asyncio.wait([running])


async def test_nothing_is_told_of_a_slice_before_it_is_committed(
    rig: Rig, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(view("v-0", customer="c-1")))
    before = await rig.told()
    published = len(models_on(bus))

    async def away(write: object) -> None:
        # As long as a loop that published already would need.
        await asyncio.sleep(0.2)
        raise Transient("away")

    monkeypatch.setattr(rig.stores.slices, "write", away)
    with pytest.raises(Transient):
        await rig.processor.process(C7, rig.messages(view("v-1"), first=2))
    assert before.applied == {SPOOL: 1}
    assert await rig.told() == before
    assert len(models_on(bus)) == published


async def test_what_is_published_is_not_published_again_by_the_heir(rig: Rig, bus: MemoryBus) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(view("a")))
    await rig.told()
    await rig.processor.process(C7, rig.messages(Tick(partition=C7, recorded_at=T0 + 9), first=2))
    assert len(models_on(bus)) == 2
    heir = make_rig(rig.stores, bus)
    running = asyncio.create_task(heir.publisher.run())
    await heir.claim(C7, generation=2)
    assert (await heir.told()).models_offset == 3
    assert len(models_on(bus)) == 2
    await heir.processor.release(frozenset({C7}))
    running.cancel()
    await asyncio.wait([running])
