"""The bandits' benchmark measures what it says: river's own pulls, true chances, stated propensities."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.bandits.__main__ import play
from tests.benchmarks.bandits.offers import Offers
from tests.benchmarks.bandits.ours import Ours
from tests.benchmarks.bandits.rivals import LinUCB, Uniform


def test_linucb_side_by_side_pulls_what_rivers_pulls() -> None:
    offers = Offers.make(6, 0.3, 1)
    ours = LinUCB(offers)
    visitors, luck = offers.visitors(80), offers.luck(80)
    for customer, lucky in zip(visitors.tolist(), luck.tolist(), strict=True):
        offer, _ = ours.choose(0, customer)
        context = ours.context(customer)
        bounds = {}
        for arm in range(len(offers)):
            told = ours._policy._bayes_lin_regs[arm].predict_one(context, with_dist=True)
            bounds[arm] = told.mu + told.sigma
        assert bounds[offer] == pytest.approx(max(bounds.values()))
        ours.learn_one(customer, offer, np.nan, lucky < offers.chance[customer, offer])


def test_rates_are_as_asked_and_the_best_gains_all() -> None:
    offers = Offers.make(50, 0.1, 0)
    assert offers.chance.mean() == pytest.approx(0.1, abs=1e-6)

    class Oracle(Uniform):
        def choose(self, round_: int, customer: int) -> tuple[int, float]:
            return int(offers.chance[customer].argmax()), 1.0

    assert play(offers, Oracle(offers), 50).gain == pytest.approx(1.0)
    assert abs(play(offers, Uniform(offers), 2_000).gain) < 0.05


def test_our_propensities_are_of_a_distribution_and_trials_are_learned() -> None:
    offers = Offers.make(20, 0.3, 2)
    ours = Ours(offers)
    run = play(offers, ours, 60)
    assert len(run.weights) == 60
    assert all(0.0 < weight <= 1.0 / (0.02 / 20 * 20) for weight in run.weights)
    assert ours.learner.learned >= 60
    assert not ours.learner.refused
