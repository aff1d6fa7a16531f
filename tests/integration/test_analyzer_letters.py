"""Ids used twice, dead letters and their replay, outcomes without a decision: on both stores."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.clock import DAY, MINUTE
from libs.common.contracts.customer_event import ConsentGiven, IdentityLinked, Outcome, Tick, Touchpoint
from libs.common.contracts.topics import DEAD_LETTERS
from services.analyzer.handlers.queries import Queries
from services.analyzer.letters import LetterPublisher
from services.analyzer.model.letters import LetterFilter
from services.analyzer.store import postgres as store
from services.analyzer.store.memory import MemoryAnalyzerStore
from tests.integration.analyzer_world import C7, SPOOL, T0, Rig, base, clicked, decision, ledger_of, view

pytestmark = pytest.mark.embedded

FEEDBACK = "feedbac4"
ALL = LetterFilter()


def said(id_: str, **more: Any) -> Touchpoint:
    properties = {"product_id": "tea", "colour": {"a": 1, "b": [1, 2]}}
    return Touchpoint(
        **{**base(id_), "type": "product_viewed", "channel": "web", "properties": properties, **more}
    )


async def letters(rig: Rig) -> list[Any]:
    return list(await rig.stores.reading.dead_letters(ALL, None, 100))


async def totals(rig: Rig) -> dict[str, int]:
    return dict((await Queries(rig.stores.reading).customer("c-7")).totals)


# --- an id used for something else


async def test_id_with_other_content_is_a_dead_letter_and_a_retry_is_not(rig: Rig) -> None:
    await rig.claim(C7)
    reordered = {"colour": {"b": [1, 2], "a": 1}, "product_id": "tea"}
    retries = [
        said("a", occurred_at=T0 + 9, recorded_at=T0 + 10),
        said("a", context={"retry": 2}, channel="app"),
        said("a", properties=reordered),
    ]
    misuses = [
        said("a", type="page_viewed"),
        said("a", properties={"product_id": "coffee"}),
        ConsentGiven(**base("a"), purpose="personalisation", granted=True),
        IdentityLinked(**base("a"), customer_id="c-7", anonymous_id="v-3"),
    ]
    await rig.processor.process(C7, rig.messages(said("a"), *retries[:2], *misuses[:2]))
    await rig.processor.process(C7, rig.messages(*retries[2:], *misuses[2:], first=6))
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.duplicate, ledger.dead_lettered, ledger.balanced) == (1, 3, 4, True)
    assert {row.letter.code for row in await letters(rig)} == {"id_reuse"}
    assert await totals(rig) == {"product_viewed": 1}


async def test_id_may_stand_for_something_else_after_thirty_days(rig: Rig) -> None:
    await rig.claim(C7)
    later = said("a", type="page_viewed", occurred_at=T0 + 31 * DAY, recorded_at=T0 + 31 * DAY)
    await rig.processor.process(C7, rig.messages(said("a"), later))
    assert (await ledger_of(rig)).applied == 2


async def test_same_id_of_another_customer_or_source_is_another_event(rig: Rig) -> None:
    """Unique per source and customer, says the contract: nobody can take another's id away."""
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(said("a"), said("a", source="app", type="page_viewed")))
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.dead_lettered) == (2, 0)


async def test_misused_ids_do_not_stop_the_platform(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(said("a"), *[said("a", type="t_1")] * 1_500))
    assert (await ledger_of(rig)).dead_lettered == 1_500


# --- dead letters


async def test_letter_as_large_as_its_key_goes_out_cut_by_one_producer(
    rig: Rig, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    produce = bus.producer
    monkeypatch.setattr(bus, "producer", lambda *of: made.append(of) or produce(*of))
    await rig.claim(C7)
    made.clear()
    publisher = LetterPublisher(bus, rig.stores.reading, rig.processor.standing, Random(1))
    for seq in (1, 2):
        (message,) = rig.messages(b"{", first=seq)
        await rig.processor.process(C7, [message._replace(key=b"k" * 1_048_000)])
        await publisher._round()
    records = bus.records(DEAD_LETTERS, C7)
    assert [(record.key, record.value) for record in records] == [(b"k" * 1_024, b"")] * 2
    assert len(made) == 1


async def test_what_is_old_goes_a_bounded_number_at_a_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, and dead letters that are on their topic, after 30 days of journal time."""
    if isinstance(rig.stores.slices, MemoryAnalyzerStore):
        pytest.skip("memory has no transactions to keep short")
    monkeypatch.setattr(store, "FORGOTTEN_AT_ONCE", 2)
    schema = rig.stores.slices._schema

    async def held() -> list[int]:
        async with rig.stores.slices._database.connection() as connection:
            tables = ("event_ids", "dead_letters")
            return [await connection.fetchval(f"SELECT count(*) FROM {schema}.{name}") for name in tables]

    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*(said(f"a-{n}") for n in range(5)), *[b"{"] * 4))
    await rig.stores.reading.mark_sent([row.id for row in await letters(rig)][1:])
    seen = []
    for n in range(4):
        late = Tick(partition=C7, recorded_at=T0 + 31 * DAY + n)
        await rig.processor.process(C7, rig.messages(late, first=10 + n))
        seen.append(await held())
    assert seen == [[3, 2], [1, 1], [0, 1], [0, 1]]


async def test_dead_letters_of_a_key_are_found_by_an_index(rig: Rig) -> None:
    if isinstance(rig.stores.slices, MemoryAnalyzerStore):
        pytest.skip("memory has no indexes")
    schema = rig.stores.slices._schema
    async with rig.stores.slices._database.bulk() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        rows = await connection.fetch(
            f"EXPLAIN SELECT 1 FROM {schema}.dead_letters WHERE partition = 1 AND md5(key) = md5('k'::bytea)"
        )
    assert any("dead_letters_key" in row[0] for row in rows)
    await rig.claim(C7)
    messages = [message._replace(key=b"c-7") for message in rig.messages(b"{", b"[")]
    await rig.processor.process(C7, [messages[0], messages[1]._replace(key=b"c-8")])
    assert [row.value for row in await rig.stores.reading.dead_letters_of(["c-7"])] == [b"{"]


async def test_page_of_dead_letters_leaves_their_content_out(rig: Rig) -> None:
    """A thousand of them may be a gigabyte."""
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(b"{"))
    (listed,) = await letters(rig)
    assert (listed.letter.code, listed.letter.key, listed.letter.value) == ("undecodable", b"", None)
    whole = await Queries(rig.stores.reading).dead_letter(listed.id)
    assert whole is not None
    assert (whole.letter.key, whole.letter.value) == (b"k", b"{")


async def test_replay_takes_few_letters_into_one_slice_and_all_of_them_in_the_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*[b"{"] * 50))
    assert await rig.stores.reading.ask_replay(ALL) == 50
    slices = []
    write = rig.stores.slices.write

    async def noted(slice_: Any) -> None:
        slices.append(len(slice_.replays))
        await write(slice_)

    monkeypatch.setattr(rig.stores.slices, "write", noted)
    rig.processor._owned[C7].look_at = 0.0
    await rig.processor.process(C7, rig.messages(Tick(partition=C7, recorded_at=T0), first=51))
    assert slices == [20, 20, 10, 0]


async def test_dead_letters_are_put_on_their_topic(rig: Rig, bus: MemoryBus) -> None:
    await rig.claim(C7)
    bad = said("x", type="order_completed", properties={"order_id": 7})
    await rig.processor.process(C7, rig.messages(said("a"), bad, b"{"))
    publisher = LetterPublisher(bus, rig.stores.reading, rig.processor.standing, Random(1))
    while await publisher._round():
        pass
    first, second = bus.records(DEAD_LETTERS, C7)
    assert (first.key, first.header("spool"), first.header("seq")) == (b"k", SPOOL.encode(), b"2")
    assert (first.header("code"), first.header("offset")) == (b"wrong_type", b"1")
    assert b"product" in (first.header("reason") or b"") or b"order_id" in (first.header("reason") or b"")
    assert (second.value, second.header("code")) == (b"{", b"undecodable")
    await publisher._round()
    assert len(bus.records(DEAD_LETTERS)) == 2


async def test_replayed_dead_letter_counts_once_and_balances(rig: Rig, monkeypatch: Any) -> None:
    await rig.claim(C7)
    with monkeypatch.context() as patch:
        # What the code of today cannot read the code of tomorrow can.
        patch.setattr("services.analyzer.model.arrival.check", _refuse)
        events = [said("a"), said("b"), said("a"), Tick(partition=C7, recorded_at=T0)]
        await rig.processor.process(C7, rig.messages(*events, b"{"))
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.dead_lettered, ledger.balanced) == (0, 5, True)
    assert await rig.stores.reading.ask_replay(LetterFilter(code="other")) == 0
    assert await rig.stores.reading.ask_replay(ALL) == 5
    await next_tick(rig, 6)
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.duplicate, ledger.dead_lettered, ledger.balanced) == (2, 1, 1, True)
    assert await totals(rig) == {"product_viewed": 2}
    (left,) = [row for row in await letters(rig) if row.replayed_at is None]
    assert (left.letter.code, left.attempts, left.asked) == ("undecodable", 1, False)
    assert await rig.stores.reading.ask_replay(ALL) == 1
    await next_tick(rig, 7)
    again = await ledger_of(rig)
    assert (again.applied, again.duplicate, again.dead_lettered) == (2, 1, 1)
    assert again.balanced


def _refuse(event: object, partition: int) -> None:
    from libs.common.errors import Invalid

    raise Invalid("wrong_type", "not yet")


async def next_tick(rig: Rig, seq: int) -> None:
    rig.processor._owned[C7].look_at = 0.0
    await rig.processor.process(C7, rig.messages(Tick(partition=C7, recorded_at=T0 + seq), first=seq))


async def test_dead_letters_are_filtered_and_paged(rig: Rig) -> None:
    await rig.claim(C7)
    bad = said("x", type="order_completed", properties={"order_id": 7})
    await rig.processor.process(C7, rig.messages(said("a"), b"{", bad, b"["))
    reading = rig.stores.reading
    assert [r.letter.seq for r in await reading.dead_letters(LetterFilter(code="undecodable"), None, 9)] == [
        4,
        2,
    ]
    assert await reading.dead_letters(LetterFilter(partition=(C7 + 1) % 12), None, 9) == []
    assert await reading.dead_letters(LetterFilter(since=T0 + 6), None, 9) == []
    first, second = await reading.dead_letters(LetterFilter(until=T0 + 6), None, 2)
    (third,) = await reading.dead_letters(ALL, second.id, 2)
    assert [row.letter.seq for row in (first, second, third)] == [4, 3, 2]


# --- outcomes


def of(word: str, made: str = "d-1", offer: str = "product:filter", **more: Any) -> Outcome:
    event = {**base(f"{made}/{offer}/{word}"), "source": "feedback", **more}
    return Outcome(**event, decision_id=made, offer_id=offer, outcome=word)


async def test_outcome_of_an_unknown_or_foreign_decision_changes_nothing(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(view("a"), decision("d-1")))
    before = await Queries(rig.stores.reading).customer("c-7")
    forged = [of("clicked", "d-9"), of("converted", "d-9"), of("clicked", offer="product:gold")]
    await rig.processor.process(C7, rig.messages(*forged, *forged[:1], spool=FEEDBACK))
    assert await Queries(rig.stores.reading).customer("c-7") == before
    ledger = await ledger_of(rig)
    assert (ledger.unmatched, ledger.applied, ledger.duplicate, ledger.balanced) == (3, 5, 1, True)
    ids = {entry.id for entry in await Queries(rig.stores.reading).timeline("c-7", 10, None)}
    assert ids == {"a", "d-1"}


@pytest.mark.parametrize("apart", [True, False])
async def test_outcome_that_overtakes_its_decision_counts(rig: Rig, apart: bool) -> None:
    await rig.claim(C7)
    early = rig.messages(clicked("d-1"), of("shown"), of("clicked", offer="product:gold"), spool=FEEDBACK)
    decided = rig.messages(view("a"), decision("d-1", T0 + 9 * MINUTE))
    if apart:
        await rig.processor.process(C7, early)
        assert (await ledger_of(rig)).unmatched == 3
        await rig.processor.process(C7, decided)
    else:
        await rig.processor.process(C7, [*early, *decided])
    assert await totals(rig) == {"product_viewed": 1, "decision_made": 1, "clicked": 1, "shown": 1}
    ledger = await ledger_of(rig)
    assert (ledger.unmatched, ledger.applied, ledger.balanced) == (1, 5, True)
    kinds = [entry.kind for entry in await Queries(rig.stores.reading).timeline("c-7", 10, None)]
    assert sorted(kinds) == ["decision", "outcome", "outcome", "touchpoint"]
    await rig.processor.process(C7, rig.messages(clicked("d-1"), of("shown"), first=4, spool=FEEDBACK))
    assert (await ledger_of(rig)).duplicate == 2


async def test_outcome_waits_ten_minutes_and_no_longer(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(clicked("d-1"), spool=FEEDBACK))
    await rig.processor.process(C7, rig.messages(decision("d-1", T0 + 11 * MINUTE)))
    assert await totals(rig) == {"decision_made": 1}
    assert (await ledger_of(rig)).unmatched == 1


async def test_outcome_of_a_decision_that_left_the_model_still_counts(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*(decision(f"d-{n}", T0 + n) for n in range(40))))
    await rig.processor.process(C7, rig.messages(clicked("d-0"), clicked("d-39"), spool=FEEDBACK))
    assert (await totals(rig))["clicked"] == 2
    assert (await ledger_of(rig)).unmatched == 0


async def test_waiting_outcomes_survive_a_new_owner(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(clicked("d-1"), spool=FEEDBACK))
    await rig.claim(C7, generation=2)
    await asyncio.sleep(0)
    await rig.processor.process(C7, rig.messages(decision("d-1", T0 + 1)))
    assert (await totals(rig))["clicked"] == 1
