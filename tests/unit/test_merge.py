"""Merging models of linked keys: exact counts, strictest consent, caps."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import DAY
from libs.common.contracts.customer_model import (
    MAX_ITEMS,
    MAX_RECENT,
    Activity,
    Consent,
    Decayed,
    Item,
    Items,
    MadeDecision,
    Profile,
    Purchases,
    RecentTouch,
    encode_model,
)
from libs.common.scoring.merge import keep_recent, merge_items, merge_profiles

T0 = 1_700_000_000_000


def profile(customer: str, at: int, **changes: object) -> Profile:
    return Profile(customer=customer, first_at=at, last_at=at, totals={"seen": 1}, **changes)  # type: ignore[arg-type]


def item(times: list[int]) -> Item:
    """An item as a fold over purchases at ``times`` leaves it."""
    times = sorted(times)
    cycle = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    return Item(
        orders=len(times),
        bought=Decayed(float(len(times)), T0),
        last_bought_at=times[-1],
        cycle=cycle,
        quantity=2.0,
        price=1.5,
    )


def test_one_profile_is_itself() -> None:
    only = profile("c", T0)
    assert merge_profiles([only]) is only
    items = Items(customer="c")
    assert merge_items([items]) is items


def test_counts_of_profiles_add_up() -> None:
    day = Activity(2, T0, Decayed(1.0, T0), Decayed(2.0, T0), Decayed(2.0, T0))
    a = profile("c", T0, activity={"web/seen": day}, purchases=Purchases(2, 30.0, T0 - DAY, T0))
    b = profile(
        "anon:x", T0 + DAY, activity={"web/seen": day}, purchases=Purchases(1, 5.0, T0 + DAY, T0 + DAY)
    )
    merged = merge_profiles([a, b])
    assert merged.customer == "c"
    assert (merged.first_at, merged.last_at, merged.totals) == (T0, T0 + DAY, {"seen": 2})
    assert merged.activity["web/seen"].total == 4
    assert merged.activity["web/seen"].day.weight == 2.0
    purchases = merged.purchases
    assert (purchases.orders, purchases.value) == (3, 35.0)
    assert (purchases.first_at, purchases.last_at) == (T0 - DAY, T0 + DAY)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_refusal_in_any_part_wins_over_later_consent(order: tuple[int, ...]) -> None:
    parts = [
        profile("c", T0, consents={"personal": Consent(True, T0 + 9)}),
        profile("anon:x", T0, consents={"personal": Consent(False, T0)}),
        profile(
            "anon:y", T0, consents={"personal": Consent(True, T0 + 99), "personal/email": Consent(True, 1)}
        ),
    ]
    merged = merge_profiles([parts[at] for at in order])
    assert merged.consents == {"personal": Consent(False, T0), "personal/email": Consent(True, 1)}


def test_order_of_the_other_parts_does_not_matter() -> None:
    parts = [
        profile(
            f"anon:{n}",
            T0 + n,
            hours=tuple(Decayed(0.1 * n + 0.01 * hour, T0 + n) for hour in range(24)),
            satisfaction=(Decayed(0.3 * n, T0), Decayed(1.0, T0)),
            recent=tuple(RecentTouch(T0 + n + k * 7, "seen", "web") for k in range(15)),
            decisions=(MadeDecision(f"d{n}", T0 + n, "home", ("o",)),),
        )
        for n in range(4)
    ]
    first, *others = parts
    digests = {encode_model(merge_profiles([first, *order])) for order in itertools.permutations(others)}
    assert len(digests) == 1
    merged = merge_profiles(parts)
    assert len(merged.recent) == MAX_RECENT
    assert list(merged.recent) == sorted(merged.recent, key=lambda touch: touch.at)
    assert [decision.decision_id for decision in merged.decisions] == ["d0", "d1", "d2", "d3"]


@given(
    st.lists(st.integers(T0, T0 + 300 * DAY), min_size=1, max_size=6, unique=True),
    st.lists(st.integers(T0, T0 + 300 * DAY), min_size=1, max_size=6, unique=True),
)
def test_cycle_of_a_merged_item_is_that_of_all_purchases(a: list[int], b: list[int]) -> None:
    merged = merge_items(
        [Items(customer="c", items={"p": item(a)}), Items(customer="x", items={"p": item(b)})]
    )
    times = sorted(a + b)
    assert merged.items["p"].orders == len(times)
    assert merged.items["p"].last_bought_at == times[-1]
    assert merged.items["p"].cycle == pytest.approx((times[-1] - times[0]) / (len(times) - 1))


def test_item_only_seen_in_one_part_keeps_what_the_other_bought() -> None:
    seen = Item(viewed=Decayed(3.0, T0), last_viewed_at=T0)
    merged = merge_items(
        [Items(customer="c", items={"p": item([T0])}), Items(customer="x", items={"p": seen})]
    )
    p = merged.items["p"]
    assert (p.orders, p.quantity, p.price, p.cycle) == (1, 2.0, 1.5, 0.0)
    assert (p.viewed.weight, p.last_viewed_at) == (3.0, T0)


def test_least_recent_items_leave_beyond_the_cap() -> None:
    items = {f"p{n}": Item(orders=1, last_bought_at=T0 + n) for n in range(MAX_ITEMS + 5)}
    kept = keep_recent(items)
    assert len(kept) == MAX_ITEMS
    assert "p4" not in kept
    assert "p5" in kept
