"""The response learner in worlds whose truth is known: it finds it, and knows how well."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from libs.common.scoring.response import start_deviation, start_mean
from libs.common.scoring.trial import RESPONSE_FEATURES, TRIAL_FEATURES
from services.analyzer.learner.effects import expit
from services.analyzer.learner.fold import Fold, Place
from services.analyzer.learner.logit import BayesianLogit, Seen
from services.analyzer.learner.parts import Solved, content_of
from services.analyzer.learner.responses import ResponseLearner
from services.analyzer.model.lessons import TrialLesson
from tests.unit.trial_world import HOUR, T0, WINDOW, in_order, lesson, life, vector

INTERCEPT = TRIAL_FEATURES.index("intercept")
X = np.zeros(len(TRIAL_FEATURES))
X[0], X[INTERCEPT] = math.log(0.1 / 0.9), 1.0


def head(name: str = "converted_alone") -> BayesianLogit:
    return BayesianLogit(start_mean(name), start_deviation(), intercept=INTERCEPT)


def test_intervals_of_100_new_offers_cover_their_rates() -> None:
    """500 impressions each: the 90 % interval covers the true rate of at least 85."""
    random = np.random.default_rng(1)
    rates = -3.6 + 0.7 * random.standard_normal(100)
    chances = 1 / (1 + np.exp(-rates))
    model = head()
    for offer in random.permutation(np.repeat(np.arange(100), 500)).tolist():
        success = float(random.random() < chances[offer])
        model.learn_one(Seen(X, f"o{offer}", 8), success, 1.0)
    mean, variance = model.offers.arrays()
    cell, unsure = (float(one[0]) for one in model.cells.arrays())
    size = model.size
    common = float(X @ model.covariance[:size, :size] @ X) + unsure
    odds = float(X @ model.mean[:size]) + cell + mean
    true = rates[[int(key[1:]) for key in model.offers.keys]]
    covered = int((np.abs(odds - true) < 1.645 * np.sqrt(variance + common)).sum())
    assert covered >= 85
    # And not because it knows nothing: its intervals are far narrower than offers differ.
    assert float(np.sqrt(variance).mean()) < 0.6 * float(true.std())


def test_odds_of_slots_are_recovered() -> None:
    """Slots are looked at with 1, 0.65, 0.4, by a policy that puts the best offers first."""
    random = np.random.default_rng(2)
    looked_at = (1.0, 0.65, 0.4)
    chances = np.linspace(0.05, 0.3, 6)
    model = head("engaged")
    for _ in range(12_000):
        slate = np.argsort(-chances * random.gumbel(1.0, 0.5, size=6))[:3]
        for rank, offer in enumerate(slate.tolist(), start=1):
            success = float(random.random() < chances[offer] * looked_at[rank - 1])
            slot = f"{rank} home" if rank > 1 else None
            model.learn_one(Seen(X, f"o{offer}", 8, slot), success, 1.0)
    for rank, share in ((2, 0.65), (3, 0.4)):
        odds = np.mean([c * share / (1 - c * share) / (c / (1 - c)) for c in chances])
        assert math.exp(model.mean[model.slots[f"{rank} home"]]) == pytest.approx(odds, rel=0.1)


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
    model = learner.heads["converted_alone"]
    said = expit(model.predict_one(Seen(X, "product:a", 0)))
    assert said == pytest.approx(chance, rel=0.15)
    # What one would believe who took every trial without conversion for a failure.
    assert early / trials < 0.8 * chance


def test_an_offer_nobody_wants_fades() -> None:
    """After 1,000 impressions without any outcome it is the best in under 2 % of the draws."""
    random = np.random.default_rng(5)
    fold, number = Fold(), 0
    own, shared = vector()

    def learn(offer: int, converted: bool) -> None:
        nonlocal number
        facts = {"offer_id": f"o{offer}", "vector": own, "shared": shared, "cell": 8}
        one: TrialLesson
        for one in life(T0, converted=0.001 if converted else None, until=1.0, **facts):
            number += 1
            fold.learn_one(Place(0, 0, number), one)

    for _ in range(1_000):
        learn(0, False)
        learn(int(random.integers(1, 10)), bool(random.random() < 0.05))
    records = content_of(fold, T0, Solved()).response
    assert len(records.heads) == 3
    model = _read(fold)
    x = np.repeat(X[None, : len(RESPONSE_FEATURES)], 10, axis=0)
    draws = model.draws(x, X[len(RESPONSE_FEATURES) :], [f"o{n}" for n in range(10)], np.full(10, 8))
    assert float((draws.argmax(axis=1) == 0).mean()) < 0.02
    means = model.means(x, X[len(RESPONSE_FEATURES) :], [f"o{n}" for n in range(10)], np.full(10, 8))
    assert means[0] < 0.3 * means[1:].mean()


def _read(fold: Fold) -> Any:
    from libs.common.scoring.learned import LearnedAssembler
    from services.analyzer.learner.parts import Publications

    assembler = LearnedAssembler()
    records, manifest = Publications().records(content_of(fold, T0, Solved()), 3)
    for key, value, _ in records:
        assembler.put(key, value)
    assembler.put(b"manifest", manifest)
    return assembler.models.response
