"""Honesty of the learner: losses against the prior, calibration, order and drift, of what was said before."""

from __future__ import annotations

import math

import numpy as np
import pytest

from libs.common.telemetry import Metrics
from services.analyzer.learner.honesty import FEW, HALF_LIFE, JUDGED, Honesty, auc
from services.analyzer.learner.metrics import LearnerMetrics
from services.analyzer.learner.responses import Observations, ResponseLearner
from services.analyzer.model.lessons import TrialLesson
from tests.unit.trial_world import DAY, T0, in_order, lesson, life, vector


def closed(bought: bool) -> TrialLesson:
    return lesson(step="look", judged=True, bought=bought)


class Seen:
    """An observer and what it shows."""

    def __init__(self) -> None:
        self.metrics = LearnerMetrics(Metrics("learner"))
        self.honesty = Honesty(self.metrics)

    def shown(self, name: str, **labels: str) -> float | None:
        self.honesty.show({"repeat": 0.25})
        said = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        start = f"closedloop_learner_{name}" + (f"{{{said}}}" if said else "") + " "
        lines = self.metrics.registry.render().decode().splitlines()
        return next((float(line[len(start) :]) for line in lines if line.startswith(start)), None)


@pytest.fixture
def seen() -> Seen:
    return Seen()


def observation(
    head: str, kind: str, odds: float, before: float, successes: float, trials: float
) -> Observations:
    """A lot of one."""
    odds_, before_, successes_, trials_ = np.array([[odds], [before], [successes], [trials]])
    return Observations(head, [kind], odds_, before_, successes_, trials_)


def logit(chance: float) -> float:
    return math.log(chance / (1.0 - chance))


def test_nothing_is_told_of_few(seen: Seen) -> None:
    for _ in range(int(FEW) - 1):
        seen.honesty.observed(observation("converted_alone", "repeat", 0.0, 0.0, 0.0, 1.0))
    assert seen.shown("response_log_loss", head="converted_alone") is None
    seen.honesty.observed(observation("converted_alone", "repeat", 0.0, 0.0, 0.0, 1.0))
    seen.honesty.observed(observation("converted_alone", "repeat", 0.0, 0.0, 0.0, 1.0))
    assert seen.shown("response_log_loss", head="converted_alone") == pytest.approx(math.log(2))


@pytest.mark.parametrize(("said", "gains"), [(0.1, True), (0.001, False)])
def test_gain_over_the_prior_is_positive_only_where_learning_helps(
    seen: Seen, said: float, gains: bool
) -> None:
    draw = np.random.default_rng(3)
    for _ in range(3_000):
        success = float(draw.random() < 0.1)
        seen.honesty.observed(observation("engaged", "repeat", logit(said), logit(0.02), success, 1.0))
    gain = seen.shown("log_loss_gain_ratio", model="engaged")
    assert gain is not None
    assert (gain > 0.0) is gains


def test_trial_told_in_parts_loses_as_one_told_at_once(seen: Seen) -> None:
    other = Seen()
    for _ in range(100):
        seen.honesty.observed(observation("converted_alone", "repeat", logit(0.2), 0.0, 1.0, 1.0))
        for share in (0.25, 0.5):
            other.honesty.observed(observation("converted_alone", "repeat", logit(0.2), 0.0, 0.0, share))
        other.honesty.observed(observation("converted_alone", "repeat", logit(0.2), 0.0, 1.0, 0.25))
    loss = seen.shown("response_log_loss", head="converted_alone")
    assert loss == pytest.approx(-math.log(0.2))
    assert other.shown("response_log_loss", head="converted_alone") == pytest.approx(loss, rel=2 / HALF_LIFE)
    for one in (seen, other):
        assert one.shown("conversions_seen_total", kind="repeat") == 100.0
        assert one.shown("conversions_expected_total", kind="repeat") == pytest.approx(20.0)


def test_engagements_are_no_conversions_and_odd_numbers_count_nowhere(seen: Seen) -> None:
    seen.honesty.observed(observation("engaged", "repeat", 0.0, 0.0, 1.0, 1.0))
    for odd in (math.nan, math.inf, -math.inf):
        seen.honesty.observed(observation("converted_alone", "repeat", odd, 0.0, 1.0, 1.0))
        seen.honesty.observed(observation("converted_alone", "repeat", 0.0, odd, 1.0, 1.0))
        seen.honesty.judged(closed(True), odd)
    seen.honesty.observed(observation("converted_alone", "whatever", 0.0, 0.0, 1.0, 1.0))
    assert seen.shown("conversions_seen_total", kind="repeat") == 0.0
    assert seen.shown("auc_ratio", model="response") is None
    assert seen.shown("caused_ratio", kind="repeat") == 0.25


@pytest.mark.parametrize("ties", [0, 1])
def test_area_under_the_curve_is_the_share_of_pairs_in_order(ties: int) -> None:
    draw = np.random.default_rng(5)
    chances = draw.random(300).round(ties or 9)
    bought = draw.random(300) < chances
    pairs = [(a > b) + 0.5 * (a == b) for a in chances[bought] for b in chances[~bought]]
    assert auc(chances, bought) == pytest.approx(float(np.mean(pairs)))
    assert auc(chances, np.zeros(300, dtype=bool)) is None


def test_only_the_latest_trials_are_judged(seen: Seen) -> None:
    for _ in range(JUDGED):
        seen.honesty.judged(closed(True), 0.1)
    for n in range(JUDGED):
        seen.honesty.judged(closed(n % 2 == 0), 0.9 if n % 2 == 0 else 0.2)
    assert seen.shown("auc_ratio", model="response") == 1.0


def test_drift_is_alarmed_where_losses_rise_and_not_where_they_fall_or_stay(seen: Seen) -> None:
    draw = np.random.default_rng(7)

    def world(rate: float, said: float, trials: int) -> float | None:
        for _ in range(trials):
            seen.honesty.judged(closed(bool(draw.random() < rate)), said)
        return seen.shown("drift_alarms_total", model="response")

    assert world(0.05, 0.05, 5_000) == 0.0
    assert world(0.02, 0.02, 5_000) == 0.0
    risen = world(0.3, 0.02, 2_000)
    assert risen is not None
    assert risen >= 1.0
    assert seen.shown("drift_alarms_total", model="choice") == 0.0


def test_response_model_is_seen_to_be_calibrated_and_better_than_its_prior(seen: Seen) -> None:
    """Trials of two offers, one of which nobody takes and one that more people take than is believed."""
    draw = np.random.default_rng(13)
    learner = ResponseLearner()
    learner.observer = seen.honesty
    lives = []
    for n in range(700):
        good = n % 2 == 0
        own, shared = vector(0.05)
        age = float(draw.random())
        lives.append(
            life(
                T0 + n * DAY // 60,
                converted=age if draw.random() < (0.25 if good else 0.0) else None,
                offer_id="product:good" if good else "product:bad",
                vector=own,
                shared=shared,
            )
        )
    for one in in_order(lives):
        learner.learn_one(one)
    came = seen.shown("conversions_seen_total", kind="cross_sell")
    foretold = seen.shown("conversions_expected_total", kind="cross_sell")
    assert came is not None
    assert foretold is not None
    assert came == pytest.approx(87.5, rel=0.3)
    assert foretold == pytest.approx(came, rel=0.35)
    gain = seen.shown("log_loss_gain_ratio", model="converted_alone")
    area = seen.shown("auc_ratio", model="response")
    assert gain is not None
    assert area is not None
    assert gain > 0.05
    assert area > 0.75
