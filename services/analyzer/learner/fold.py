"""The fold: what the learner knows after all lessons up to a place, a pure function of their sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

from msgspec import Struct

from libs.common.clock import Millis
from libs.common.scoring.choice import FEATURE_SET as CHOICE_SET
from libs.common.scoring.trial import FEATURE_SET
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.choice import ChoiceLearner, ChoiceParameters
from services.analyzer.learner.goods import GoodsLearner, GoodsParameters
from services.analyzer.learner.responses import ResponseLearner, ResponseParameters
from services.analyzer.model.lessons import (
    BriefLesson,
    OrderBrief,
    OrderLesson,
    TrialLesson,
    decode_brief,
    decode_lesson,
)

AHEAD = 32
"""Lessons that are read before the first of them is learned."""


class Place(NamedTuple):
    """Where the fold stands in the canonical order: after the lesson with this second, number and part."""

    second: int = -1
    partition: int = -1
    number: int = -1
    part: int = 0


class Parameters(Struct, frozen=True, kw_only=True):
    """Everything that decides what the same lessons become; a checkpoint of others is not used.

    Parameters
    ----------
    version:
        Counts up when the code of the fold changes what it computes.
    features:
        Names of the columns that choices and trials are learned by.
    """

    version: int = 27
    features: str = f"{CHOICE_SET} {FEATURE_SET}"
    goods: GoodsParameters = GoodsParameters()
    choice: ChoiceParameters = ChoiceParameters()
    response: ResponseParameters = ResponseParameters()

    @classmethod
    def forgetting(cls, half_life_days: float) -> Parameters:
        """Those of a learner that was told after how many days a trial counts half."""
        return cls(response=ResponseParameters(half_life_days=half_life_days))


class Fold:
    """Learners side by side, which take the same lessons in one order.

    Equal lessons in equal order give an equal state to the bit, wherever the sequence was cut into reads,
    checkpoints and restarts, because `settle` comes before each lesson and after the last.

    Attributes
    ----------
    place:
        The last lesson folded.
    goods:
        How popular products are, and what goes with what.
    choice:
        Which candidates customers choose.
    response:
        What comes of offers that are shown.
    trials:
        How many offers were shown, ghosts left out.
    """

    def __init__(self, parameters: Parameters | None = None, catalogue: Catalogue | None = None) -> None:
        self.parameters = parameters or Parameters()
        self.place = Place()
        self.goods = GoodsLearner(self.parameters.goods)
        self.choice = ChoiceLearner(self.parameters.choice, catalogue or Catalogue())
        self.response = ResponseLearner(self.parameters.response)
        self.trials = 0

    def learn_one(self, place: Place, lesson: BriefLesson) -> None:
        """Fold the lesson at ``place``, which must come after the present one."""
        if place <= self.place:
            raise ValueError(f"lesson {place} does not come after {self.place}")
        self.place = place
        if isinstance(lesson, TrialLesson):
            self.trials += lesson.step == "shown" and not lesson.ghost
            self.response.learn_one(lesson)
        else:
            if isinstance(lesson, OrderBrief):
                # Trap: before it is counted, or the features would know what is to be foreseen.
                self.choice.learn_one(lesson, self.goods)
            self.goods.learn_one(lesson)

    def learn_many(
        self, rows: Iterable[tuple[Place, bytes]], settle: Callable[[Millis], object] | None = None
    ) -> None:
        """Fold encoded lessons in canonical order; ``settle`` is what to call in place of one's own."""
        settle = settle or self.settle
        coming = iter(rows)
        while some := list(islice(coming, AHEAD)):
            lessons = [self._read(body) for _, body in some]
            self.choice.expect(lessons)
            for (place, body), lesson in zip(some, lessons, strict=True):
                settle(lesson.at)
                # Trap: again, as what was foreseen of the panel hangs on where reads cut.
                self.learn_one(place, self._whole(lesson, body))
        self.choice.expect(())
        settle(self.goods.last_at)

    def _read(self, body: bytes) -> BriefLesson:
        """With what was known of who ordered, where it will probably be learned from."""
        return decode_lesson(body) if self.choice.asks_all else self._whole(decode_brief(body), body)

    def _whole(self, lesson: BriefLesson, body: bytes) -> BriefLesson:
        """With what was known of who ordered, where it would be learned from next."""
        if isinstance(lesson, OrderLesson) or not isinstance(lesson, OrderBrief):
            return lesson
        return decode_lesson(body) if self.choice.asks(lesson) else lesson

    def settle(self, now: Millis) -> None:
        """Do what falls due by ``now``, the journal time reached: a solve, which the fold waits for."""
        at = self.goods.due(now)
        if at is not None:
            self.goods.accept(self.goods.solve(at), at)
