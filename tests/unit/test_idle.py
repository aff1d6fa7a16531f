"""Visitors of whom nobody hears for 90 days: who is dropped, when, and who stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from libs.common.clock import DAY
from libs.common.contracts.customer_event import CustomerEvent, Outcome, Touchpoint
from libs.common.contracts.customer_model import ITEMS, PROFILE
from services.analyzer.errors import UnknownCustomer
from services.analyzer.handlers.queries import Queries
from services.analyzer.model.idle import IDLE
from tests.unit.idle_world import X, after, consent, known, linked, tick, view
from tests.unit.offer_world import T0, Shop, anew, base, decision, one_partition, order, outcome

__all__ = ["one_partition"]


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
