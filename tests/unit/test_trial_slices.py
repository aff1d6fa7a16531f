"""Trials in slices: no cut of the journal, no tick and no restart changes what they teach."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.common.clock import DAY, HOUR, MINUTE
from libs.common.contracts.customer_event import AboutCustomer, CustomerEvent, Tick
from services.analyzer.handlers import slices
from services.analyzer.model.lessons import decode_lesson
from services.analyzer.model.trials.record import encode_record, kept_of
from tests.unit.offer_world import (
    CUSTOMERS,
    T0,
    WEEK,
    Shop,
    analytics,
    anew,
    decision,
    one_partition,
    order,
    outcome,
)

__all__ = ["one_partition"]

PRODUCTS = ("a", "b", "g")


@st.composite
def journals(draw: st.DrawFn) -> list[AboutCustomer]:
    """A journal of two customers, with steps of time of all sizes; some events are late."""
    at, events, made = T0, [], []
    for n in range(draw(st.integers(1, 22))):
        at += draw(st.sampled_from([0, 0, 1, MINUTE, HOUR, WEEK // 16, 2 * DAY, 9 * DAY]))
        customer, product = draw(st.sampled_from(CUSTOMERS)), draw(st.sampled_from(PRODUCTS))
        kinds = ["decision", "decision", "outcome", "outcome", "outcome", "order", "back", "word"]
        what = draw(st.sampled_from(kinds))
        if what == "decision" or (what == "outcome" and not made):
            products = draw(st.permutations(PRODUCTS))[: draw(st.integers(1, 2))]
            ghosts = [("g", 1)] if "g" not in products and draw(st.booleans()) else []
            seen, window = draw(st.integers(0, 2)), draw(st.sampled_from([WEEK, 90, 2 * DAY]))
            one = decision(
                f"d{n}", at, products, ghosts, assumed_shown=seen, window=window, customer=customer
            )
            made.append(one)
            events.append(one)
        elif what == "outcome":
            one = draw(st.sampled_from(made))
            word = draw(st.sampled_from(["shown", "shown", "clicked", "declined", "converted", "returned"]))
            said = outcome(one.id, product, word, at, customer=one.customer)
            events.append(replace(said, id=f"{said.id}/{n}", order_id=draw(st.sampled_from([None, "o1"]))))
        elif what == "word":
            events.append(analytics(f"w{n}", at, draw(st.booleans()), customer))
        else:
            kind = "order_completed" if what == "order" else "order_returned"
            bought = order(f"o{draw(st.integers(0, 2))}", at, product, kind=kind, customer=customer)
            echo = draw(st.booleans())
            late = at - draw(st.sampled_from([0, 0, DAY]))
            events.append(replace(bought, id=f"{n}", echo=echo, internal=echo, occurred_at=late))
    return events


@settings(max_examples=120, deadline=None)
@given(journals(), st.data())
def test_no_cut_no_tick_and_no_restart_changes_a_bit(
    journal: list[AboutCustomer], data: st.DataObject
) -> None:
    end = Tick(partition=0, recorded_at=journal[-1].recorded_at + data.draw(st.sampled_from([1, 90 * DAY])))

    async def run() -> None:
        whole = Shop()
        await whole.take([*journal, end])
        cut = Shop()
        rest: list[CustomerEvent] = [*journal, end]
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            part, rest = rest[:size], rest[size:]
            at = part[-1].recorded_at
            if rest and data.draw(st.booleans()):
                at = data.draw(st.integers(at, rest[0].recorded_at))
                part.append(Tick(partition=0, recorded_at=at))
            await cut.take(part)
            if data.draw(st.booleans()):
                cut.restart()
        assert await cut.all() == await whole.all()
        assert anew(whole.store, end.recorded_at) == await whole.all()
        for row in whole.store.trials.rows.values():
            kept = kept_of(row.number, row.body)
            assert (kept.due, encode_record(kept.record)) == (row.due, row.body)
            assert kept.due >= end.recorded_at

    asyncio.run(run())


@pytest.mark.parametrize("words", [(False,), (False, True)])
async def test_looks_are_taught_by_what_was_said_when_they_fell_due(words: tuple[bool, ...]) -> None:
    journal: list[CustomerEvent] = [decision("d", T0, ["a"], assumed_shown=1)]
    # Half of the looks fall due before the first word, the judging one between it and the second.
    for n, granted in enumerate(words):
        journal.append(analytics(f"w{n}", T0 + WEEK // 8 + n * 20 * DAY, granted))
    journal.append(Tick(partition=0, recorded_at=T0 + 100 * DAY))
    whole, alone = Shop(), Shop()
    await whole.take(journal)
    for event in journal:
        await alone.take([event])
    rows, _ = await whole.all()
    assert [decode_lesson(row.body).step for row in rows] == ["shown", "look", "look"]
    assert await alone.all() == await whole.all()
    assert anew(whole.store, T0 + 100 * DAY) == await whole.all()


async def test_looks_of_who_never_comes_back_come_with_ticks_and_a_quiet_store_is_not_asked() -> None:
    shop, asked = Shop(), []
    ask = shop.store.due

    async def due(*args: Any) -> Any:
        asked.append(args)
        return await ask(*args)

    shop.store.due = due  # type: ignore[method-assign]
    await shop.take([decision("d", T0, ["a"], assumed_shown=1)])
    for minute in range(1, 200):
        await shop.take([Tick(partition=0, recorded_at=T0 + minute * MINUTE)])
    rows, _ = await shop.all()
    assert [decode_lesson(row.body).at for row in rows] == [T0, T0 + WEEK // 64]
    assert rows[1].second == (T0 + WEEK // 64) // 1000
    # The first slice asks, as every claim does, and the one that passes the look.
    assert len(asked) == 2


async def test_very_much_that_falls_due_at_once_comes_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    journal: list[CustomerEvent] = [
        decision(f"d{n}", T0 + n, ["a"], assumed_shown=1, customer=f"u{n % 40}") for n in range(120)
    ]
    journal += [order("o", T0 + 2 * HOUR, "a", customer="u3"), Tick(partition=0, recorded_at=T0 + 99 * DAY)]
    whole = Shop()
    await whole.take(journal)
    monkeypatch.setattr(slices, "DUE_AT_ONCE", 7)
    portions = Shop()
    await portions.take(journal[:50])
    await portions.take(journal[50:])
    assert await portions.all() == await whole.all()
    assert portions.slices > 20 * whole.slices
    assert portions.store.states[0].number == whole.store.states[0].number == 121
