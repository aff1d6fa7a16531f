"""The posterior of choices: weights of simulated choices found, bounded, forgotten towards the prior."""

from __future__ import annotations

import numpy as np
import pytest

from libs.common.scoring.choice import FEATURES, START
from services.analyzer.learner.multinomial import MOST_WEIGHT, ConditionalLogit


def logit(size: int, memory: float = 1e9, doubt: float = 10.0) -> ConditionalLogit:
    return ConditionalLogit(np.zeros(size), np.ones(size), doubt, memory)


def test_weights_of_simulated_choices_are_found() -> None:
    random = np.random.default_rng(4)
    true = np.array([1.0, -0.5, 0.25, 0.0])
    # Features that go together need the whole precision matrix: their weights are told apart only by it.
    mix = np.array([[1.0, 0.9, 0, 0], [0, 0.5, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 0.2]])
    model = logit(4)
    for _ in range(6_000):
        x = random.normal(size=(10, 4)) @ mix
        chance = np.exp(x @ true)
        chosen = np.zeros(10, dtype=bool)
        chosen[random.choice(10, p=chance / chance.sum())] = True
        assert model.learn_one(x, chosen)
    error = model.mean - true
    precision = model.information + np.diag(model.variance) / 100
    # Squared error in units of its own precision is χ² with four degrees of freedom.
    assert error @ precision @ error < 18.5
    assert np.sqrt(np.diag(np.linalg.inv(precision))).max() < 0.15


def test_set_of_which_none_or_all_were_taken_teaches_nothing() -> None:
    model = logit(2)
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert not model.learn_one(x, np.array([False, False]))
    assert not model.learn_one(x, np.array([True, True]))
    assert (model.samples, model.mean.tolist(), model.information.any()) == (0, [0.0, 0.0], False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e308])
def test_number_that_is_none_teaches_nothing(bad: float) -> None:
    model = logit(2)
    assert not model.learn_one(np.array([[bad, 0.0], [0.0, 1.0]]), np.array([True, False]))
    assert (model.samples, model.mean.tolist()) == (0, [0.0, 0.0])


def test_no_weight_grows_without_bound_on_what_always_holds() -> None:
    model = logit(1, doubt=1e9)
    for _ in range(3_000):
        assert model.learn_one(np.array([[1e6], [0.0]]), np.array([True, False]))
    assert np.isfinite(model.mean).all()
    assert abs(model.mean[0]) <= MOST_WEIGHT


def test_feature_that_is_silent_keeps_its_prior_and_its_scale() -> None:
    model = ConditionalLogit(np.array([0.5, 2.0]), np.array([1.0, 0.7]), 1.0, 500.0)
    random = np.random.default_rng(1)
    for _ in range(2_000):
        x = np.column_stack([random.normal(size=5), np.zeros(5)])
        model.learn_one(x, np.eye(5, dtype=bool)[random.integers(5)])
    assert model.mean[1] == pytest.approx(2.0)
    assert model.variance[1] == pytest.approx(0.49)
    assert abs(model.mean[0]) < 0.2


def test_what_was_long_ago_is_forgotten_towards_the_prior() -> None:
    model = ConditionalLogit(np.array([1.0, 0.0]), np.array([1.0, 1.0]), 1.0, 100.0)
    for _ in range(500):
        model.learn_one(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([False, True]))
    assert model.mean[0] < -1.0
    for n in range(1_500):
        # Nothing is heard of the first feature any more.
        model.learn_one(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([n % 2 == 0, n % 2 == 1]))
    assert model.mean[0] == pytest.approx(1.0, abs=0.1)


def test_one_surprising_order_turns_nothing_around() -> None:
    """The only product he knows seems certain, and he takes another: there the likelihood is flat."""
    logit = ConditionalLogit(START.weights, np.full(len(FEATURES), 0.5), 1.0, 20_000.0)
    x = np.zeros((10, len(FEATURES)))
    x[0, [FEATURES.index(name) for name in ("habit", "usual", "recency", "season", "times")]] = 8.0
    chosen = np.arange(10) == 7
    surprise = -float(np.log(logit.predict_one(x)[7]))
    assert surprise > 5.0
    assert logit.learn_one(x, chosen)
    learned = -float(np.log(logit.predict_one(x)[7]))
    assert 0.2 < learned < surprise
    # It is believed that he may take another, not that nobody takes what he knows.
    assert logit.predict_one(x)[0] > 1e-3
    around = x - logit.predict_one(x) @ x
    assert logit.information == pytest.approx((around * logit.predict_one(x)[:, None]).T @ around)
