"""Idle visitors in slices: no cut of the journal, no tick and no restart changes who is known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.common.clock import DAY, HOUR
from libs.common.contracts.customer_event import AboutCustomer, CustomerEvent, Touchpoint
from libs.common.contracts.customer_model import PROFILE, decode_profile, encode_model
from services.analyzer.handlers import slices
from services.analyzer.model.idle import IDLE
from services.analyzer.model.trials.record import NEVER
from services.analyzer.ports import ModelRow
from tests.unit.idle_world import X, Y, after, consent, known, linked, tick, view
from tests.unit.offer_world import T0, Shop, anew, base, decision, one_partition, order, outcome

__all__ = ["one_partition"]


def without_time(row: ModelRow) -> ModelRow:
    """As it was written before there were timers."""
    return row._replace(body=encode_model(replace(decode_profile(row.body), seen_at=0)))


async def test_very_many_are_dropped_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"anon:v{n}" for n in range(60)]
    journal: list[CustomerEvent] = [view(f"{n}", T0 + n, one) for n, one in enumerate(many)]
    journal += [view("back", T0 + 95 * DAY, many[3]), tick(T0 + 95 * DAY)]
    whole = Shop()
    await whole.take(journal)
    monkeypatch.setattr(slices, "DUE_AT_ONCE", 5)
    portions = Shop()
    await portions.take(journal[:60])
    before = portions.slices
    await portions.take(journal[60:])
    assert await portions.all() == await whole.all()
    assert portions.slices - before > 5
    for shop in (whole, portions):
        assert known(shop, many[3]) is not None
        assert sum(bool(row.body) for row in shop.store.rows.values()) == 2
        assert shop.store.states[0].notes == {"idle": 60}
        assert list(shop.store.trials.timers) == [many[3]]


@pytest.mark.parametrize("back", [0, 1])
async def test_very_many_of_one_millisecond_are_dropped_in_portions(
    monkeypatch: pytest.MonkeyPatch, back: int
) -> None:
    many = [f"anon:v{n}" for n in range(23)]
    journal: list[CustomerEvent] = [view(f"{n}", T0, one) for n, one in enumerate(many)]
    made = [decision(f"d{n}", T0 + IDLE - DAY, ["tea"], assumed_shown=1, window=DAY) for n in range(7)]
    # One who comes when journal time may have passed his timer and he has not had his turn.
    end = [view("back", T0 + IDLE + back, many[22]), tick(T0 + IDLE + 1), tick(T0 + 95 * DAY)]
    whole, portions = Shop(), Shop()
    await whole.take([*journal, *made, *end])
    monkeypatch.setattr(slices, "DUE_AT_ONCE", 5)
    await portions.take([*journal, *made])
    sizes = []
    write = portions.store.write

    async def note(slice_: Any) -> None:
        await write(slice_)
        sizes.append(sum(row.part == PROFILE and not row.body for row in slice_.models))
        assert portions.store.states[0] != slice_.before

    portions.store.write = note  # type: ignore[method-assign]
    await portions.take(end)
    (lessons, digest), (others, other) = await whole.all(), await portions.all()
    assert (taught(lessons), digest) == (taught(others), other)
    assert max(sizes) == 5
    assert sum(sizes) == 22
    assert whole.store.states[0].notes == portions.store.states[0].notes == {"idle": 22 + back}
    assert list(portions.store.trials.timers) == [many[22]]


async def test_visitors_of_a_time_without_timers_are_dropped_by_the_timer_alone() -> None:
    shop = await after(view("1", T0))
    shop.store.rows[X, PROFILE] = without_time(shop.store.rows[X, PROFILE])
    shop.restart()
    await shop.take([tick(T0 + 90 * DAY)])
    assert known(shop) is not None
    await shop.take([tick(T0 + 90 * DAY + 1)])
    assert known(shop) is None


async def test_who_has_no_time_noted_is_not_dropped_before_his_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = await after(view("1", T0), view("2", T0 + DAY, Y), view("3", T0 + 2 * DAY, "anon:z"))
    shop.store.rows[Y, PROFILE] = without_time(shop.store.rows[Y, PROFILE])
    shop.restart()
    monkeypatch.setattr(slices, "DUE_AT_ONCE", 2)
    journal = [tick(T0 + IDLE + n) for n in (1, 1 + DAY // 2, DAY, DAY + 1)]
    end = tick(T0 + IDLE + 9 * DAY)
    there = []
    write = shop.store.write

    async def note(slice_: Any) -> None:
        await write(slice_)
        there.append((slice_.state.journal_time - T0 - IDLE, known(shop, Y) is not None))

    shop.store.write = note  # type: ignore[method-assign]
    await shop.take([*journal[:2], end])
    assert [(at > DAY, here) for at, here in there] == [(False, True), (True, False)]


@pytest.mark.parametrize("cuts", [(2,), (1, 2)])
async def test_who_has_no_time_noted_comes_back_anew_however_slices_are_cut(cuts: Sequence[int]) -> None:
    shop = await after(view("1", T0))
    shop.store.rows[X, PROFILE] = without_time(shop.store.rows[X, PROFILE])
    shop.restart()
    journal, taken = [tick(T0 + IDLE + 1), view("2", T0 + IDLE + 2)], 0
    for cut in cuts:
        await shop.take(journal[taken:cut])
        taken = cut
    profile = known(shop)
    assert profile is not None
    assert profile.totals == {"product_viewed": 1}


@st.composite
def journals(draw: st.DrawFn) -> list[AboutCustomer]:
    """Visitors who look, answer, buy, refuse, log in and out, with pauses of up to half a year."""
    at, events, made = T0, [], {X: "d", Y: "d", "c": "d"}
    for n in range(draw(st.integers(1, 18))):
        at += draw(st.sampled_from([0, 1, HOUR, 20 * DAY, 45 * DAY, IDLE, IDLE + 1, 100 * DAY]))
        customer = draw(st.sampled_from([X, X, Y, "c"]))
        kinds = ["view", "page", "order", "word", "owner", "echo", "decision", "answer", "answer"]
        what = draw(st.sampled_from(kinds))
        if what == "view":
            events.append(view(f"{n}", at, customer, occurred_at=at - draw(st.sampled_from([0, 200 * DAY]))))
        elif what == "word":
            events.append(consent(f"{n}", at, draw(st.booleans()), customer))
        elif what == "owner" and customer != "c":
            owner, back = draw(st.sampled_from(["c", "d"])), draw(st.booleans())
            events.append(linked(f"{n}", at, owner, customer, unlinked=back))
        elif what == "decision":
            window = draw(st.sampled_from([DAY, 150 * DAY]))
            made[customer] = f"{n}"
            events.append(decision(f"{n}", at, ["tea"], assumed_shown=1, window=window, customer=customer))
        elif what == "answer":
            word = draw(st.sampled_from(["shown", "clicked", "dismissed"]))
            # Another id each time: what is said twice is a duplicate only for a while.
            said = outcome(made[customer], "tea", word, at, customer=customer)
            events.append(replace(said, id=f"{n}"))
        elif what in ("order", "echo"):
            echo = what == "echo"
            events.append(order(f"{n}", at, "tea", customer=customer, echo=echo, internal=echo))
        else:
            seen = {"type": "page_viewed", "channel": "web", "properties": {}}
            events.append(Touchpoint(**base(f"{n}", at, customer), **seen))
    return events


def named(shop: Shop) -> Sequence[str]:
    return sorted({event.customer for event in shop.store.stored})


def taught(rows: Sequence[Any]) -> list[Any]:
    """Lessons in their order; a withdrawal takes a number of its own, and where depends on the cut."""
    return [(row.second, row.kind, row.part, row.body) for row in rows]


@settings(max_examples=250, deadline=None)
@given(journals(), st.data())
def test_no_cut_no_tick_and_no_restart_changes_a_bit(
    journal: list[AboutCustomer], data: st.DataObject
) -> None:
    end = tick(journal[-1].recorded_at + data.draw(st.sampled_from([1, IDLE, IDLE + 1, 200 * DAY])))

    async def run() -> None:
        whole, cut = Shop(), Shop()
        await whole.take([*journal, end])
        rest: list[CustomerEvent] = [*journal, end]
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            part, rest = rest[:size], rest[size:]
            if rest and data.draw(st.booleans()):
                since, until = part[-1].recorded_at, rest[0].recorded_at
                part.append(tick(data.draw(st.one_of(st.just(until), st.integers(since, until)))))
            await cut.take(part)
            if data.draw(st.booleans()):
                cut.restart()
        (lessons, digest), (others, other) = await whole.all(), await cut.all()
        assert (taught(lessons), digest) == (taught(others), other)
        assert anew(whole.store, end.recorded_at, named(whole)) == (lessons, digest)
        assert [event.id for event in whole.store.stored] == [event.id for event in cut.store.stored]
        assert whole.store.states[0].notes == cut.store.states[0].notes
        for shop in (whole, cut):
            for (key, part_), row in shop.store.rows.items():
                timer = shop.store.trials.timers.get(key)
                if part_ == PROFILE and row.body and key in (X, Y):
                    assert timer is not None
                    assert end.recorded_at <= timer.due < NEVER
                elif part_ == PROFILE and not row.body:
                    assert timer is None

    asyncio.run(run())
