"""The response learner in worlds whose truth is known: it finds it, and knows how well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from services.analyzer.learner.effects import expit
from services.analyzer.learner.logit import Seen
from services.analyzer.learner.responses import ResponseLearner
from tests.benchmarks.bandits.known import coverage, plain, unwanted
from tests.unit.trial_world import HOUR, T0, WINDOW, in_order, lesson, life

X = plain()


def test_intervals_of_100_new_offers_cover_their_rates() -> None:
    """500 impressions each: the 90 % interval covers the true rate of at least 85."""
    found = coverage(seed=1)
    assert found.covered >= 85
    # And not because it knows nothing: its intervals are far narrower than offers differ.
    assert found.width < 0.6


def test_share_caused_is_recovered_where_ghosts_are_many() -> None:
    """`ghosts: 0.2`: κ within 0.1 of the truth for each kind."""
    random = np.random.default_rng(3)
    learner = ResponseLearner()
    for kind, caused in (("repeat", 0.15), ("cross_sell", 0.6), ("up_sell", 0.4)):
        for _ in range(20_000):
            ghost = bool(random.random() < 0.2)
            chance = 0.15 * (1.0 - caused if ghost else 1.0)
            facts: dict[str, Any] = {
                "offer_kind": kind,
                "ghost": ghost,
                "bought": bool(random.random() < chance),
            }
            learner.learn_one(lesson(step="look", age_from=WINDOW, age_to=WINDOW, judged=True, **facts))
        for placement in ("", "home"):
            assert learner.caused.shares()[placement][kind] == pytest.approx(caused, abs=0.1)


def test_conversions_that_take_long_do_not_make_the_estimate_smaller() -> None:
    """Most conversions come late and most trials are young: the rate is right all the same."""
    random = np.random.default_rng(4)
    chance, trials = 0.12, 3_000
    lives, early = [], 0
    end = T0 + trials * HOUR // 12
    for n in range(trials):
        shown = T0 + n * HOUR // 12
        converted = float(random.beta(3, 1.5)) if random.random() < chance else None
        lives.append(life(shown, converted=converted))
        early += converted is not None and shown + converted * WINDOW <= end
    learner = ResponseLearner()
    for one in in_order(lives):
        if one.at <= end:
            learner.learn_one(one)
    model = learner.settled()["converted_alone"]
    said = expit(model.predict_one(Seen(X, "product:a", 0)))
    assert said == pytest.approx(chance, rel=0.15)
    # What one would believe who took every trial without conversion for a failure.
    assert early / trials < 0.8 * chance


def test_an_offer_nobody_wants_fades() -> None:
    """After 1,000 impressions without any outcome it is the best of ten in under 2 % of the draws."""
    assert unwanted(seed=5) < 0.02
