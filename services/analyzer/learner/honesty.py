"""How well the response model knows what it says: figures of what it said before the outcome was learned.

It looks on and changes nothing: no part of what is learned, published or kept in a checkpoint, so it begins
anew with each process.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from libs.common.contracts.catalogue import KINDS
from libs.common.scoring.response import HEADS
from services.analyzer.learner.metrics import LearnerMetrics
from services.analyzer.learner.responses import Observations
from services.analyzer.model.lessons import TrialLesson

Floats = NDArray[np.float64]

HALF_LIFE = 1_000.0
"""Trials after which a running mean has half forgotten one."""

JUDGED = 5_000
"""Latest trials that the area under the curve is of."""

FEW = 50.0
"""Before as many no loss is told: it would be noise, and compared with the prior's it would be an alarm."""

LEAST_CHANCE = 1e-9


class _Losses:
    """Running means of what was said and of what the prior would have said about the same."""

    def __init__(self) -> None:
        self.weight = self.said = self.before = 0.0

    def add(self, said: float, before: float, weight: float = 1.0) -> None:
        """Losses of ``weight`` trials together."""
        kept = 0.5 ** (weight / HALF_LIFE)
        self.weight = kept * self.weight + weight
        self.said = kept * self.said + said
        self.before = kept * self.before + before

    def means(self) -> tuple[float, float] | None:
        return None if self.weight < FEW else (self.said / self.weight, self.before / self.weight)


class _Drift:
    """Alarms where losses are no longer what they were, and higher.

    ADWIN (Bifet & Gavaldà 2007): the window of losses is cut where its parts differ. It needs no scale: where
    one trial in a thousand converts a loss is a hundredth of what it is where one in five does.
    """

    def __init__(self) -> None:
        self._detector = ADWIN(delta=0.002)

    def alarms(self, loss: float) -> bool:
        """Whether ``loss``, the next in sequence, raises an alarm."""
        before = self._detector.estimation
        self._detector.update(loss)
        # A loss that falls is a model that learns.
        return bool(self._detector.drift_detected and self._detector.estimation > before)


class Honesty:
    """Shows losses, calibration, order (AUC) and drift; implements `responses.Observer`."""

    def __init__(self, metrics: LearnerMetrics) -> None:
        self._metrics = metrics
        self._heads = {head: _Losses() for head in HEADS}
        self._drift = _Drift()
        self._chances, self._bought = np.zeros(JUDGED), np.zeros(JUDGED, dtype=np.bool_)
        self._judged = 0

    def observed(self, observations: Observations) -> None:
        """A head was told parts of trials, and of some that they succeeded."""
        head, kinds, odds, before, successes, trials = observations
        sound = np.isfinite(odds) & np.isfinite(before)
        odds, before = np.where(sound, odds, 0.0), np.where(sound, before, 0.0)
        successes, trials = np.where(sound, successes, 0.0), np.where(sound, trials, 0.0)
        # −log of exp(s·z − n·log(1 + eᶻ)), the likelihood the head is fitted by.
        loss, prior = (
            float(trials @ np.logaddexp(0.0, given) - successes @ given) for given in (odds, before)
        )
        self._heads[head].add(loss, prior, float(trials.sum()))
        # Clicks are no conversions; of the other two heads each conversion is told to one.
        if head != HEADS[0]:
            expected = trials * (0.5 + 0.5 * np.tanh(0.5 * odds))
            for kind in {*kinds}.intersection(KINDS):
                mine = np.array([one == kind for one in kinds])
                self._metrics.expected.add(float(expected[mine].sum()), kind)
                self._metrics.seen.add(float(successes[mine].sum()), kind)

    def judged(self, lesson: TrialLesson, chance: float) -> None:
        """A trial that was given ``chance`` is at its end."""
        if not math.isfinite(chance):
            return
        place = self._judged % JUDGED
        self._chances[place], self._bought[place] = chance, lesson.bought
        self._judged += 1
        said = min(max(chance if lesson.bought else 1.0 - chance, LEAST_CHANCE), 1.0)
        if self._drift.alarms(-math.log(said)):
            self._metrics.drift.add(1, "response")

    def refused(self, why: str) -> None:
        """A lesson of a trial taught nothing."""
        self._metrics.refused.add(1, "response", why)

    def compare(self, model: str, said: float, before: float) -> None:
        """Show what learning made of the loss ``before`` any; of the choice model, that of both is known."""
        if before > 0.0:
            self._metrics.gain.set(1.0 - said / before, model)

    def show(self, caused: dict[str, float]) -> None:
        """Bring the gauges up to date; ``caused`` is κ by kind."""
        for head, losses in self._heads.items():
            if (means := losses.means()) is not None:
                self._metrics.response_loss.set(means[0], head)
                self.compare(head, *means)
        count = min(self._judged, JUDGED)
        area = auc(self._chances[:count].copy(), self._bought[:count].copy())
        if area is not None:
            self._metrics.auc.set(area, "response")
        for kind, share in caused.items():
            self._metrics.caused.set(share, kind)


def auc(chances: Floats, bought: NDArray[np.bool_]) -> float | None:
    """Share of pairs of a bought and an unbought that the chances put in order, ties counted half.

    Mann and Whitney (1947). None while one of both is missing.
    """
    positive = int(np.count_nonzero(bought))
    negative = len(bought) - positive
    if not positive or not negative:
        return None
    _, place, counts = np.unique(chances, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2.0)[place]
    above = float(ranks[bought].sum()) - positive * (positive + 1) / 2.0
    return above / (positive * negative)
