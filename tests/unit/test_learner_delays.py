"""Delays between a showing and what comes of it: of all trials, young and old."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace

from services.analyzer.learner.delays import AGES, START, Delays
from services.analyzer.learner.responses import ResponseLearner, ResponseParameters
from tests.unit.response_world import world
from tests.unit.trial_world import DAY


def test_delays_are_those_of_all_trials_though_most_are_young() -> None:
    """The share seen by an age, from trials most of which are younger than that."""
    random = np.random.default_rng(6)
    true = np.array([0.1, 0.2, 0.5, 1.0])
    delays = Delays()
    for _ in range(12_000):
        old = float(random.choice([1 / 64, 1 / 16, 1 / 4, 1.0], p=[0.4, 0.3, 0.2, 0.1]))
        converts = random.random() < 0.1
        age = float(AGES[int(np.searchsorted(true, random.random()))]) if converts else math.inf
        since = 0.0
        for look in AGES:
            if look > old:
                break
            if age <= look:
                delays.event("home", age)
                break
            delays.passed("home", since, look)
            since = look
    assert delays.shares("home") == pytest.approx(true, abs=0.06)
    assert delays.shares("unheard of") == delays.shares("")
    ages = np.linspace(0, 1.2, 200)
    seen = [delays.seen("home", float(age)) for age in ages]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)


def test_delays_begin_with_a_belief_and_go_back_to_it_as_data_grow_old() -> None:
    assert Delays().shares("home") == pytest.approx(START, abs=0.02)
    delays = Delays()
    for _ in range(400):
        delays.passed("home", 0.0, 0.25)
        delays.event("home", 0.9)
        for _ in range(20):
            delays.passed("home", 0.0, 1.0)
    assert delays.shares("home")[2] < 0.2
    kept = [delays.shares("home")]
    for _ in range(12):
        delays.fade(0.5)
        kept.append(delays.shares("home"))
    assert kept == sorted(kept)
    assert delays.shares("home") == pytest.approx(START, abs=0.05)


@pytest.mark.parametrize("half_life_days", [0.0, 30.0])
def test_what_waits_is_learned_by_the_end_of_the_day_whether_data_grow_old_or_not(
    half_life_days: float,
) -> None:
    learner = ResponseLearner(ResponseParameters(half_life_days=half_life_days))
    for one in world(200):
        learner.learn_one(one)
    day = learner.day + 1
    assert any(learner.waiting.values())
    # A ghost teaches no head, and yet it is a new day.
    learner.learn_one(replace(next(one for one in world(200) if one.ghost), at=day * DAY, judged=True))
    assert not any(learner.waiting.values())
