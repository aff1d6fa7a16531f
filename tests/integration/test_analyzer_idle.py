"""Visitors who are dropped, on both stores: rows, what readers are told, a crash, a rebuild, their return."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from libs.common.bus.ports import Message
from libs.common.clock import DAY
from libs.common.contracts.customer_event import CustomerEvent, Tick, encode_event
from libs.common.contracts.customer_model import ITEMS, PROFILE, model_key
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.topics import CUSTOMER_EVENTS, CUSTOMER_MODELS, TOPICS
from libs.common.errors import Transient
from libs.common.view.memory import MemoryView
from services.analyzer import errands
from services.analyzer.errors import UnknownCustomer
from services.analyzer.handlers import slices
from services.analyzer.handlers.certificate import certificate
from services.analyzer.handlers.queries import Queries
from services.analyzer.rebuild.partition import PartitionRebuild
from services.analyzer.store import erasing
from services.analyzer.store.memory import MemoryAnalyzerStore
from services.analyzer.store.rebuilding import PostgresRebuildStore
from tests.integration.analyzer_world import SPOOL, T0, decision, order, view
from tests.integration.erasure_world import (
    KEY,
    TRACES,
    VISITOR,
    World,
    erasure,
    everything,
    his,
    link,
    rebuilds_the_same,
)

OTHER = "anon:v-linked"
PLACE = partition_of(VISITOR)


def ticks(at: int) -> list[CustomerEvent]:
    return [Tick(partition=partition, recorded_at=at) for partition in range(PARTITIONS)]


def told(world: World, key: str, part: str) -> list[Message]:
    records = world.rig.bus.records(CUSTOMER_MODELS, partition_of(key))
    return [record for record in records if record.key == model_key(key, part)]


async def served(world: World, key: str) -> bytes | None:
    """The profile as a reader of the topic has it."""
    view_ = MemoryView(world.rig.bus, CUSTOMER_MODELS)
    await view_.start()
    records = world.rig.bus.records(CUSTOMER_MODELS, partition_of(key))
    assert await view_.reached(partition_of(key), len(records), 5.0)
    await view_.stop()
    return view_.get(model_key(key, PROFILE))


async def rows(world: World, *keys: str) -> list[Any]:
    return list(await world.rig.stores.slices.models(partition_of(keys[0]), list(keys)))


async def test_a_dropped_visitor_is_withdrawn_and_comes_back_anew(world: World) -> None:
    queries = Queries(world.rig.stores.reading)
    before = [his(VISITOR, order("o-1", T0, ("tea", 1, 3.0))), his(OTHER, view("v-1"))]
    await world.post(*before, *link("c-1", "v-linked", "l", T0 + 1), *ticks(T0 + 89 * DAY))
    await world.settle()
    assert await served(world, VISITOR) is not None
    await world.post(*ticks(T0 + 91 * DAY))
    await world.settle()
    assert await rows(world, VISITOR) == []
    assert await served(world, VISITOR) is None
    for part in (PROFILE, ITEMS):
        *_, known, gone = told(world, VISITOR, part)
        assert known.value is not None
        assert gone.value is None
        assert gone.header("dropped") == b"1"
        assert int(gone.header("revision") or b"0") > int(known.header("revision") or b"0")
    with pytest.raises(UnknownCustomer):
        await queries.customer(VISITOR)
    assert [entry.id for entry in await queries.timeline(VISITOR, 9, None)] == ["o-1"]
    assert b"o-1" in b"".join([piece async for piece in await queries.export(VISITOR)])
    # What he did counts for the customer he turned out to be.
    assert "product_viewed" in (await queries.customer("c-1")).totals
    await rebuilds_the_same(world.rig.stores)
    await world.post(his(VISITOR, view("v-2", T0 + 95 * DAY)))
    await world.settle()
    assert (await queries.customer(VISITOR)).totals == {"product_viewed": 1}
    assert await served(world, VISITOR) is not None
    await rebuilds_the_same(world.rig.stores)


async def test_withdrawal_that_was_not_published_is_made_up_for(world: World) -> None:
    await world.post(his(VISITOR, view("v-1")))
    await world.settle()
    state = world.rig.processor._owned[PLACE].state
    # Committed, and the process ended before anything of it was sent.
    event = Tick(partition=PLACE, recorded_at=T0 + 91 * DAY)
    headers = (("spool", SPOOL.encode()), ("seq", b"%d" % (world.seq[PLACE] + 1)))
    message = Message(CUSTOMER_EVENTS, PLACE, state.next_offset, b"k", encode_event(event), headers, 0)
    slice_ = await world.rig.processor._handler.prepare(
        state, world.rig.processor._owned[PLACE].cache, [message]
    )
    assert slice_ is not None
    await world.rig.stores.slices.write(slice_.write)
    assert told(world, VISITOR, PROFILE)[-1].value is not None
    await world.rig.processor.release(frozenset(range(PARTITIONS)))
    await world.rig.claim(*range(PARTITIONS), generation=2)
    for _ in range(200):
        if not await world.errands.round() and told(world, VISITOR, PROFILE)[-1].value is None:
            break
    assert told(world, VISITOR, PROFILE)[-1].value is None
    assert told(world, VISITOR, PROFILE)[-1].header("dropped") == b"1"


async def test_a_dropped_visitor_can_be_erased_and_nothing_of_him_is_left(world: World) -> None:
    await world.post(his(VISITOR, view("v-1")), *ticks(T0 + 91 * DAY))
    await world.settle()
    await world.post(his(VISITOR, view("v-2", T0 + 92 * DAY)), *ticks(T0 + 93 * DAY))
    await world.settle()
    # Before his timer fires.
    await world.post(erasure(VISITOR, at=T0 + 94 * DAY))
    await world.settle()
    held = await everything(world.rig.stores)
    assert not [trace for trace in TRACES if trace in held]
    # Readers must know that he is not to come back.
    assert told(world, VISITOR, PROFILE)[-1].header("dropped") is None


async def test_what_an_erasure_withdraws_of_a_shared_visitor_does_not_come_back(world: World) -> None:
    visitor = "anon:v-shared"
    await world.post(*link(KEY, "v-shared", "l-1"), his(visitor, view("v-1", T0 + 500)))
    await world.post(*link("c-other", "v-shared", "l-2", T0 + 1_000), his(visitor, view("v-2", T0 + 2_000)))
    await world.settle()
    assert told(world, f"{visitor}~1", PROFILE)[-1].value is not None
    before = len(told(world, visitor, PROFILE))
    await world.post(erasure(KEY))
    await world.settle()
    assert len(told(world, visitor, PROFILE)) > before
    for part in (PROFILE, ITEMS):
        gone = told(world, f"{visitor}~1", part)[-1]
        assert (gone.value, gone.header("dropped")) == (None, None)
    await rebuilds_the_same(world.rig.stores)


async def test_who_is_dropped_keeps_no_erasure_waiting(world: World) -> None:
    await world.post(his(VISITOR, view("v-1")), *ticks(T0 + 89 * DAY))
    await world.post(erasure("c-gone", at=T0 + 89 * DAY))
    await world.settle()
    world.rig.processor.errands.clear()
    publisher = world.rig.publisher
    send, publisher._send = publisher._send, held  # type: ignore[method-assign]
    await world.post(*ticks(T0 + 91 * DAY))
    await world.apply()
    assert await rows(world, VISITOR) == []
    assert not world.rig.processor.errands.is_set()
    assert (await certificate(world.rig.stores.reading, "e-1")).complete
    assert not await world.errands.round()
    publisher._send = send  # type: ignore[method-assign]
    await world.settle()


async def test_a_broker_lost_before_readers_knew_tells_of_no_erasure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.post(his(VISITOR, view("v-1")), *ticks(T0 + 91 * DAY))
    await world.settle()
    world.rig.bus.replace_cluster("memory-2")
    await world.rig.bus.ensure_topics(TOPICS)
    world.read = dict.fromkeys(range(PARTITIONS), 0)
    await world.rig.claim(*range(PARTITIONS), generation=0)
    await world.settle()
    gone = told(world, VISITOR, PROFILE)[-1]
    assert (gone.value, gone.header("dropped")) == (None, b"1")
    monkeypatch.setattr(errands, "DROPPED_KEPT", 0.0)
    for _ in range(3):
        await world.errands.round()
    assert VISITOR.encode() not in await stored_models(world)


async def test_very_many_who_were_dropped_leave_the_table_in_portions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "PURGED_AT_ONCE", 4)
    many = [key for n in range(300) if partition_of(key := f"anon:v{n}") == PLACE][:7]
    await world.post(*(his(key, view(f"v-{n}")) for n, key in enumerate(many)), *ticks(T0 + 91 * DAY))
    await world.settle()
    monkeypatch.setattr(errands, "DROPPED_KEPT", 0.0)
    for _ in range(3):
        await world.errands.round()
    held = await stored_models(world)
    assert not [key for key in many if key.encode() in held]


async def test_very_many_of_one_millisecond_are_dropped_in_portions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "DUE_AT_ONCE", 5)
    many = [key for n in range(300) if partition_of(key := f"anon:v{n}") == PLACE][:13]
    await world.post(*(his(key, view(f"v-{n}")) for n, key in enumerate(many)))
    await world.post(his(many[0], decision("d-1", T0 + 80 * DAY)), *ticks(T0 + 89 * DAY))
    await world.settle()
    writes: list[int] = []
    store = world.rig.stores.slices
    write = store.write

    async def note(slice_: Any) -> None:
        await write(slice_)
        writes.append(sum(row.part == PROFILE and row.dropped for row in slice_.models))

    monkeypatch.setattr(store, "write", note)
    await world.post(Tick(partition=PLACE, recorded_at=T0 + 99 * DAY))
    await world.settle()
    assert writes == [5, 5, 2]
    assert {row.customer for row in await rows(world, *many)} == {many[0]}
    await rebuilds_the_same(world.rig.stores)


async def stored_models(world: World) -> bytes:
    """All rows of models, those withdrawn too."""
    found = []
    for partition in range(PARTITIONS):
        found += await world.rig.stores.slices.unpublished(partition, 0, ("", ""), 99)
    return repr(found).encode()


async def held(*_: Any) -> int:
    """A broker that cannot be reached."""
    raise Transient("held")


def wandering(length: int, seed: int) -> Sequence[CustomerEvent]:
    """Visitors with pauses of any length; some belong to a customer."""
    draw, at, events = random.Random(seed), T0, []
    for n in range(length):
        at += draw.choice([1, DAY, 9 * DAY])
        who = f"v-{draw.randrange(40)}"
        if draw.random() < 0.1:
            events += link(f"c-{draw.randrange(3)}", who, f"l-{n}", at)
        elif draw.random() < 0.5:
            events.append(his(f"anon:{who}", order(f"o-{n}", at, ("tea", 1, 3.0))))
        else:
            events.append(his(f"anon:{who}", view(f"e-{n}", at)))
    return [*events, *ticks(at + 50 * DAY)]


async def test_a_rebuild_drops_the_same_visitors(world: World) -> None:
    if isinstance(world.rig.stores.slices, MemoryAnalyzerStore):
        pytest.skip("there is no rebuild in memory")
    await world.post(*wandering(300, 4))
    await world.settle()
    store = world.rig.stores.slices
    async with store._database.connection() as connection:
        kept = await connection.fetchval(f"SELECT count(*) FROM {store._schema}.models WHERE NOT withdrawn")
        timers = await connection.fetchval(f"SELECT count(*) FROM {store._schema}.idle_timers")
    notes = sum(state.notes.get("idle", 0) for state in world.rig.processor.standing().values())
    assert notes > 20
    assert kept > timers > 3
    anew = PostgresRebuildStore(store._database, f"{store._schema}_rebuild_anew", store._schema)
    await anew.prepare()
    for partition in range(PARTITIONS):
        # What is folded does not fit into memory, and is put away before all of it is.
        await PartitionRebuild(anew, partition, held=1).fold()
        compared = await PartitionRebuild(anew, partition, held=1).settle(switch=False)
        assert compared.live == compared.rebuilt
        switched = await PartitionRebuild(anew, partition, held=1).settle(switch=True)
        assert (switched.models, switched.lessons) == (0, 0)
