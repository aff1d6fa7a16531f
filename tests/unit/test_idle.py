"""Visitors of whom nobody hears for 90 days: who is dropped, when, and that no cut of it matters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.common.clock import DAY, HOUR
from libs.common.contracts.customer_event import (
    AboutCustomer,
    ConsentGiven,
    CustomerEvent,
    IdentityLinked,
    Outcome,
    Tick,
    Touchpoint,
)
from libs.common.contracts.customer_model import ITEMS, PROFILE, Profile, decode_profile, encode_model
from services.analyzer.errors import UnknownCustomer
from services.analyzer.handlers import slices
from services.analyzer.handlers.queries import Queries
from services.analyzer.model.idle import IDLE
from services.analyzer.model.trials.record import NEVER
from services.analyzer.ports import ModelRow
from tests.unit.test_trials import T0, Shop, anew, base, decision, one_partition, order, outcome

__all__ = ["one_partition"]

X, Y = "anon:x", "anon:y"


def view(id_: str, at: int, customer: str = X, **more: Any) -> Touchpoint:
    return Touchpoint(
        **base(id_, at, customer, **more),
        type="product_viewed",
        channel="web",
        properties={"product_id": "tea"},
    )


def linked(id_: str, at: int, owner: str, customer: str = X, *, unlinked: bool = False) -> IdentityLinked:
    who = {"customer_id": owner, "anonymous_id": customer.removeprefix("anon:")}
    return IdentityLinked(**base(id_, at, customer), internal=True, unlinked=unlinked, **who)


def consent(id_: str, at: int, granted: bool, customer: str = X) -> ConsentGiven:
    return ConsentGiven(**base(id_, at, customer), purpose="marketing", granted=granted)


def tick(at: int) -> Tick:
    return Tick(partition=0, recorded_at=at)


async def after(*events: CustomerEvent) -> Shop:
    """Each event in a slice of its own."""
    shop = Shop()
    for event in events:
        await shop.take([event])
    return shop


def known(shop: Shop, customer: str = X) -> Profile | None:
    row = shop.store.rows.get((customer, PROFILE))
    return decode_profile(row.body) if row is not None and row.body else None


def without_time(row: ModelRow) -> ModelRow:
    """As it was written before there were timers."""
    return row._replace(body=encode_model(replace(decode_profile(row.body), seen_at=0)))


async def test_a_visitor_is_dropped_after_ninety_days_and_not_before() -> None:
    shop = await after(view("1", T0), tick(T0 + 90 * DAY))
    assert known(shop) is not None
    published = shop.store.states[0].number
    await shop.take([tick(T0 + 90 * DAY + 1)])
    rows = {part: shop.store.rows[X, part] for part in (PROFILE, ITEMS)}
    assert [row.body for row in rows.values()] == [b"", b""]
    # Above all that may be published: who reads only what is new finds it, after a crash too.
    assert {row.revision for row in rows.values()} == {published + 1}
    assert shop.store.states[0].number == published + 1
    assert await shop.store.unpublished(0, published, ("", ""), 9) == sorted(rows.values())
    assert shop.store.trials.timers == {}
    assert shop.store.states[0].notes == {"idle": 1}
    assert [event.id for event in shop.store.stored] == ["1"]


async def test_when_he_was_heard_of_is_no_part_of_what_was_frozen() -> None:
    shop = await after(view("1", T0), linked("2", T0 + 1, "a"), linked("3", T0 + 2, "b"))
    part, visitor = known(shop, f"{X}~1"), known(shop)
    assert part is not None
    assert visitor is not None
    assert (part.owner, part.seen_at, visitor.seen_at) == ("a", 0, T0 + 2)


async def test_of_whom_nothing_is_left_a_timer_drops_nothing() -> None:
    shop = await after(view("1", T0))
    shop.store.rows.clear()
    shop.restart()
    await shop.take([tick(T0 + 90 * DAY + 1)])
    assert shop.store.rows == {}
    assert shop.store.trials.timers == {}
    assert shop.store.states[0].notes == {}
    assert shop.store.states[0].number == 1


async def test_customers_stay_however_long_they_are_silent() -> None:
    shop = await after(order("o", T0, "tea", customer="c"), tick(T0 + 2_000 * DAY))
    assert known(shop, "c") is not None
    assert shop.store.trials.timers == {}


async def test_it_is_the_journals_time_that_counts_and_not_when_it_happened() -> None:
    late = view("2", T0 + 80 * DAY, occurred_at=T0 - 300 * DAY)
    shop = await after(view("1", T0), late, tick(T0 + 91 * DAY))
    profile = known(shop)
    assert profile is not None
    assert profile.totals == {"product_viewed": 2}
    await shop.take([tick(T0 + 170 * DAY + 1)])
    assert known(shop) is None


async def test_who_belongs_to_a_customer_stays_until_the_link_is_taken_back() -> None:
    shop = await after(view("1", T0), linked("l", T0 + 1, "c"), tick(T0 + 300 * DAY))
    profile = known(shop)
    assert profile is not None
    assert profile.totals["product_viewed"] == 1
    await shop.take([linked("u", T0 + 310 * DAY, "c", unlinked=True)])
    await shop.take([tick(T0 + 400 * DAY)])
    assert known(shop) is not None
    await shop.take([tick(T0 + 400 * DAY + 1)])
    assert known(shop) is None


async def test_what_a_shared_visitor_did_for_his_owners_stays() -> None:
    shop = await after(view("1", T0), linked("a", T0 + 1, "c"), linked("b", T0 + 2, "d"))
    await shop.take([linked("u", T0 + 3, "d", unlinked=True)])
    await shop.take([tick(T0 + 300 * DAY)])
    assert known(shop) is not None
    part = known(shop, f"{X}~1")
    assert part is not None
    assert part.totals["product_viewed"] == 1


@pytest.mark.parametrize("how", ["word", "objection"])
async def test_who_refused_something_stays_until_he_takes_it_back(how: str) -> None:
    word: CustomerEvent = consent("w", T0 + 1, False)
    if how == "objection":
        said = {"decision_id": "d", "offer_id": "product:a", "outcome": "unsubscribed", "channel": "email"}
        word = Outcome(**base("w", T0 + 1, X), **said)
    shop = await after(view("1", T0), word, tick(T0 + 300 * DAY))
    profile = known(shop)
    assert profile is not None
    assert not any(kept.granted for kept in profile.consents.values())
    if how == "word":
        await shop.take([consent("y", T0 + 310 * DAY, True)])
        await shop.take([tick(T0 + 400 * DAY + 1)])
        assert known(shop) is None


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_who_comes_back_begins_anew_above_the_withdrawal(cut: int) -> None:
    journal = [
        order("o", T0, "tea", customer=X),
        tick(T0 + 95 * DAY),
        Touchpoint(**base("2", T0 + 100 * DAY, X), type="page_viewed", channel="web", properties={}),
    ]
    shop = Shop()
    await shop.take(journal[:cut])
    await shop.take(journal[cut:])
    profile = known(shop)
    assert profile is not None
    assert profile.totals == {"page_viewed": 1}
    assert profile.seen_at == T0 + 100 * DAY
    rows = shop.store.rows
    assert rows[X, ITEMS].body == b""
    assert rows[X, PROFILE].revision >= rows[X, ITEMS].revision > 1
    assert shop.store.states[0].notes == {"idle": 1}
    assert shop.store.trials.timers[X].due == T0 + 100 * DAY + IDLE
    assert anew(shop.store, T0 + 100 * DAY, (X,)) == await shop.all()


@pytest.mark.parametrize("cuts", [(4,), (1, 4), (1, 2, 4), (2, 4)])
async def test_what_a_dropped_visitor_was_shown_is_not_known_any_more(cuts: Sequence[int]) -> None:
    journal = [
        decision("d", T0, ["tea"], assumed_shown=1, customer=X),
        tick(T0 + 95 * DAY),
        outcome("d", "tea", "clicked", T0 + 100 * DAY, customer=X),
        tick(T0 + 100 * DAY + 5),
    ]
    shop, taken = Shop(), 0
    for cut in cuts:
        await shop.take(journal[taken:cut])
        taken = cut
    assert [event.id for event in shop.store.stored] == ["d"]
    assert known(shop) is None
    notes = shop.store.states[0].notes
    assert (notes["unmatched"], notes["idle"]) == (1, 1)


async def test_what_machines_do_wakes_nobody() -> None:
    robot = Touchpoint(
        **base("2", T0 + 100 * DAY, X),
        type="page_viewed",
        channel="web",
        learn=False,
        flags=("automatic:bot",),
    )
    shop = await after(view("1", T0), robot)
    assert known(shop) is None
    assert shop.store.trials.timers == {}


async def test_a_timer_is_set_anew_only_when_it_fires() -> None:
    shop, looked = Shop(), []
    ask = shop.store.due

    async def due(*args: Any) -> Any:
        looked.append(args[1])
        return await ask(*args)

    shop.store.due = due  # type: ignore[method-assign]
    for day in range(0, 200, 2):
        await shop.take([view(f"{day}", T0 + day * DAY)])
        assert len(shop.store.trials.timers) == 1
    # With the claim, and when it fires: what he does meanwhile touches no timer.
    assert looked == [T0, T0 + 92 * DAY, T0 + 184 * DAY]


async def test_trials_of_a_dropped_visitor_go_on_and_he_is_unknown_all_the_same() -> None:
    made = decision("d", T0, ["a"], assumed_shown=1, customer=X, window=200 * DAY)
    shop = await after(made, tick(T0 + 100 * DAY))
    assert known(shop) is None
    assert shop.store.trials.rows
    queries = Queries(shop.store)
    with pytest.raises(UnknownCustomer):
        await queries.customer(X)
    assert [entry.id for entry in await queries.timeline(X, 9, None)] == ["d"]
    await queries.export(X)
    await shop.take([tick(T0 + 300 * DAY)])
    assert not shop.store.trials.rows


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


# --- any journal, any cut


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
