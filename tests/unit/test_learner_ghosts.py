"""Ghosts: what share of conversions was caused, and with which ghosts a placement is compared."""

from __future__ import annotations

import numpy as np
import pytest

from services.analyzer.learner.caused import MOST_PLACES, START_WEIGHT, Caused, share_of
from tests.unit.response_world import learner
from tests.unit.trial_world import T0, ghost, in_order, life


def test_ghosts_move_no_weight() -> None:
    lessons = [one for n in range(5) for one in ghost(T0 + n, bought=True)]
    made = learner(in_order([iter(lessons)]))
    assert not any(head.seen for head in made.heads.values())
    assert made.caused.counts[("home", "cross_sell")].tolist() == [[0, 0], [5, 5]]


def test_only_drawn_slots_are_compared_with_ghosts() -> None:
    made = learner(
        [
            *life(T0, bought=True, propensity=1.0),
            *life(T0, bought=True, group="baseline"),
            *life(T0, bought=True),
        ]
    )
    assert made.caused.counts[("home", "cross_sell")].tolist() == [[1, 1], [0, 0]]


def test_share_caused_is_the_belief_without_ghosts_and_one_minus_the_ratio_with_many() -> None:
    nothing = np.zeros((2, 2))
    assert share_of([nothing], 0.1, START_WEIGHT) == pytest.approx(0.1, abs=0.02)
    assert share_of([nothing], 0.9, START_WEIGHT) == pytest.approx(0.9, abs=0.02)
    shown = np.array([[50_000.0, 2_000.0], [0.0, 0.0]])
    assert share_of([shown], 0.5, START_WEIGHT) == pytest.approx(0.5, abs=0.02)
    many = np.array([[50_000.0, 2_000.0], [20_000.0, 560.0]])
    assert share_of([many], 0.5, START_WEIGHT) == pytest.approx(0.3, abs=0.05)
    # Bought more often when not shown: showing causes nothing, and not less.
    worse = np.array([[50_000.0, 2_000.0], [20_000.0, 1_200.0]])
    assert 0.0 <= share_of([worse], 0.5, START_WEIGHT) < 0.05


def test_placements_are_compared_with_ghosts_of_their_own() -> None:
    """One where much is bought anyway has no ghosts; at the other showing causes half."""
    caused = Caused()
    caused.counts = {
        ("basket", "cross_sell"): np.array([[50_000.0, 20_000.0], [0.0, 0.0]]),
        ("home", "cross_sell"): np.array([[50_000.0, 2_000.0], [40_000.0, 800.0]]),
    }
    shares = caused.shares()
    assert shares[""]["cross_sell"] == pytest.approx(0.5, abs=0.05)
    assert shares["home"]["cross_sell"] == pytest.approx(0.5, abs=0.05)
    assert shares["basket"]["cross_sell"] == pytest.approx(shares[""]["cross_sell"], abs=0.02)
    caused.counts["basket", "cross_sell"] = np.array([[50_000.0, 20_000.0], [40_000.0, 8_000.0]])
    assert caused.shares()[""]["cross_sell"] == pytest.approx(0.5, abs=0.02)


def test_placements_beyond_the_first_count_nowhere() -> None:
    caused = Caused()
    for n in range(100):
        caused.learn_one(f"place {n}", "repeat", n % 2 == 0, True)
    assert len(caused.counts) == MOST_PLACES
    assert caused.shares()[""]["repeat"] == pytest.approx(0.1, abs=0.1)
