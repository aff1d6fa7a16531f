"""Learns from trials what comes of offers: the heads of the response model, delays and κ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from libs.common.clock import DAY
from libs.common.scoring.response import HEADS, start_deviation, start_mean
from libs.common.scoring.trial import FEATURE_SET, LIMIT, TRIAL_FEATURES
from services.analyzer.learner.caused import Caused
from services.analyzer.learner.delays import AGES, Delays
from services.analyzer.learner.effects import expit
from services.analyzer.learner.logit import BayesianLogit, LogitParameters, Seen, Told
from services.analyzer.learner.returned import Returned
from services.analyzer.learner.slots import SlotEffects
from services.analyzer.model.lessons import TrialLesson

Floats = NDArray[np.float64]

ENGAGED, GIVEN, ALONE = HEADS
_INTERCEPT = TRIAL_FEATURES.index("intercept")
_TOGETHER = ("offer_", "cross_", "context_")
_WHICH = ("intercept", "known", "kind_", "source_", "channel_", "placement_")
_OF_HIM = ("habit", "recency", "due", "viewed", "page", "basket")
_ALONE = [name for name in TRIAL_FEATURES if not name.startswith((*_TOGETHER, *_WHICH, *_OF_HIM))]
_BLOCKS = [
    *([at for at, name in enumerate(TRIAL_FEATURES) if name.startswith(word)] for word in _TOGETHER),
    *([TRIAL_FEATURES.index(name)] for name in _ALONE),
]
"""Columns that are one feature spread over several, and others by themselves: how much each says is learned,
as a spread.

Trap: not those that say which kind, source or place an offer is of. Among trials of few of them they are as
constant as the intercept, and a block that learns its spread takes over what is the intercept's: then all
that was never shown would seem worse by that, offers for a basket where none was shown with one. Nor those of
what the customer did with this very product: choices have learned them from every order, and a wide spread
lets the few products that are shown judge them once more, for some thousandths of NDCG@10 on a year of
baskets.
"""
SLOTS_FALL = {ENGAGED: 0.5, ALONE: 0.0}
"""How much less is responded to in lower slots before anything is known, by head, see `SlotEffects`.

Trap: 0 for what is bought without engaging. Most of that would be bought wherever the offer stood; and where
nothing is ever swapped, nothing would take back what a lower slot was thought to cost.
"""
LOT = 16
"""So many observations a head learns at once, …"""
LOT_SHARE = 8
"""… or an eighth of what it knows, if that is less: one by one in the beginning."""


class ResponseParameters(Struct, frozen=True, kw_only=True):
    """What decides what trials become.

    Parameters
    ----------
    half_life_days:
        Journal days after which a trial counts half; 0: for ever.
    """

    half_life_days: float = 180.0
    logit: LogitParameters = LogitParameters()


class Waiting(NamedTuple):
    """An observation that is to be learned, with the kind of its offer."""

    told: Told
    kind: str


class Observations(NamedTuple):
    """What a head is about to learn: by observation (n,) the kind of the offer, the log odds that the head
    gave it, those of its prior, and ``successes`` of ``trials``."""

    head: str
    kinds: Sequence[str]
    odds: Floats
    before: Floats
    successes: Floats
    trials: Floats


class Observer(Protocol):
    """Who looks on while is learned; changes nothing."""

    def observed(self, observations: Observations) -> None: ...

    def judged(self, lesson: TrialLesson, chance: float) -> None: ...

    def refused(self, why: str) -> None: ...


class ResponseLearner:
    """Three regressions, effects of slots, delays and κ from the lessons of trials.

    Nothing is subtracted. Each trial is in the end one trial of its head, told bit by bit: a look without
    conversion adds what conversions are usually seen by then, F(age₂) − F(age₁); a conversion adds a success
    and the rest of the trial, 1 − F(looked at before), which makes good what the looks said against it. (As
    likelihood exp(s·z − n·log(1 + eᶻ)): what was added in parts is the whole, see `BayesianLogit`.)

    Attributes
    ----------
    heads, waiting:
        By name, see `libs.common.scoring.response.HEADS`: the models, and what they have yet to learn, which
        is less than a lot. What is known by now is in `settled`.
    slots:
        Effects of slots by head, see `SLOTS_FALL`; none where engaged is given: who has engaged has seen it,
        in whatever slot.
    engaging, converting:
        How long until a customer engages with an offer, and until he converts.
    caused, returned:
        What showing causes, and how much of what is sold comes back.
    refused:
        Lessons that teach nothing, by why.
    day:
        Journal day up to which data have faded.
    observer:
        Looks on, where there is one; no part of the state.
    """

    def __init__(self, parameters: ResponseParameters | None = None) -> None:
        self.parameters = parameters or ResponseParameters()
        logit = self.parameters.logit
        self.heads = {
            name: BayesianLogit(start_mean(name), start_deviation(), logit, _INTERCEPT, _BLOCKS)
            for name in HEADS
        }
        self.waiting: dict[str, list[Waiting]] = {name: [] for name in HEADS}
        self.slots = {name: SlotEffects(fall) for name, fall in SLOTS_FALL.items()}
        self.engaging, self.converting = Delays(), Delays()
        self.caused = Caused()
        self.returned = Returned()
        self.refused: Counter[str] = Counter()
        self.learned = 0
        """Lessons that changed something: what is published changes with it."""
        self.day = 0
        self.observer: Observer | None = None

    def learn_one(self, lesson: TrialLesson) -> None:
        """Take one lesson; what cannot be learned from is counted and changes no weight."""
        self._fade(lesson.at // DAY)
        if lesson.judged and _comparable(lesson):
            self.learned += 1
            self.caused.learn_one(lesson.placement, lesson.offer_kind, lesson.ghost, lesson.bought)
        self.learned += self.returned.learn_one(lesson)
        if lesson.ghost or lesson.step == "shown":
            return
        refused, x = _vector(lesson)
        if refused is not None:
            self.refused[refused] += 1
            if self.observer is not None:
                self.observer.refused(refused)
            return
        self.learned += 1
        seen = Seen(x, lesson.offer_id, lesson.cell)
        if self.observer is not None and lesson.judged:
            self.observer.judged(lesson, self._chance(lesson, seen))
        if lesson.step == "look":
            self._look(lesson, seen)
        elif lesson.step == "engaged":
            self._engaged(lesson, seen)
        elif lesson.step == "converted":
            self._converted(lesson, seen)
        elif lesson.step == "returned":
            self._observe(GIVEN if lesson.engaged else ALONE, lesson, seen, 0.0, 1.0)
        elif lesson.step == "declined":
            self._observe(ENGAGED, lesson, seen, 0.0, 1.0)

    def settled(self) -> dict[str, BayesianLogit]:
        """The heads with all that was told; this learner stays as it is."""
        heads = {}
        for name, head in self.heads.items():
            waiting = self.waiting[name]
            heads[name] = head.copy() if waiting else head
            if waiting:
                heads[name].learn_many([one.told for one in waiting])
        return heads

    def _chance(self, lesson: TrialLesson, seen: Seen) -> float:
        """q where it was shown: P(engaged) · P(converted | engaged) + P(converted, not engaged)."""
        engaged, given, alone = (
            expit(self.heads[name].predict_one(self._placed(name, lesson, seen))) for name in HEADS
        )
        return min(engaged * given + alone, 1.0)

    def _placed(self, head: str, lesson: TrialLesson, seen: Seen) -> Seen:
        """``seen`` with what is known of its slot."""
        slots = self.slots.get(head)
        return seen if slots is None else seen._replace(offset=slots.of(lesson.placement, lesson.rank))

    def _look(self, lesson: TrialLesson, seen: Seen) -> None:
        since, age = _age(lesson, lesson.age_from), _age(lesson, lesson.age_to)
        if age <= since:
            return
        self.converting.passed(lesson.placement, since, age)
        said = self.converting.seen(lesson.placement, age) - self.converting.seen(lesson.placement, since)
        if lesson.engaged:
            self._observe(GIVEN, lesson, seen, 0.0, said)
            return
        self._observe(ALONE, lesson, seen, 0.0, said)
        self.engaging.passed(lesson.placement, since, age)
        said = self.engaging.seen(lesson.placement, age) - self.engaging.seen(lesson.placement, since)
        self._observe(ENGAGED, lesson, seen, 0.0, said)

    def _engaged(self, lesson: TrialLesson, seen: Seen) -> None:
        """It is no trial without engagement any more, and one with it as far as looks have said no."""
        age = _age(lesson, lesson.age_to)
        looked = _looked(age)
        self._observe(ENGAGED, lesson, seen, 1.0, 1.0 - self.engaging.seen(lesson.placement, looked))
        self.engaging.event(lesson.placement, age)
        known = self.converting.seen(lesson.placement, looked)
        self._observe(ALONE, lesson, seen, 0.0, 1.0 - known)
        self._observe(GIVEN, lesson, seen, 0.0, known)

    def _converted(self, lesson: TrialLesson, seen: Seen) -> None:
        looked = _age(lesson, lesson.seen_to)
        rest = 1.0 - self.converting.seen(lesson.placement, looked)
        self._observe(GIVEN if lesson.engaged else ALONE, lesson, seen, 1.0, rest)
        if not lesson.engaged:
            # He bought without it: that is known to the end.
            self._observe(ENGAGED, lesson, seen, 0.0, 1.0 - self.engaging.seen(lesson.placement, looked))
        self.converting.event(lesson.placement, _age(lesson, lesson.age_to))

    def _observe(self, head: str, lesson: TrialLesson, seen: Seen, successes: float, trials: float) -> None:
        trials = min(max(trials, 0.0), 1.0)
        if successes <= 0.0 and trials <= 0.0:
            return
        waiting = self.waiting[head]
        waiting.append(Waiting(Told(self._placed(head, lesson, seen), successes, trials), lesson.offer_kind))
        if head in self.slots:
            self.slots[head].learn_one(lesson.placement, lesson.rank, lesson.swapped, successes, trials)
        if len(waiting) >= min(LOT, 1 + self.heads[head].seen // LOT_SHARE):
            self._settle(head)

    def _settle(self, name: str) -> None:
        """Let a head learn what waits."""
        waiting, head = self.waiting[name], self.heads[name]
        if not waiting:
            return
        told = [one.told for one in waiting]
        odds = head.learn_many(told)
        if self.observer is not None:
            before = np.array([one.seen.x for one in told]) @ head.start + [one.seen.offset for one in told]
            successes, trials = np.array([one[1:] for one in told]).T
            kinds = [one.kind for one in waiting]
            self.observer.observed(Observations(name, kinds, odds, before, successes, trials))
        waiting.clear()

    def _fade(self, day: int) -> None:
        """Learn what waits and let data grow old, at the turn of journal days: so it is the same wherever
        reads cut."""
        if self.day and day > self.day:
            for name in self.heads:
                self._settle(name)
            if self.parameters.half_life_days > 0.0:
                factor = math.exp2(-(day - self.day) / self.parameters.half_life_days)
                for head in self.heads.values():
                    head.fade(factor)
                for slots in self.slots.values():
                    slots.fade(factor)
                for counts in (self.engaging, self.converting, self.caused, self.returned):
                    counts.fade(factor)
        self.day = max(self.day, day)


def _comparable(lesson: TrialLesson) -> bool:
    """Whether a trial is one that could have been a ghost: one whose slot was drawn."""
    return lesson.ghost or (lesson.group == "treatment" and lesson.propensity < 1.0)


def _vector(lesson: TrialLesson) -> tuple[str | None, Floats]:
    """The features, or why there are none to learn from."""
    if lesson.feature_set != FEATURE_SET:
        return "feature_set", np.empty(0)
    try:
        x = lesson.features()
    except ValueError:
        return "features", np.empty(0)
    if len(x) != len(TRIAL_FEATURES):
        return "features", x
    # Trap: a NaN compares to nothing, so it is asked whether all are within, and not whether one is without.
    if not bool((np.abs(x) <= LIMIT).all()):
        return "not_finite", x
    if lesson.window <= 0:
        return "window", x
    return None, x


def _age(lesson: TrialLesson, age: int) -> float:
    return min(max(age / lesson.window, 0.0), 1.0)


def _looked(age: float) -> float:
    """The age of the last look before ``age``."""
    return max((end for end in AGES if end <= age), default=0.0)
