"""Decayed counts: right for late events, in any order, for any number."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import DAY
from libs.common.contracts.customer_model import Decayed
from libs.common.scoring.decay import MAX_WEIGHT, added, bounded, faded, joined

T0 = 1_700_000_000_000
HALF = 14 * DAY
times = st.integers(T0 - 400 * DAY, T0 + 400 * DAY)
amounts = st.floats(0, 1e6)
events = st.lists(st.tuples(times, amounts), min_size=1, max_size=12)


def count(of: list[tuple[int, float]]) -> Decayed:
    total = Decayed()
    for at, amount in of:
        total = added(total, amount, at, HALF)
    return total


def direct(of: list[tuple[int, float]], at: int) -> float:
    return sum(amount * 2.0 ** ((when - at) / HALF) for when, amount in of)


def test_count_halves_in_its_half_life() -> None:
    assert faded(Decayed(8.0, T0), T0 + 2 * HALF, HALF) == 2.0


def test_count_asked_about_the_past_does_not_grow() -> None:
    assert faded(Decayed(8.0, T0), T0 - HALF, HALF) == 8.0


def test_late_amount_is_faded_to_the_time_of_the_count() -> None:
    assert added(Decayed(1.0, T0), 1.0, T0 - HALF, HALF) == Decayed(1.5, T0)


@given(events)
def test_count_is_the_direct_sum_as_of_the_latest_event(of: list[tuple[int, float]]) -> None:
    total = count(of)
    assert total.at == max(at for at, _ in of)
    assert math.isclose(total.weight, direct(of, total.at), rel_tol=1e-9, abs_tol=1e-9)


@given(events, st.randoms())
def test_order_of_events_does_not_matter(of: list[tuple[int, float]], random: object) -> None:
    shuffled = list(of)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert math.isclose(count(of).weight, count(shuffled).weight, rel_tol=1e-9, abs_tol=1e-12)


@given(events, events)
def test_join_is_the_count_of_both(a: list[tuple[int, float]], b: list[tuple[int, float]]) -> None:
    both, other = joined(count(a), count(b), HALF), count(a + b)
    assert both.at == other.at
    assert math.isclose(both.weight, other.weight, rel_tol=1e-9, abs_tol=1e-12)
    assert joined(count(b), count(a), HALF) == both


@given(st.lists(st.tuples(times, st.floats(allow_nan=True, allow_infinity=True)), max_size=8))
def test_count_stays_finite_whatever_arrives(of: list[tuple[int, float]]) -> None:
    weight = count(of).weight
    assert math.isfinite(weight)
    assert abs(weight) <= MAX_WEIGHT


def test_bounded_keeps_ordinary_numbers_and_refuses_not_a_number() -> None:
    assert bounded(-3.5) == -3.5
    assert bounded(math.nan) == 0.0
    assert bounded(math.inf) == MAX_WEIGHT
