"""The regression behind the heads: exact where it can be checked, bounded whatever it is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from services.analyzer.learner.effects import CERTAIN, EffectParameters, Effects, expit, mode, moments
from services.analyzer.learner.logit import BayesianLogit, LogitParameters, Seen, Told, joint_mode

ALONE = LogitParameters(offers=EffectParameters(variance=0.0), cells=EffectParameters(variance=0.0))


def posterior(before: float, variance: float, successes: float, trials: float) -> tuple[float, float, float]:
    """Mode, mean and variance on a fine grid."""
    z = np.linspace(before - 12, before + 12, 200_001)
    height = successes * z - trials * np.logaddexp(0, z) - (z - before) ** 2 / (2 * variance)
    mass = np.exp(height - height.max())
    mass /= mass.sum()
    mean = float(mass @ z)
    return float(z[height.argmax()]), mean, float(mass @ (z - mean) ** 2)


@pytest.mark.parametrize(
    ("before", "variance", "successes", "trials"),
    [
        (-4.0, 0.5, 3.0, 500.0),
        (-4.0, 0.5, 0.0, 500.0),
        (0.0, 1.0, 1.0, 1.0),
        (-5.0, 1.0, 1.0, 0.0),
        (2.0, 0.3, 7.0, 9.0),
    ],
)
def test_mode_and_moments_are_those_of_the_posterior(
    before: float, variance: float, successes: float, trials: float
) -> None:
    top, mean, spread = posterior(before, variance, successes, trials)
    assert mode(before, variance, successes, trials) == pytest.approx(top, abs=2e-4)
    found = moments(np.array([before]), variance, np.array([successes]), np.array([trials]))
    assert found[0][0] == pytest.approx(mean, abs=1e-3)
    assert found[1][0] == pytest.approx(spread, rel=5e-3)


def test_weights_are_those_of_all_data_at_once() -> None:
    """Against the mode and curvature of the whole posterior, by Newton's method."""
    random = np.random.default_rng(3)
    true = np.array([-1.5, 0.8, -0.5, 0.0])
    x = np.column_stack([np.ones(3000), random.standard_normal((3000, 3))])
    y = (random.random(3000) < 1 / (1 + np.exp(-x @ true))).astype(float)
    model = BayesianLogit(np.zeros(4), np.full(4, 1.0), ALONE)
    for row, label in zip(x, y, strict=True):
        model.learn_one(Seen(row, "o"), label, 1.0)
    w = np.zeros(4)
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        precision = (x * (p * (1 - p))[:, None]).T @ x + np.eye(4)
        w += np.linalg.solve(precision, x.T @ (y - p) - w)
    assert model.mean == pytest.approx(w, abs=0.03)
    assert np.sqrt(np.diag(model.covariance)) == pytest.approx(
        np.sqrt(np.diag(np.linalg.inv(precision))), rel=0.05
    )


def test_a_trial_told_bit_by_bit_is_one_trial() -> None:
    """No conversion for a while and then one: together exactly one success of one trial."""
    for said in (0.0, 0.4, 1.0):
        z = np.linspace(-8, 2, 11)
        parts = -said * np.logaddexp(0, z) + (z - (1 - said) * np.logaddexp(0, z))
        assert parts == pytest.approx(z - np.logaddexp(0, z))
    whole, parts_ = (BayesianLogit(np.array([-3.0]), np.array([0.3]), ALONE) for _ in range(2))
    for n in range(400):
        success = float(n % 20 == 0)
        whole.learn_one(Seen(np.ones(1), "o"), success, 1.0)
        for trials in (0.25, 0.25):
            parts_.learn_one(Seen(np.ones(1), "o"), 0.0, trials)
        parts_.learn_one(Seen(np.ones(1), "o"), success, 0.5)
    assert parts_.mean[0] == pytest.approx(whole.mean[0], abs=0.02)
    assert parts_.covariance[0, 0] == pytest.approx(whole.covariance[0, 0], rel=0.03)


def test_a_lot_is_learned_as_its_whole_posterior_has_it() -> None:
    """Mode and curvature of forty observations at once, of two offers that differ."""
    random = np.random.default_rng(6)
    x = np.column_stack([np.ones(40), random.standard_normal(40)])
    successes = (random.random(40) < 0.4).astype(float)
    model = BayesianLogit(np.array([-1.0, 0.0]), np.array([0.7, 0.5]), ALONE)
    model.learn_many([Told(Seen(row, "o"), one, 1.0) for row, one in zip(x, successes, strict=True)])
    w, start, prior = np.array([-1.0, 0.0]), np.array([-1.0, 0.0]), np.array([1 / 0.49, 4.0])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ w))
        precision = (x * (p * (1 - p))[:, None]).T @ x + np.diag(prior)
        w = w + np.linalg.solve(precision, x.T @ (successes - p) - prior * (w - start))
    assert model.mean == pytest.approx(w, abs=1e-6)
    assert model.covariance == pytest.approx(np.linalg.inv(precision), abs=1e-6)


def test_no_log_odds_leave_what_is_certain_however_often_it_is_said() -> None:
    covariance = np.full((5, 5), 400.0) + np.eye(5)
    found = joint_mode(np.zeros(5), covariance, np.ones(5), np.zeros(5))
    assert np.max(covariance @ found.pull) == pytest.approx(CERTAIN)
    assert found.pull.min() > 0.0


@pytest.mark.parametrize(("far", "success"), [(-20.5, 0.0), (-19.9, 0.0), (20.5, 1.0), (19.9, 1.0)])
def test_what_is_certain_already_takes_nothing_from_the_rest_of_its_lot(far: float, success: float) -> None:
    """One that all know the outcome of moves with the others, however far off it is."""
    covariance = 0.5 * np.eye(3) + 0.3
    for said in (0.0, 1.0):
        outcomes, trials = np.array([said, said, success]), np.array([1.0, 1.0, 1.0 - success])
        before = np.array([-1.0, -2.0, far])
        alone = joint_mode(before[:2], covariance[:2, :2], outcomes[:2], trials[:2])
        beside = joint_mode(before, covariance, outcomes, trials)
        assert beside.pull[:2] == pytest.approx(alone.pull, abs=1e-5)
        assert np.abs(alone.pull).min() > 0.05


def test_contradicting_labels_and_endless_ones_stay_finite() -> None:
    model = BayesianLogit(np.zeros(3), np.full(3, 0.7))
    wild = Seen(np.array([1.0, 30.0, -30.0]), "o", 5, -1.0)
    for _ in range(300):
        model.learn_one(wild, 1.0, 1.0)
        model.learn_one(wild, 0.0, 1.0)
    assert expit(model.predict_one(wild)) == pytest.approx(0.5, abs=0.05)
    for _ in range(2000):
        model.learn_one(wild, 1.0, 0.0)
    assert np.isfinite(model.mean).all()
    assert np.isfinite(model.root()).all()
    assert np.abs(model.mean).max() < 100


def test_offers_differ_as_much_as_data_say_and_take_no_common_part() -> None:
    random = np.random.default_rng(4)
    rates = -2.0 + 0.8 * random.standard_normal(40)
    model = BayesianLogit(np.array([-3.0]), np.array([0.7]))
    for offer in random.permutation(np.repeat(np.arange(40), 150)).tolist():
        success = float(random.random() < 1 / (1 + math.exp(-rates[offer])))
        model.learn_one(Seen(np.ones(1), f"o{offer}"), success, 1.0)
    assert math.sqrt(model.offers.variance) == pytest.approx(rates.std(), rel=0.3)
    assert model.mean[0] + model.cells.of(0)[0] == pytest.approx(rates.mean(), abs=0.25)
    assert abs(model.offers.arrays()[0].mean()) < 0.1


def test_forgetting_goes_back_to_what_was_believed_first() -> None:
    model = BayesianLogit(np.array([-3.0, 0.0]), np.array([0.7, 0.2]))
    random = np.random.default_rng(5)
    for _ in range(500):
        x = np.array([1.0, random.standard_normal()])
        model.learn_one(Seen(x, "o", 3), float(random.random() < 0.4), 1.0)
    sure, moved = model.covariance[0, 0], model.mean[0] + 3.0
    assert sure < 0.2
    assert moved > 1.5
    model.fade(0.5)
    assert sure < model.covariance[0, 0] < 0.49
    for _ in range(60):
        model.fade(0.5)
    assert model.mean == pytest.approx([-3.0, 0.0], abs=1e-6)
    assert np.diag(model.covariance) == pytest.approx([0.49, 0.04])


def test_what_was_tried_least_is_forgotten_where_there_is_no_room() -> None:
    effects: Effects[str] = Effects(EffectParameters(variance=0.1, most=10))
    for n in range(10):
        effects.learn_one(f"o{n}", 0.0, float(n + 1), 0.1)
    effects.learn_one("new", 1.0, 1.0, 0.1)
    assert effects.keys == [*(f"o{n}" for n in range(2, 10)), "new"]
    assert all(effects.keys[row] == key for key, row in effects.index.items())
    assert effects.of("o0") == (0.0, 0.1)
    assert effects.of("new")[0] > 0.0


def test_log_odds_that_are_known_from_elsewhere_move_no_weight() -> None:
    """Half of the trials have odds of a quarter beside the rest, and are told so."""
    random = np.random.default_rng(6)
    told, untold = (BayesianLogit(np.zeros(1), np.full(1, 2.0)) for _ in range(2))
    for n in range(1_000):
        offset = -math.log(4.0) * (n % 2)
        success = float(random.random() < expit(offset))
        told.learn_one(Seen(np.ones(1), "o", 0, offset), success, 1.0)
        untold.learn_one(Seen(np.ones(1), "o"), success, 1.0)
    assert told.predict_one(Seen(np.ones(1), "o")) == pytest.approx(0.0, abs=0.15)
    assert told.predict_one(Seen(np.ones(1), "o", 0, -1.0)) == pytest.approx(-1.0, abs=0.15)
    assert untold.predict_one(Seen(np.ones(1), "o")) < -0.4


def test_a_narrow_start_is_left_where_data_say_so_and_only_there() -> None:
    """Offers and one of six features differ much more than was believed; five say nothing."""
    random = np.random.default_rng(8)
    rates = -1.5 + 0.8 * random.standard_normal(30)
    model = BayesianLogit(
        np.zeros(7), np.array([0.7, *[0.1] * 6]), blocks=[[1], [2], [3, 4, 5, 6]], intercept=0
    )
    for offer in random.integers(30, size=1_500).tolist():
        x = np.array([1.0, *random.standard_normal(6)])
        success = float(random.random() < expit(rates[offer] + 1.2 * x[1]))
        model.learn_one(Seen(x, f"o{offer}"), success, 1.0)
    assert model.mean[1] == pytest.approx(1.2, abs=0.2)
    assert np.abs(model.mean[2:7]).max() < 0.15
    assert 1.0 / math.sqrt(model.precision[1]) > 0.5
    assert 1.0 / np.sqrt(model.precision[2:]).max() < 0.2
    assert math.sqrt(model.offers.variance) == pytest.approx(rates.std(), rel=0.3)
    assert 1.0 / model.precision[0] == pytest.approx(0.49)


def test_evidence_is_the_integral_over_the_intercept() -> None:
    z = np.linspace(-12, 12, 200_001)
    height = 3.0 * z - 40.0 * np.logaddexp(0, z) - (z + 2.0) ** 2 / (2 * 0.5)
    whole = float(np.exp(height).sum() * (z[1] - z[0])) / math.sqrt(2 * math.pi * 0.5)
    found = moments(np.array([-2.0]), 0.5, np.array([3.0]), np.array([40.0])).evidence
    assert found[0] == pytest.approx(math.log(whole), abs=1e-3)
