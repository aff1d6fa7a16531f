"""What the learner makes of trials: heads of the response model, the same state wherever it is cut."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from libs.common.contracts.vectors import pack
from libs.common.scoring import choice, trial
from libs.common.scoring.response import HEADS, start_head
from libs.common.scoring.trial import RESPONSE_FEATURES, TRIAL_FEATURES
from services.analyzer.learner import checkpoint
from services.analyzer.learner.fold import Fold, Parameters
from services.analyzer.learner.parts import Solved, content_of
from services.analyzer.learner.responses import ResponseLearner
from services.analyzer.model.lessons import TrialLesson
from tests.unit.response_world import PARAMETERS, folded, learner, published, rows, world
from tests.unit.trial_world import DAY, HOUR, T0, WINDOW, in_order, lesson, life, vector


def test_what_it_begins_with_is_what_readers_believe_before_any_trial() -> None:
    learner = ResponseLearner()
    for name in HEADS:
        head, model = start_head(name), learner.heads[name]
        assert (model.offers.variance, model.cells.variance) == (head.offer_variance, head.cell_variance)
        np.testing.assert_array_equal(model.mean, head.mean)
        np.testing.assert_allclose(model.root(), head.root, rtol=1e-12)


def test_state_is_the_same_to_the_bit_wherever_it_is_cut_and_restored() -> None:
    lessons = rows(world(80))
    whole = checkpoint.digest(folded(world(80)))
    for cuts in ([1, 2, 3, 200], [77], list(range(40, 340, 60))):
        fold = Fold(PARAMETERS)
        for begin, end in zip([0, *cuts], [*cuts, len(lessons)], strict=True):
            fold.learn_many(lessons[begin:end])
            restored = checkpoint.restore(checkpoint.save(fold), PARAMETERS)
            assert restored is not None
            assert checkpoint.digest(restored) == checkpoint.digest(fold)
            fold = restored
        assert checkpoint.digest(fold) == whole
    assert checkpoint.digest(folded(world(80, seed=2))) != whole


def test_a_checkpoint_says_what_it_was_learned_with() -> None:
    saved = checkpoint.save(Fold(PARAMETERS))
    assert checkpoint.parameters_of(saved) == PARAMETERS != Parameters()
    assert checkpoint.restore(saved, Parameters()) is None
    assert checkpoint.parameters_of(checkpoint.save(Fold(Parameters(version=1)))) is None
    assert checkpoint.parameters_of(b"nothing") is None


def test_a_checkpoint_of_other_features_begins_anew() -> None:
    assert Parameters().features.split() == [choice.FEATURE_SET, trial.FEATURE_SET]
    assert choice.FEATURE_SET != trial.FEATURE_SET
    saved = checkpoint.save(Fold(replace(PARAMETERS, features="1234 5678")))
    assert checkpoint.restore(saved, PARAMETERS) is None
    assert checkpoint.parameters_of(saved) is None


def test_each_trial_is_one_trial_of_its_heads_in_the_end() -> None:
    """Sums of successes and of trials, by head, whatever way a trial took."""
    ways: list[tuple[dict[str, float], dict[str, tuple[float, float]]]] = [
        ({}, {"engaged": (0, 1), "converted_alone": (0, 1)}),
        ({"engaged": 0.1}, {"engaged": (1, 1), "converted_alone": (0, 1), "converted_engaged": (0, 1)}),
        ({"converted": 0.3}, {"engaged": (0, 1), "converted_alone": (1, 1)}),
        (
            {"engaged": 0.01, "converted": 0.5},
            {"engaged": (1, 1), "converted_alone": (0, 1), "converted_engaged": (1, 1)},
        ),
        (
            {"engaged": 0.2, "converted": 0.9},
            {"engaged": (1, 1), "converted_alone": (0, 1), "converted_engaged": (1, 1)},
        ),
    ]
    for facts, expected in ways:
        heads = learner(list(life(T0, **facts))).heads
        for name in HEADS:
            offers = heads[name].offers
            found = (sum(offers.successes), sum(offers.trials))
            # F moves a little while a trial runs, so the parts of one add up to about one.
            assert found == pytest.approx(expected.get(name, (0, 0)), abs=0.06), (facts, name)


def test_a_return_and_a_refusal_speak_against_it() -> None:
    bought = list(life(T0, converted=0.1))
    kept = learner(bought).heads["converted_alone"]
    back = learner([*bought, lesson(T0 + DAY * 8, step="returned", age_to=WINDOW)]).heads["converted_alone"]
    assert sum(back.offers.trials) == pytest.approx(sum(kept.offers.trials) + 1, abs=0.02)
    assert back.mean[_INTERCEPT] < kept.mean[_INTERCEPT]
    refused = learner([lesson(), lesson(T0 + 1, step="declined", age_to=1)]).heads["engaged"]
    assert refused.mean[_INTERCEPT] < learner([lesson()]).heads["engaged"].mean[_INTERCEPT]


_INTERCEPT = TRIAL_FEATURES.index("intercept")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"feature_set": "old"}, "feature_set"),
        ({"vector": b"", "shared": b""}, "features"),
        ({"vector": b"\x05", "shared": b""}, "features"),
        ({"vector": pack(np.ones((1, 3)))[0]}, "features"),
        ({"vector": vector(price=1e30)[0]}, "not_finite"),
        ({"window": 0}, "window"),
    ],
)
def test_what_cannot_be_learned_from_is_counted_and_moves_nothing(changes: dict[str, Any], why: str) -> None:
    made = learner([lesson(step="look", age_to=WINDOW, **changes)])
    assert made.refused == {why: 1}
    assert not any(head.seen for head in made.heads.values())


def test_numbers_that_are_none_reach_no_weight() -> None:
    class Broken(TrialLesson, frozen=True):
        def features(self) -> np.ndarray:
            x = np.zeros(len(TRIAL_FEATURES))
            x[3] = math.nan
            return x

    fields = {name: getattr(lesson(), name) for name in TrialLesson.__struct_fields__}
    made = learner([Broken(**{**fields, "step": "converted"})])
    assert made.refused == {"not_finite": 1}
    assert all(np.isfinite(head.mean).all() for head in made.heads.values())


def test_outcomes_of_trials_never_shown_and_in_any_order_stay_finite() -> None:
    random = np.random.default_rng(0)
    steps = ["engaged", "converted", "returned", "declined", "look", "shown"]
    lessons = [
        lesson(
            T0 + int(random.integers(0, 10**9)),
            step=str(random.choice(steps)),
            age_from=int(random.integers(-5, 10**12)),
            age_to=int(random.integers(-5, 10**12)),
            seen_to=int(random.integers(-5, 10**12)),
            rank=int(random.integers(-3, 10**6)),
            engaged=bool(random.integers(2)),
            offer_kind=str(random.choice(["cross_sell", "no_such_kind"])),
            judged=True,
        )
        for _ in range(400)
    ]
    made = learner(lessons)
    for head in made.heads.values():
        assert np.isfinite(head.mean).all()
        assert np.abs(head.mean).max() < 50
        assert np.isfinite(head.root()).all()
    assert "no_such_kind" not in made.caused.shares()[""]


def test_lower_slots_have_effects_of_their_own_and_what_is_served_is_the_first() -> None:
    random = np.random.default_rng(7)
    lives = [
        life(
            T0 + n * HOUR,
            engaged=0.001 if random.random() < (0.4, 0.4, 0.1)[n % 3] else None,
            rank=n % 3 + 1,
            swapped=((0.0, 0.5), (0.5, 0.5), (0.5, 0.0))[n % 3],
        )
        for n in range(600)
    ]
    fold = folded(in_order(lives))
    content = content_of(fold, T0, Solved()).response.caused[0]
    first, second, third = content.slots["home"][:3]
    assert first == 1.0
    assert third < 0.5 < second < 2.0
    assert set(fold.response.slots) == {"engaged", "converted_alone"}
    own, shared = np.split(lesson().features(), [len(RESPONSE_FEATURES)])
    engaged = published(fold).head_means(own[None, :], shared, ["product:a"], np.array([0]))[0, 0]
    assert engaged == pytest.approx(0.4, abs=0.08)


def test_what_was_never_shown_is_not_judged_by_what_all_trials_had_in_common() -> None:
    """Which kind, source or place an offer is of is as constant as the intercept, where few of them occur."""
    random = np.random.default_rng(3)
    lives = []
    for n in range(3000):
        source = "source_crowd" if random.random() < 0.9 else "source_person"
        common = {source: 1.0, "known": 1.0, "channel_5": 1.0}
        own, shared = vector(float(random.uniform(0.01, 0.3)), **common)
        converted = 0.5 if random.random() < 0.9 else None
        lives.append(life(T0 + n * HOUR // 10, converted=converted, vector=own, shared=shared))
    head = learner(in_order(lives)).heads["converted_alone"]
    weights = dict(zip(TRIAL_FEATURES, head.mean.tolist(), strict=False))
    assert weights["intercept"] > 1.0
    assert all(abs(weights[name]) < 0.3 for name in ("known", "channel_5", "source_crowd", "source_person"))
