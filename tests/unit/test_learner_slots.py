"""Effects of slots: told from the order of draws, whatever the policy takes for best."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from services.analyzer.learner import checkpoint
from services.analyzer.learner.fold import Fold
from services.analyzer.learner.responses import Observations, ResponseLearner
from services.analyzer.learner.slots import LAST_RANK, LEAST_TRIALS, MOST_PLACES, SlotEffects
from services.recommender.model.policy import Exploration, Slots, fill_all

from .response_world import PARAMETERS, rows
from .trial_world import DAY, HOUR, T0, WINDOW, TrialLesson, in_order, lesson, life

FALL = 0.5
LOOKED_AT = np.array([1.0, 0.65, 0.4])
CHANCES = np.array([0.36, 0.3, 0.24, 0.19, 0.12, 0.08])


class Shown(NamedTuple):
    """A trial: its slot, how likely it was swapped with the offers above and below, and what came of it."""

    rank: int
    offer: int
    swapped: tuple[float, float]
    success: float


@cache
def shown(slates: int = 12_000, seed: int = 2) -> list[Shown]:
    """Slates of the policy that serves, which by now takes good offers for good and is hardly in doubt."""
    random = np.random.default_rng(seed)
    values = np.log(CHANCES)
    posterior = [values + 0.25 * random.standard_normal((64, len(values))) for _ in range(20)]
    asked = [
        Slots(values, lambda n=n: posterior[n % 20], 3, Exploration(0.02), n)
        for n in range(slates)  # type: ignore[misc]
    ]
    trials = []
    for first in range(0, slates, 64):
        for draws in fill_all(asked[first : first + 64]):
            swapped = [*(draw.swapped for draw in draws), 0.0]
            for slot, draw in enumerate(draws):
                success = float(random.random() < CHANCES[draw.chosen] * LOOKED_AT[slot])
                trials.append(Shown(draw.rank, draw.chosen, (swapped[slot], swapped[slot + 1]), success))
    return trials


def test_odds_of_slots_are_recovered_under_a_policy_that_puts_the_best_first() -> None:
    trials = shown()
    slots, plain = SlotEffects(FALL), SlotEffects(FALL)
    for one in trials:
        slots.learn_one("home", one.rank, one.swapped, one.success, 1.0)
        plain.learn_one("home", one.rank, (1.0, 1.0), one.success, 1.0)
    found, blind = slots.odds()["home"], plain.odds()["home"]
    for rank in (2, 3):
        chances = CHANCES[[one.offer for one in trials if one.rank == rank]]
        seen = chances * LOOKED_AT[rank - 1]
        true = math.exp(float(np.mean(np.log(seen / (1 - seen)) - np.log(chances / (1 - chances)))))
        assert found[rank - 1] == pytest.approx(true, rel=0.1)
        assert blind[rank - 1] < 0.9 * true, "where offers stand says nothing of them here"


def test_so_weighed_each_offer_stands_as_often_in_both_slots() -> None:
    trials = shown()
    weights, shares = np.zeros((2, len(CHANCES))), np.zeros((2, len(CHANCES)))
    for one in trials:
        if one.rank <= 2:
            # Of slot 1 with the offer below, of slot 2 with the one above.
            weights[one.rank - 1, one.offer] += one.swapped[2 - one.rank]
            shares[one.rank - 1, one.offer] += 1.0
    assert weights[1] == pytest.approx(weights[0], rel=0.1, abs=12.0)
    assert shares[0, 0] > 1.5 * shares[1, 0]


def test_before_anything_is_known_lower_slots_have_less() -> None:
    slots = SlotEffects(FALL)
    assert [slots.of("home", rank) for rank in (-1, 0, 1)] == [0.0, 0.0, 0.0]
    assert math.exp(slots.of("home", 4)) == pytest.approx(0.5)
    slots.learn_one("home", 1, (0.0, 0.0), 1.0, 1.0)
    assert slots.odds() == {}
    slots.learn_one("home", 2, (1e-12, 0.0), 0.0, 1.0)
    assert slots.odds()["home"] == pytest.approx([r**-FALL for r in range(1, LAST_RANK + 1)], rel=1e-6)


def test_what_is_told_of_two_slots_moves_those_below_with_them_and_fades() -> None:
    slots = SlotEffects(FALL)
    for _ in range(4_000):
        slots.learn_one("home", 2, (0.5, 0.0), 0.1, 1.0)
        slots.learn_one("home", 3, (0.0, 0.5), 0.2, 1.0)
        slots.learn_one("home", 4, (0.5, 0.0), 0.1, 1.0)
        slots.learn_one("mail", 1, (0.0, 0.5), 0.2, 1.0)
    steps = np.diff(np.log(slots.odds()["home"]))
    before = np.diff(np.log([rank**-FALL for rank in range(1, LAST_RANK + 1)]))
    # Of slots that were told of alone there is nothing to compare them with.
    alone = [0, 1, *range(3, LAST_RANK - 1)]
    assert steps[alone] == pytest.approx(before[alone], rel=0.1)
    assert math.exp(steps[2]) == pytest.approx(0.444, rel=0.05)
    assert slots.of("home", 99) == slots.of("home", LAST_RANK)
    slots.fade(1e-9)
    assert slots.of("home", 4) == pytest.approx(math.log(0.5), abs=1e-4)


class Watching:
    """Keeps what is learned."""

    def __init__(self) -> None:
        self.told: list[Observations] = []

    def observed(self, observations: Observations) -> None:
        self.told.append(observations)

    def judged(self, lesson: TrialLesson, chance: float) -> None:
        pass

    def refused(self, why: str) -> None:
        pass


def test_what_is_bought_anyway_is_no_better_for_having_stood_low() -> None:
    """Where nothing is swapped, slots are not learned: of what is bought unengaged nothing is assumed."""
    learner = ResponseLearner()
    lives = [
        life(
            T0 + n * HOUR // 4,
            converted=0.3 if n // 2 % 12 == 0 else None,
            offer_id=f"product:{'ab'[n % 2]}",
            rank=(1, 10)[n % 2],
        )
        for n in range(2_400)
    ]
    for one in in_order(lives):
        learner.learn_one(one)
    heads = learner.settled()
    effects = {name: head.offers.arrays()[0] for name, head in heads.items()}
    high, low = (
        effects["converted_alone"][heads["converted_alone"].offers.index[f"product:{x}"]] for x in "ab"
    )
    assert low == pytest.approx(high, abs=0.1)
    assert learner.slots["converted_alone"].of("home", 10) == 0.0
    assert math.exp(learner.slots["engaged"].of("home", 4)) == pytest.approx(0.5)


def test_what_is_assumed_of_slots_is_not_told_as_learned() -> None:
    learner, watching = ResponseLearner(), Watching()
    learner.observer = watching
    for one in life(T0, engaged=0.3, rank=9):
        learner.learn_one(one)
    first = next(one for one in watching.told if one.head == "engaged")
    assert first.odds[0] == pytest.approx(first.before[0], abs=1e-12)


def test_what_was_told_of_slots_grows_old_with_all_else() -> None:
    learner = ResponseLearner()
    for one in life(T0, engaged=0.3, rank=2, swapped=(0.5, 0.25)):
        learner.learn_one(one)
    for head in ("engaged", "converted_alone"):
        fresh = learner.slots[head].counts["home"][0, 1].tolist()
        assert fresh == pytest.approx([0.5 * (head == "engaged"), 0.5], abs=0.03)
    learner.learn_one(lesson(T0 + WINDOW + 180 * DAY))
    assert learner.slots["converted_alone"].counts["home"][0, 1, 1] == pytest.approx(fresh[1] / 2)


def test_successes_before_their_trials_and_endless_placements_are_bounded() -> None:
    slots = SlotEffects(FALL)
    for n in range(2 * MOST_PLACES):
        for _ in range(50):
            slots.learn_one(f"place {n}", 1 + n % 12, (1.0, 1.0), 1.0, 0.0)
    assert len(slots.counts) == MOST_PLACES
    odds = np.array(list(slots.odds().values()))
    assert np.isfinite(odds).all()
    assert odds.min() > 1e-6
    assert odds.max() < 1e6


def test_places_of_which_nothing_is_left_are_given_to_others() -> None:
    slots = SlotEffects(FALL)
    slots.learn_one("home", 2, (0.5, 0.0), 0.0, 1.0)
    for n in range(MOST_PLACES):
        slots.learn_one(f"place {n}", 2, (LEAST_TRIALS / 1_000, 0.0), 1.0, 1.0)
    slots.fade(0.999)
    assert list(slots.counts) == ["home"]
    slots.learn_one("mail", 2, (0.5, 0.0), 0.0, 1.0)
    assert "mail" in slots.counts


def test_places_are_given_back_wherever_the_fold_is_cut() -> None:
    lives = [
        life(T0 + n * HOUR, engaged=0.01, placement=f"place {n}", rank=2, swapped=(1e-9, 0.0))
        for n in range(MOST_PLACES)
    ]
    lives += [
        life(T0 + 20 * DAY + n * HOUR, placement=f"late {n}", rank=2, swapped=(0.5, 0.0)) for n in range(3)
    ]
    lessons = rows(in_order(lives))
    whole, parts = Fold(PARAMETERS), Fold(PARAMETERS)
    whole.learn_many(lessons)
    for begin in range(0, len(lessons), 37):
        parts.learn_many(lessons[begin : begin + 37])
        restored = checkpoint.restore(checkpoint.save(parts), PARAMETERS)
        assert restored is not None
        parts = restored
    assert checkpoint.save(parts) == checkpoint.save(whole)
    assert list(parts.response.slots["engaged"].counts) == [f"late {n}" for n in range(3)]
