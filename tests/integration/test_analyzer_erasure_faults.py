"""Erasures in spite of crashes, lost answers, a restored database and code that refuses what is stored."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, cast

import msgspec
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.contracts.customer_event import CustomerEvent, decode_event
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.topics import CUSTOMER_EVENTS
from libs.common.errors import Fenced, Invalid, Transient
from services.analyzer.handlers import erasing
from services.analyzer.handlers.folding import fold_into
from services.analyzer.handlers.queries import Queries
from services.analyzer.intake import Intake
from services.analyzer.model.erased import KeyHasher
from services.analyzer.model.erasures import SuppressedRow
from services.analyzer.restoring import Restoring
from services.analyzer.store.memory import MemoryAnalyzerStore
from tests.integration.analyzer_world import T0, view
from tests.integration.erasure_world import KEY, TRACES, VISITOR, World, erasure, everything, his, life, link


async def test_erasure_goes_on_over_what_the_present_code_refuses(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored by an older version: it can neither be read nor folded any more."""

    def decoded(body: bytes) -> CustomerEvent:
        if b"unreadable" in body:
            raise msgspec.DecodeError("another format")
        return decode_event(body)

    def folded(customers: Any, event: Any, *rest: Any) -> Any:
        if event.id == "unfoldable":
            raise Invalid("wrong_type", "not any more")
        return fold_into(customers, event, *rest)

    events = [his(KEY, view(id_)) for id_ in ("unreadable", "unfoldable", "v-3")]
    of_both = msgspec.structs.replace(his(KEY, view("unreadable-too")), anonymous_id="v-gone")
    await world.post(*link(KEY, "v-gone", "l-1"), *events, of_both)
    await world.settle()
    monkeypatch.setattr(erasing, "decode_event", decoded)
    monkeypatch.setattr(erasing, "fold_into", folded)
    await world.post(erasure("anon:v-gone"))
    await world.settle()
    assert b"v-gone" not in await everything(world.rig.stores)
    assert (await Queries(world.rig.stores.reading).customer(KEY)).totals == {"product_viewed": 1}
    await world.post(erasure(KEY, "e-2"))
    await world.settle()
    ledger = await Queries(world.rig.stores.reading).ledger()
    assert (ledger.dead_lettered, ledger.balanced) == (0, True)
    assert KEY.encode() not in await everything(world.rig.stores)


async def test_two_analyzers_that_start_after_a_restore_do_not_fence_each_other(world: World) -> None:
    stores = world.rig.stores
    if isinstance(stores.slices, MemoryAnalyzerStore):
        pytest.skip("one process has it")
    await world.post(*life())
    await world.settle()
    hasher = KeyHasher(b"k" * 32)
    world.file.add(SuppressedRow(partition_of(key), hasher(key), "e-before") for key in (KEY, VISITOR))
    again = await asyncio.gather(*(Restoring(stores.slices, world.file, hasher).apply() for _ in range(2)))
    assert sorted(again) == [0, 2]


async def test_start_that_is_fenced_is_tried_again() -> None:
    attempts = iter([Fenced("partition 3 has another owner"), None])

    async def prepare() -> None:
        if (error := next(attempts)) is not None:
            raise error

    intake = Intake(prepare, cast("Any", None), Random(1))
    await intake.start()
    assert "another owner" in (intake.trouble() or "")
    await intake.start()
    assert intake.trouble() is None


async def test_notice_survives_a_crash_before_it_is_sent(world: World, bus: MemoryBus) -> None:
    await world.post(*life(), erasure(KEY))
    await world.apply()  # the process ends here: nobody ran the errands
    assert VISITOR.encode() in await everything(world.rig.stores)
    await world.rig.processor.release(frozenset(range(PARTITIONS)))
    await world.rig.claim(*range(PARTITIONS), generation=2)
    await world.settle()
    left = await everything(world.rig.stores)
    assert not any(trace in left for trace in TRACES)


async def test_erasure_whose_commit_was_not_heard_is_known_all_the_same(world: World) -> None:
    store = world.rig.stores.slices
    if not hasattr(store, "fail_after_commit"):
        pytest.skip("only the memory store plays a broken connection")
    await world.post(his(KEY, view("v-1")), erasure(KEY))
    partition = partition_of(KEY)
    records = world.rig.bus.records(CUSTOMER_EVENTS, partition)
    await world.rig.processor.process(partition, records[:1])
    store.fail_after_commit = True
    with pytest.raises(Transient):
        await world.rig.processor.process(partition, records[1:])
    assert len(store.erasures) == 1
    await world.post(his(KEY, view("v-2")))
    later = world.rig.bus.records(CUSTOMER_EVENTS, partition)[1:]
    await world.rig.processor.process(partition, later)
    assert store.stored == []


async def test_restored_database_forgets_again_who_was_erased_later(world: World) -> None:
    await world.post(*life(), *link("c-other", "v-erase-me", "l-8", T0 + 9_000))
    await world.settle()
    stores = world.rig.stores
    hasher = KeyHasher(b"k" * 32)
    # What was erased after the backup: the file is newer than the database.
    world.file.add(
        SuppressedRow(partition_of(key), hasher(key), "e-before") for key in (KEY, VISITOR, "c-unheard-of")
    )
    assert await Restoring(stores.slices, world.file, hasher).apply() == 2
    await world.rig.claim(*range(PARTITIONS), generation=2)
    await world.settle()
    await world.post(his(KEY, view("late-1")))
    await world.settle()
    left = await everything(stores)
    assert not any(trace in left for trace in TRACES)
    assert b"c-other" in left
    assert (await Queries(stores.reading).ledger()).balanced
    assert await Restoring(stores.slices, world.file, hasher).apply() == 0
