"""What is learned about choices: which of the candidates of the moment a customer's order held."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_model import Decayed, Item
from libs.common.contracts.identity import CustomerKey
from libs.common.scoring.choice import FEATURES, START
from libs.common.scoring.decay import added
from libs.common.scoring.features import Moment, ScoringTables, features_of, scenes_of
from libs.common.scoring.history import History, Traces, histories_of
from libs.common.scoring.sources.look import NONE, Look
from libs.common.scoring.sources.union import candidates_of
from services.analyzer.learner.arrays import packed, unpacked
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.firsts import FirstPurchases, FirstsState
from services.analyzer.learner.goods import GoodsLearner
from services.analyzer.learner.honest import Honest
from services.analyzer.learner.multinomial import ConditionalLogit
from services.analyzer.learner.occasions import OccasionCounts, OccasionsState
from services.analyzer.learner.tables import Tables, TablesState
from services.analyzer.model.lessons import BriefLesson, OrderBrief, OrderLesson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SCALE = 0.5
"""Spread of a feature among alternatives before any was seen."""
MOST_LOSSES = 10_000
TOGETHER = 15
"""Questions of so many further orders are made with that of one."""
_GAINS = 1.0 / np.log2(np.arange(10) + 2.0)


class ChoiceParameters(Struct, frozen=True, kw_only=True):
    """How choices are learned.

    Parameters
    ----------
    panel, panel_half_life:
        All orders are learned from while their decayed number (half-life in ms of journal time) is at most
        ``panel``, which is about 2,500 a day; of more, that many. Which ones, a hash of their ids decides.
    young, share:
        After ``young`` orders that were learned from, this share is asked, and all discoveries, which are few
        and slow to learn: most of what the weights learn is learned by then, and a question is most of what
        an order costs. First purchases are counted of the others too.
    top, top_discoveries:
        So many candidates, the best of the model's own ranking, are the alternatives: of discoveries more,
        because the model's own best ten hold few of them.
    given, discoveries:
        Shares of orders that are learned from with a part of them in the basket, and with all hidden that
        the customer ever bought.
    doubt, memory:
        See `ConditionalLogit`.
    half_life_occasions:
        Of the counts by hour, channel and size, in ms of event time.
    """

    panel: float = 600.0
    panel_half_life: Millis = DAY // 6
    young: int = 2_000
    share: float = 0.5
    top: int = 10
    top_discoveries: int = 30
    given: float = 0.4
    discoveries: float = 0.2
    doubt: float = 0.5
    memory: float = 5_000.0
    half_life_occasions: Millis = 180 * DAY


Kind = Literal["next", "rest", "discovery"]
"""What is asked of an order: what is bought, what else, what that was never bought before."""


class Draw(NamedTuple):
    """What becomes of an order: it is in the panel where ``share`` in [0, 1) is small enough."""

    share: float
    kind: Kind
    seed: bytes


class Exercise(NamedTuple):
    """An order as a question: what is known, and which of the candidates (m,) were bought.

    ``bought`` counts all products of the order that could have been candidates; ``had`` are the shelf
    positions of what its customer had bought before.
    """

    x: Floats
    chosen: NDArray[np.bool_]
    bought: int
    had: Ints


class Made(NamedTuple):
    """A question that was made with others before its order came."""

    lesson: OrderLesson
    tables: ScoringTables
    exercise: Exercise


class ChoiceState(Struct, frozen=True, kw_only=True):
    """Everything the learner knows, arrays as bytes of ``<f8``."""

    mean: bytes
    information: bytes
    variance: bytes
    seen: bytes
    samples: int
    pace: Decayed
    honest: Honest
    tables: TablesState
    firsts: FirstsState
    occasions: OccasionsState


class ChoiceLearner:
    """A `ConditionalLogit` over `candidate_features`, learned test-then-train from a panel of orders.

    Attributes
    ----------
    pace:
        Decayed number of orders, in journal time.
    firsts:
        How often products are bought for the first time.
    occasions:
        What is bought at which hour, by which channel, and in orders of which size.
    losses:
        The latest losses, for whoever watches them; no part of what is known.
    """

    def __init__(self, parameters: ChoiceParameters, catalogue: Catalogue) -> None:
        self.parameters = parameters
        self.logit = ConditionalLogit(
            START.weights,
            np.full(len(FEATURES), SCALE),
            parameters.doubt,
            parameters.memory,
        )
        self.pace = Decayed()
        self.honest = Honest()
        self.losses: deque[float] = deque(maxlen=MOST_LOSSES)
        self.tables = Tables(catalogue)
        self._coming: deque[OrderLesson] = deque()
        self._made: deque[Made] = deque()
        self.firsts = FirstPurchases()
        self.occasions = OccasionCounts(parameters.half_life_occasions)

    @property
    def asks_all(self) -> bool:
        """Whether the next order is in the panel whatever it is."""
        return self.pace.weight + 1.0 <= self.parameters.panel

    def asks(self, lesson: OrderBrief) -> bool:
        """Whether the next order is in the panel, so that what was known before it is needed."""
        pace = added(self.pace, 1.0, lesson.at, self.parameters.panel_half_life)
        return draw_of(lesson, self.parameters).share * pace.weight < self.parameters.panel

    def learn_one(self, lesson: OrderBrief, goods: GoodsLearner) -> None:
        """Learn from an order what ``goods``, which have not counted it yet, would not have foreseen."""
        asks = self.asks(lesson)
        self.pace = added(self.pace, 1.0, lesson.at, self.parameters.panel_half_life)
        if not asks or not isinstance(lesson, OrderLesson) or lesson.before is None or not lesson.lines:
            return
        draw = draw_of(lesson, self.parameters)
        tables = self.tables.now(goods, self.firsts, self.occasions)
        if tables is None:
            return
        exercise = self._ask(tables, lesson, draw)
        had = had_of(tables, lesson) if exercise is None else exercise.had
        self.firsts.learn_one(lesson, tables.shelf, had)
        self.occasions.learn_one(lesson, tables.shelf)

    def expect(self, lessons: Iterable[BriefLesson]) -> None:
        """Say which lessons will come next: questions of orders are made together, and are the same."""
        self._coming = deque(one for one in lessons if isinstance(one, OrderLesson))
        self._made.clear()

    def _ask(self, tables: ScoringTables, lesson: OrderLesson, draw: Draw) -> Exercise | None:
        if not self._speaks(lesson, draw):
            return None
        # What is no number stays none until the features are checked, where it is passed over in silence.
        with np.errstate(all="ignore"):
            exercise = self._exercise(tables, lesson, draw)
            if len(exercise.x):
                self._learn(exercise, draw.kind)
        return exercise

    def _speaks(self, lesson: OrderLesson, draw: Draw) -> bool:
        """Whether an order of the panel is a question: what is none by now will not be one later."""
        if lesson.before is None or not lesson.lines:
            return False
        if draw.kind == "discovery":
            return _discovers(lesson)
        return self.logit.samples < self.parameters.young or draw.share < self.parameters.share

    def _exercise(self, tables: ScoringTables, lesson: OrderLesson, draw: Draw) -> Exercise:
        """The question of an order; with it are made those of the next ones that will see the same tables."""
        while self._made:
            made = self._made.popleft()
            if made.lesson is lesson and made.tables is tables:
                return made.exercise
        while self._coming and self._coming.popleft() is not lesson:
            pass
        drawn = ((one, draw_of(one, self.parameters)) for one in self._coming if one.at < self.tables.until)
        further = (one for one in drawn if self._speaks(*one))
        asked = [(lesson, draw), *islice(further, TOGETHER)]
        found = [
            Made(one, tables, exercise)
            for (one, _), exercise in zip(asked, exercises_of(tables, asked), strict=True)
        ]
        self._made = deque(found[1:])
        return found[0].exercise

    def state(self) -> ChoiceState:
        logit = self.logit
        return ChoiceState(
            mean=packed(logit.mean),
            information=packed(logit.information),
            variance=packed(logit.variance),
            seen=packed(logit.seen),
            samples=logit.samples,
            pace=self.pace,
            honest=self.honest,
            tables=self.tables.state,
            firsts=self.firsts.state(),
            occasions=self.occasions.state(),
        )

    def restore(self, saved: ChoiceState) -> None:
        """Put this learner, which is new, where it was when it was ``saved``."""
        logit, size = self.logit, len(FEATURES)
        logit.mean, logit.variance, logit.seen = (
            unpacked(array) for array in (saved.mean, saved.variance, saved.seen)
        )
        logit.information = unpacked(saved.information).reshape(size, size)
        logit.samples = saved.samples
        self.pace, self.honest = saved.pace, saved.honest
        self.tables.restore(saved.tables)
        self.firsts.restore(saved.firsts)
        self.occasions.restore(saved.occasions)

    def _learn(self, exercise: Exercise, kind: Kind) -> None:
        top = self.parameters.top_discoveries if kind == "discovery" else self.parameters.top
        best = (-(exercise.x @ self.logit.mean)).argsort(kind="stable")[:top]
        x, chosen = exercise.x[best], exercise.chosen[best]
        chance = self.logit.predict_one(x)
        learned = self.logit.learn_one(x, chosen)
        if kind != "next" or not exercise.bought:
            return
        if learned:
            loss = _loss(chance, chosen)
            self.losses.append(loss)
            self.honest = self.honest.lost(loss, _loss(START.probabilities(x), chosen))
        gained = float(_GAINS[: len(chosen)] @ chosen[: len(_GAINS)])
        self.honest = self.honest.ranked(gained / float(_GAINS[: exercise.bought].sum()))


class Question(NamedTuple):
    """What was bought (by id), what had been before, what may be named (n,), and what was in sight."""

    lines: list[str]
    had: Ints
    open: NDArray[np.bool_]
    page: str | None
    basket: Sequence[str]
    channel: str


def exercises_of(tables: ScoringTables, asked: Sequence[tuple[OrderLesson, Draw]]) -> list[Exercise]:
    """The question each order answers, by itself: candidates and features as if asked before it came."""
    index = tables.shelf.index
    known = [(Traces.of(tables, _before(lesson)), lesson.occurred_at) for lesson, _ in asked]
    pasts = histories_of(tables, known)
    questions = [_question(tables, past, *one) for past, one in zip(pasts, asked, strict=True)]
    scenes = scenes_of(
        tables,
        [Moment(past, one.page, one.basket, one.channel) for past, one in zip(pasts, questions, strict=True)],
    )
    looks = [
        (Look(scene, one.open, one.page, one.basket), NONE)
        for scene, one in zip(scenes, questions, strict=True)
    ]
    found = [one.positions for one in candidates_of(looks)]
    made = []
    for question, positions, x in zip(
        questions, found, features_of(list(zip(scenes, found, strict=True))), strict=True
    ):
        bought = np.zeros(len(tables.shelf), dtype=np.bool_)
        bought[[index[key] for key in question.lines]] = True
        bought &= question.open
        had = question.had
        made.append(Exercise(x, bought[positions], int(np.count_nonzero(bought)), had))
    return made


def _question(tables: ScoringTables, past: History, lesson: OrderLesson, draw: Draw) -> Question:
    index = tables.shelf.index
    lines = [key for key in dict.fromkeys(line.product_id for line in lesson.lines) if key in index]
    given = _given(lines, draw) if draw.kind == "rest" else []
    open_ = np.ones(len(tables.shelf), dtype=np.bool_)
    open_[[index[key] for key in given]] = False
    had = (past.times > 0.0).nonzero()[0]
    if draw.kind == "discovery":
        open_[had] = False
    # One product may as well be looked at as be in the basket: so the weight of a page is learned too.
    page, basket = (given[0], ()) if len(given) == 1 else (None, given)
    return Question(lines, had, open_, page, basket, lesson.channel)


def had_of(tables: ScoringTables, lesson: OrderLesson) -> Ints:
    """Shelf positions of what the customer of an order had bought before."""
    find = tables.shelf.index.get
    found = [find(key, -1) for key, item in _before(lesson).items() if item.orders]
    return np.array([place for place in found if place >= 0], dtype=np.int64)


def _before(lesson: OrderLesson) -> Mapping[str, Item]:
    assert lesson.before is not None
    return lesson.before.items


def _discovers(lesson: OrderLesson) -> bool:
    """Whether something was bought for the first time: with all else hidden there is else nothing to ask."""
    known = _before(lesson)
    return any(line.product_id not in known or not known[line.product_id].orders for line in lesson.lines)


def _given(lines: list[str], draw: Draw) -> list[str]:
    """Half of an order, chosen by hash."""
    if len(lines) < 2:
        return []
    key = draw.seed
    shuffled = sorted(lines, key=lambda line: blake2b(_bytes(line), digest_size=8, key=key).digest())
    return shuffled[: len(lines) // 2]


def draw_of(lesson: OrderBrief, parameters: ChoiceParameters) -> Draw:
    """Drawn by hash, so that it follows from the order's id alone."""
    mark = _mark(lesson.customer, lesson.order_id)
    share, kind = (int.from_bytes(part, "big") / 2.0**64 for part in (mark[:8], mark[8:16]))
    if kind < parameters.given:
        return Draw(share, "rest", mark[16:])
    return Draw(share, "discovery" if kind < parameters.given + parameters.discoveries else "next", mark[16:])


@lru_cache(1)
def _mark(customer: CustomerKey, order_id: str) -> bytes:
    """Who folds an order asks for its draw before and after it was read."""
    return blake2b(_bytes(customer) + b"/" + _bytes(order_id), digest_size=24).digest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _loss(chance: Floats, chosen: NDArray[np.bool_]) -> float:
    return -float(np.log(np.maximum(chance[chosen], 1e-12)).mean())
