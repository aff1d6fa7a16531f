"""Slices on both stores: what is counted, what is kept beside it, and what is skipped."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.clock import DAY
from libs.common.contracts.customer_event import CustomerEvent, SpoolReported, Tick, Touchpoint
from libs.common.contracts.customer_model import decode_items, decode_profile
from libs.common.contracts.identity import PARTITIONS, partition_of
from services.analyzer.errors import TooManyDeadLetters
from services.analyzer.handlers.queries import Queries
from services.analyzer.model.letters import LetterFilter
from services.analyzer.store.memory import MemoryAnalyzerStore
from tests.integration.analyzer_world import (
    C7,
    SPOOL,
    T0,
    Rig,
    Stores,
    base,
    ledger_of,
    make_rig,
    models_digest,
    models_on,
    order,
    story,
    view,
)


async def test_slice_counts_keeps_and_publishes(rig: Rig) -> None:
    assert await rig.claim(C7) == {C7: 0}
    await rig.processor.process(C7, rig.messages(*story()))
    told = await rig.told()
    assert told.applied == {SPOOL: 9}
    assert told.journal_time == T0 + 7_000
    assert told.counters == {"applied": 6, "duplicate": 1, "internal": 2}
    records = {m.key: m for m in models_on(rig.bus, C7)}
    assert set(records) == {b"c-7/profile", b"c-7/items"}
    assert told.models_offset == 3, "two parts, and the marker of the first claim"
    assert records[b"c-7/profile"].header("revision") == b"6"
    assert records[b"c-7/items"].header("revision") == b"2"
    profile = decode_profile(records[b"c-7/profile"].value or b"")
    assert profile.totals == {
        "product_viewed": 1,
        "order_completed": 1,
        "decision_made": 1,
        "clicked": 1,
        "identity_linked": 1,
        "consent_refused": 1,
    }
    assert profile.decisions[0].outcomes == ("clicked",)
    assert decode_items(records[b"c-7/items"].value or b"").items["coffee"].quantity == 2.0
    ledger = await ledger_of(rig)
    assert (ledger.accepted, ledger.applied, ledger.duplicate, ledger.in_flight) == (7, 6, 1, 0)
    assert ledger.balanced


async def test_redelivery_is_skipped_and_not_counted(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*story()))
    before = await models_digest(rig.stores.reading)
    await rig.processor.process(C7, rig.messages(*story()))
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.duplicate, ledger.redelivered) == (6, 1, 9)
    assert ledger.balanced
    assert await models_digest(rig.stores.reading) == before


async def test_gap_is_passed_over_until_the_spool_has_sent_again(rig: Rig) -> None:
    await rig.claim(C7)
    other = "feedbac4"
    report = SpoolReported(spool=SPOOL, service="collector", recorded_at=T0, accepted={"shop": 5})
    await rig.processor.process(C7, rig.messages(view("a"), report))
    await rig.processor.process(C7, rig.messages(view("d"), view("e"), first=5))
    await rig.processor.process(C7, rig.messages(view("z"), spool=other))
    assert (await rig.told()).applied == {SPOOL: 2, other: 1}
    ledger = await ledger_of(rig)
    assert (ledger.gaps, ledger.applied, ledger.in_flight, ledger.balanced) == (2, 2, 3, True)
    repaired = [view("b"), view("c"), view("d"), view("e")]
    await rig.processor.process(C7, rig.messages(*repaired, first=3))
    assert (await rig.told()).applied == {SPOOL: 6, other: 1}
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.in_flight, ledger.balanced) == (6, 0, True)
    entries = await Queries(rig.stores.reading).timeline("c-7", 10, None)
    assert {entry.id for entry in entries} == set("abcdez")


async def test_numbers_of_a_spool_begin_late_only_where_it_says_so(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(view("c"), first=3))
    assert (await rig.told()).applied == {}
    await rig.processor.process(C7, rig.messages(view("c"), view("d"), first=3, floor=2))
    assert (await rig.told()).applied == {SPOOL: 4}


async def test_spool_that_ended_leaves_a_day_later_and_a_silent_one_after_thirty(rig: Rig) -> None:
    ended, silent = "e17ded00", "51131700"
    await rig.claim(C7)
    over = SpoolReported(spool=ended, service="collector", recorded_at=T0, accepted={}, ended=True)
    await rig.processor.process(C7, rig.messages(view("a"), over, spool=ended))
    await rig.processor.process(C7, rig.messages(view("b"), spool=silent))

    async def pass_time(seq: int, days: float) -> set[str]:
        # Twice: who was alive a slice ago stays in this one.
        at = T0 + int(days * DAY)
        for number in (seq, seq + 1):
            await rig.processor.process(
                C7, rig.messages(Tick(partition=C7, recorded_at=at), first=number, spool="71c50000")
            )
        rig.publisher._lanes[C7].due = 0.0
        rig.publisher._wake.set()
        return set((await rig.told()).applied) - {"71c50000"}

    assert await pass_time(1, 0.9) == {ended, silent}
    assert await pass_time(3, 1.1) == {silent}
    assert await pass_time(5, 29) == {silent}
    assert await pass_time(7, 32) == set()
    assert (await ledger_of(rig)).balanced
    await rig.processor.process(C7, rig.messages(view("b"), view("c", T0 + 32 * DAY), spool=silent))
    assert (await rig.told()).applied[silent] == 2
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.redelivered, ledger.balanced) == (3, 1, True)


async def test_id_counts_again_after_thirty_days_of_journal_time(rig: Rig) -> None:
    await rig.claim(C7)
    later = T0 + 31 * DAY
    await rig.processor.process(C7, rig.messages(view("a"), view("a", T0 + 29 * DAY)))
    await rig.processor.process(C7, rig.messages(view("a", later), view("a", later + 5), first=3))
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.duplicate) == (2, 2)
    ids = [entry.id for entry in await Queries(rig.stores.reading).timeline("c-7", 10, None)]
    assert len(set(ids)) == 2
    assert "a" in ids


async def test_bad_records_become_dead_letters_with_origin_and_reason(rig: Rig) -> None:
    await rig.claim(C7)
    bad_order = Touchpoint(**base("x"), type="order_completed", channel="web", properties={"order_id": 7})
    other = view("y", customer="c-8" if partition_of("c-8") != C7 else "c-9")
    await rig.processor.process(
        C7,
        rig.messages(
            b"{", b'{"source":"shop","kind":"unheard"}', b"[" * 20_000, bad_order, other, view("good")
        ),
    )
    rows = await rig.stores.reading.dead_letters(LetterFilter(), None, 10)
    letters = [row.letter for row in rows]
    assert {letter.code for letter in letters} == {"undecodable", "wrong_type", "wrong_partition"}
    assert {letter.seq for letter in letters} == {1, 2, 3, 4, 5}
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.dead_lettered, ledger.balanced) == (1, 5, True)
    assert {line.source: line.dead_lettered for line in ledger.by_source} == {"shop": 3, "unknown": 2}


async def test_too_many_dead_letters_stop_with_nothing_stored(rig: Rig) -> None:
    await rig.claim(C7)
    with pytest.raises(TooManyDeadLetters):
        await rig.processor.process(C7, rig.messages(*[b"{"] * 1_000))
    assert (await ledger_of(rig)).dead_lettered == 0


async def test_partitions_side_by_side_are_all_watched(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    other = (C7 + 1) % PARTITIONS
    await rig.claim(C7, other)
    write = rig.stores.slices.write

    async def slow(slice_: Any) -> None:
        await asyncio.sleep(0.02)
        await write(slice_)

    monkeypatch.setattr(rig.stores.slices, "write", slow)
    messages = rig.messages(b"{", Tick(partition=C7, recorded_at=T0))
    theirs = [message._replace(partition=other) for message in messages]
    await asyncio.gather(rig.processor.process(C7, messages), rig.processor.process(other, theirs))
    assert rig.processor._watched == (4, 2)


def long_story(random: Random, length: int) -> list[CustomerEvent]:
    """Events of some customers of one partition, with late ones and repeats among them."""
    customers = [f"u-{n}" for n in range(200) if partition_of(f"u-{n}") == C7][:5]
    events: list[CustomerEvent] = []
    for n in range(length):
        at = T0 + n * 3_600_000 - random.choice([0, 0, 0, 5 * DAY])
        customer, product = random.choice(customers), f"p-{random.randrange(20)}"
        draw = random.random()
        if draw < 0.5:
            events.append(view(f"e-{random.randrange(n + 1)}", at, product, customer=customer))
        elif draw < 0.9:
            lines = [
                (f"p-{random.randrange(20)}", random.randint(1, 3), random.random() * 9) for _ in range(4)
            ]
            events.append(order(f"o-{n}", at, *lines, customer=customer))
        else:
            events.append(Tick(partition=C7, recorded_at=at))
    return events


@pytest.mark.parametrize("length", [1, 2, 7, 400])
async def test_slice_boundaries_change_no_bit(bus: MemoryBus, length: int) -> None:
    digests = []
    for size in (length, 400):
        memory = MemoryAnalyzerStore()
        rig = make_rig(Stores(memory, memory), bus, cache_bytes=0 if size == length else 10**6)
        await rig.claim(C7)
        messages = rig.messages(*long_story(Random(6), 200))
        for first in range(0, len(messages), size):
            owned = rig.processor._owned[C7]
            slice_ = await rig.processor._handler.prepare(
                owned.state, owned.cache, messages[first : first + size]
            )
            assert slice_ is not None
            await memory.write(slice_.write)
            rig.processor._remember(owned, slice_.write.state, slice_)
        digests.append((await models_digest(memory), memory.states[C7], memory.stored, memory.lessons))
        await rig.processor.release(frozenset({C7}))
    assert digests[0] == digests[1]


async def test_updates_of_hot_tables_stay_within_their_page(rig: Rig) -> None:
    """An index on what each slice changes would make every update write all indexes, and tables swell."""
    store = rig.stores.slices
    if isinstance(store, MemoryAnalyzerStore):
        pytest.skip("only PostgreSQL has pages")
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(view("v")))
    for n in range(60):
        await rig.processor.process(C7, rig.messages(view(f"v-{n}", T0 + n), first=n + 2))
    found = {}
    async with asyncio.timeout(20), store._database.connection() as connection:
        while len(found) < 3 or any(updates < 60 for updates, _ in found.values()):
            await connection.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
            rows = await connection.fetch(
                "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
                " WHERE schemaname = $1 AND relname IN ('models', 'partitions', 'fates')",
                store._schema,
            )
            found = {row[0]: (row[1], row[2]) for row in rows}
            await asyncio.sleep(0.05)
    assert all(within >= 0.9 * updates for updates, within in found.values()), found
