"""Online Bayesian logistic regression: full precision over the features, an intercept per offer beside them.

After each observation the posterior is a Gaussian again, its mode and curvature those of the exact posterior
along the one direction that the observation speaks about (Spiegelhalter & Lauritzen 1990; with weights as in
Chapelle & Li 2011, but with the whole covariance). Intercepts keep no covariance with the rest: each gets the
part of a step that its own uncertainty is of the whole (decoupled Kalman filter, Puskorius & Feldkamp 1991).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from libs.common.scoring.response import CELL_VARIANCE, OFFER_VARIANCE
from services.analyzer.learner.effects import MOST_VARIANCE, EffectParameters, Effects, expit, mode

Floats = NDArray[np.float64]


class LogitParameters(Struct, frozen=True, kw_only=True):
    """Bounds and priors of a `BayesianLogit`.

    Parameters
    ----------
    offers, cells:
        Of the intercepts of offers, and of cells of offers that are alike.
    slot_deviation, most_slots:
        Prior standard deviation of an indicator's weight, and how many there may be.
    spread_weight:
        How many known weights the first belief about the spread of a block of weights is worth.
    revise_first, revise_every:
        Observations before the first look at how far intercepts and weights lie apart, and at most between
        two of them (unless there are more offers than that); in the beginning they double.
    """

    offers: EffectParameters = EffectParameters(variance=OFFER_VARIANCE)
    cells: EffectParameters = EffectParameters(variance=CELL_VARIANCE)
    slot_deviation: float = 0.7
    most_slots: int = 96
    spread_weight: float = 0.2
    revise_first: int = 50
    revise_every: int = 500


class Seen(NamedTuple):
    """What was observed of: features (d,), the offer, its cell, and the slot where that matters."""

    x: Floats
    offer: str
    cell: int = 0
    slot: str | None = None


class BayesianLogit:
    """P(success) = σ(x·w + slot + offer + cell).

    Parameters
    ----------
    mean, deviation:
        Prior of the weights (d,): means and standard deviations.
    intercept:
        The column that is always 1.
    blocks:
        Columns whose weights are alike: each block learns how far they may lie from their prior means. Of
        columns in none that stays what it was.

    Attributes
    ----------
    precision:
        Of the prior as it is by now (d,).
    mean, covariance:
        Of the posterior, (d + slots,) and squared; slots are indicators that came to be known.
    slots:
        The column of each.
    seen, revised:
        Observations so far, and at the latest look at how far intercepts lie apart.
    """

    def __init__(
        self,
        mean: Floats,
        deviation: Floats,
        parameters: LogitParameters | None = None,
        intercept: int = 0,
        blocks: Sequence[Sequence[int]] = (),
    ) -> None:
        self.parameters = parameters or LogitParameters()
        self.intercept = intercept
        self.blocks = [list(block) for block in blocks]
        self.size = len(mean)
        self.start = np.array(mean, dtype=np.float64)
        self._first: Floats = np.square(np.asarray(deviation, dtype=np.float64))
        self.precision: Floats = 1.0 / self._first
        self.mean: Floats = self.start.copy()
        self.covariance: Floats = np.diag(np.square(np.asarray(deviation, dtype=np.float64)))
        self.slots: dict[str, int] = {}
        self.offers: Effects[str] = Effects(self.parameters.offers)
        self.cells: Effects[int] = Effects(self.parameters.cells)
        self.seen = self.revised = 0

    def predict_one(self, seen: Seen) -> float:
        """Log odds at the mean of the posterior."""
        odds = (
            float(seen.x @ self.mean[: self.size])
            + self.offers.of(seen.offer)[0]
            + self.cells.of(seen.cell)[0]
        )
        column = self.slots.get(seen.slot) if seen.slot is not None else None
        return odds if column is None else odds + float(self.mean[column])

    def spread_one(self, seen: Seen) -> float:
        """Standard deviation of the log odds."""
        variance = self._along(seen)[1] + self.offers.of(seen.offer)[1] + self.cells.of(seen.cell)[1]
        return math.sqrt(variance)

    def learn_one(self, seen: Seen, successes: float, trials: float) -> None:
        """Take ``successes`` (0 or 1) of ``trials`` (0 to 1): the likelihood exp(s·z − n·log(1 + eᶻ)).

        What is not yet known of a trial is left out of ``trials``, and added when it is.
        """
        if successes <= 0.0 and trials <= 0.0:
            return
        self._know(seen.slot)
        direction, spread = self._along(seen)
        offer, offer_variance = self.offers.of(seen.offer)
        cell, cell_variance = self.cells.of(seen.cell)
        whole = spread + offer_variance + cell_variance
        before = self.predict_one(seen)
        after = mode(before, whole, successes, trials)
        step = (after - before) / whole
        chance = expit(after)
        curvature = trials * chance * (1.0 - chance)
        self.mean += step * direction
        self.covariance -= np.outer(direction, direction * (curvature / (1.0 + curvature * whole)))
        self.offers.learn_one(seen.offer, successes, trials, trials * expit(before - offer))
        self.cells.learn_one(seen.cell, successes, trials, trials * expit(before - cell))
        self.seen += 1
        if self.seen - self.revised >= self._pause():
            self.revised = self.seen
            self.mean[self.intercept] += self.offers.revise() + self.cells.revise()
            self._spread()

    def fade(self, factor: float) -> None:
        """Let all data count ``factor`` of what it did: the posterior goes back towards the prior.

        (Power discounting, West & Harrison 1997, towards what was believed first and not towards nothing.)
        """
        self._weigh(factor, (1.0 - factor) * self._prior()[1])
        self.offers.fade(factor)
        self.cells.fade(factor)

    def _pause(self) -> int:
        """Observations between two looks at how far things lie apart; all offers are looked at then."""
        few = min(max(self.revised, self.parameters.revise_first), self.parameters.revise_every)
        return max(few, len(self.offers.keys))

    def _spread(self) -> None:
        """Learn from how far weights lie from their prior means how far they may.

        Each weight counts as far as data and not the prior determine it (MacKay 1992).
        """
        if not self.blocks:
            return
        known = 1.0 - np.diag(self.covariance)[: self.size] * self.precision
        apart = (self.mean[: self.size] - self.start) ** 2
        variance = 1.0 / self.precision
        weight = self.parameters.spread_weight
        for block in self.blocks:
            first = self._first[block]
            # In units of what was believed first, of which the columns of a block may have their own.
            scale = (weight + (apart[block] / first).sum()) / (weight + np.clip(known[block], 0.0, 1.0).sum())
            variance[block] = np.minimum(first * max(scale, 1.0), MOST_VARIANCE)
        before, self.precision = self.precision, 1.0 / variance
        self._weigh(1.0, np.append(self.precision - before, np.zeros(len(self.slots))))

    def _weigh(self, factor: float, more: Floats) -> None:
        """Let prior and data count ``factor``, and the prior ``more`` precision (d + slots,) beside it."""
        start = self._prior()[0]
        said = np.linalg.inv(self.covariance)
        pull = factor * (said @ (self.mean - start))
        said *= factor
        said[np.diag_indices_from(said)] += more
        covariance = np.linalg.inv(said)
        # Trap: one layout in memory always, or a restored state would be multiplied in another sequence.
        self.covariance = np.ascontiguousarray(0.5 * (covariance + covariance.T))
        self.mean = start + self.covariance @ pull

    def root(self) -> Floats:
        """Lower triangular root (d, d) of the covariance of the features' weights."""
        inner = self.covariance[: self.size, : self.size]
        return np.asarray(np.linalg.cholesky(0.5 * (inner + inner.T)))

    def _along(self, seen: Seen) -> tuple[Floats, float]:
        """Covariance · x, and x · covariance · x."""
        direction = self.covariance[:, : self.size] @ seen.x
        column = self.slots.get(seen.slot) if seen.slot is not None else None
        if column is not None:
            direction += self.covariance[:, column]
        spread = float(seen.x @ direction[: self.size])
        if column is not None:
            spread += float(direction[column])
        return direction, max(spread, 0.0)

    def _know(self, slot: str | None) -> None:
        if slot is None or slot in self.slots or len(self.slots) >= self.parameters.most_slots:
            return
        size = len(self.mean)
        self.slots[slot] = size
        self.mean = np.append(self.mean, 0.0)
        covariance = np.zeros((size + 1, size + 1))
        covariance[:size, :size] = self.covariance
        covariance[size, size] = self.parameters.slot_deviation**2
        self.covariance = covariance

    def _prior(self) -> tuple[Floats, Floats]:
        slots = len(self.slots)
        return (
            np.concatenate((self.start, np.zeros(slots))),
            np.concatenate((self.precision, np.full(slots, self.parameters.slot_deviation**-2))),
        )


def slot_odds(model: BayesianLogit, names: Sequence[str]) -> list[float]:
    """Odds of each slot beside the first; 1 where nothing is known."""
    return [math.exp(float(model.mean[model.slots[name]])) if name in model.slots else 1.0 for name in names]
