"""Online Bayesian logistic regression: full precision over the features, an intercept per offer beside them.

After each observation the posterior is a Gaussian again, its mode and curvature those of the exact posterior
along the one direction that the observation speaks about (Spiegelhalter & Lauritzen 1990; with weights as in
Chapelle & Li 2011, but with the whole covariance). Intercepts keep no covariance with the rest: each gets the
part of a step that its own uncertainty is of the whole (decoupled Kalman filter, Puskorius & Feldkamp 1991).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from libs.common.scoring.response import CELL_VARIANCE, OFFER_VARIANCE

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

CERTAIN = 20.0
"""Odds do not grow beyond e²⁰ to one, whatever is told."""
MOST_VARIANCE = 4.0
"""Of intercepts: odds of 1 to 50 either way."""
_STEPS = 40
_CLOSE = 1e-10
_FAR = 700.0
_LEAST = 1e-12
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)


class EffectParameters(Struct, frozen=True, kw_only=True):
    """How intercepts differ before any is known: their variance, and how many that is worth."""

    variance: float
    weight: float = 4.0
    most: int = 10_000


class Effects(Generic[Key]):
    """Intercepts about 0 whose common variance is learned: a random effect, revised by expectation
    maximisation (Dempster, Laird & Rubin 1977).

    Of each is kept what a binomial needs: trials, successes, and how many were expected without it. That
    fits rare successes better than Gaussians one upon the other, and a new variance weighs it all anew.

    Attributes
    ----------
    variance:
        Of an intercept nothing is known of.
    keys, index:
        Keys by row, and the row of each.
    trials, expected, successes:
        By row.
    """

    def __init__(self, parameters: EffectParameters) -> None:
        self.parameters = parameters
        self.variance = parameters.variance
        self.keys: list[Key] = []
        self.index: dict[Key, int] = {}
        self.trials: list[float] = []
        self.expected: list[float] = []
        self.successes: list[float] = []
        self._held: dict[Key, tuple[float, float]] = {}

    def of(self, key: Key) -> tuple[float, float]:
        """Mean and variance of the posterior, roughly: its mode and curvature. `arrays` has it exactly."""
        held = self._held.get(key)
        if held is not None:
            return held
        row = self.index.get(key)
        if row is None or self.variance <= 0.0:
            return 0.0, self.variance
        trials = self.trials[row]
        base = _logit(self.expected[row] / trials) if trials > 0.0 else 0.0
        # Trap: of successes alone, without the trials they are of, odds would grow without end.
        trials = max(trials, self.successes[row])
        odds = mode(base, self.variance, self.successes[row], trials)
        chance = expit(odds)
        held = odds - base, 1.0 / (1.0 / self.variance + trials * chance * (1.0 - chance))
        self._held[key] = held
        return held

    def arrays(self) -> tuple[Floats, Floats]:
        """Means and variances (n,) by row, by Gauss-Hermite quadrature about the mode (Naylor & Smith 1982):
        where successes are rare, the posterior is far from symmetric."""
        if not self.keys or self.variance <= 0.0:
            return np.zeros(len(self.keys)), np.full(len(self.keys), self.variance)
        trials, expected = np.array(self.trials), np.array(self.expected)
        share = np.clip(expected / np.maximum(trials, 1e-12), _LEAST, 1.0 - _LEAST)
        base = np.where(trials > 0.0, np.log(share / (1.0 - share)), 0.0)
        successes = np.array(self.successes)
        mean, variance = moments(base, self.variance, successes, np.maximum(trials, successes))
        return mean - base, variance

    def learn_one(self, key: Key, successes: float, trials: float, expected: float) -> None:
        """Take what happened with ``key``, and what was expected of all else."""
        if self.variance <= 0.0:
            return
        row = self.index.get(key)
        if row is None:
            if len(self.keys) >= self.parameters.most:
                self._forget()
            row = self.index[key] = len(self.keys)
            self.keys.append(key)
            for numbers in (self.trials, self.expected, self.successes):
                numbers.append(0.0)
        self.trials[row] += trials
        self.expected[row] += expected
        self.successes[row] += successes
        self._held.pop(key, None)

    def revise(self) -> float:
        """Learn from how far intercepts lie apart how far they may; returns what all have in common.

        That belongs to the intercept of all and is taken out here. (Steps that share among blocks alone
        hardly ever move it: hierarchical centring, Gelfand, Sahu & Carlin 1995.)
        """
        if not self.keys or self.variance <= 0.0:
            return 0.0
        mean, variance = self.arrays()
        weight = self.parameters.weight
        common = float(mean.sum()) / (weight + len(mean))
        said = float(((mean - common) ** 2 + variance).sum())
        self.variance = min((weight * self.parameters.variance + said) / (weight + len(mean)), MOST_VARIANCE)
        for row, trials in enumerate(self.trials):
            if trials > 0.0:
                self.expected[row] = trials * expit(_logit(self.expected[row] / trials) + common)
        self._held.clear()
        return common

    def fade(self, factor: float) -> None:
        """Let data count ``factor`` of what it did."""
        self.trials = [factor * number for number in self.trials]
        self.expected = [factor * number for number in self.expected]
        self.successes = [factor * number for number in self.successes]
        self._held.clear()

    def _forget(self) -> None:
        """Leave out the fifth that was tried least."""
        order = np.lexsort((np.arange(len(self.keys)), -np.array(self.trials)))
        kept = np.sort(order[: self.parameters.most * 4 // 5]).tolist()
        self.keys = [self.keys[row] for row in kept]
        self.trials = [self.trials[row] for row in kept]
        self.expected = [self.expected[row] for row in kept]
        self.successes = [self.successes[row] for row in kept]
        self.index = {key: row for row, key in enumerate(self.keys)}
        self._held.clear()


class LogitParameters(Struct, frozen=True, kw_only=True):
    """Bounds and priors of a `BayesianLogit`.

    Parameters
    ----------
    offers, cells:
        Of the intercepts of offers, and of cells of offers that are alike.
    slot_deviation, most_slots:
        Prior standard deviation of an indicator's weight, and how many there may be.
    revise_every:
        Observations between two looks at how far intercepts lie apart, at least.
    """

    offers: EffectParameters = EffectParameters(variance=OFFER_VARIANCE)
    cells: EffectParameters = EffectParameters(variance=CELL_VARIANCE)
    slot_deviation: float = 0.7
    most_slots: int = 96
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

    Attributes
    ----------
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
    ) -> None:
        self.parameters = parameters or LogitParameters()
        self.intercept = intercept
        self.size = len(mean)
        self.start = np.array(mean, dtype=np.float64)
        self.precision = np.asarray(1.0 / np.square(deviation))
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
        # Every intercept is looked at then: the more there are, the less often.
        if self.seen - self.revised >= max(self.parameters.revise_every, 4 * len(self.offers.keys)):
            self.revised = self.seen
            self.mean[self.intercept] += self.offers.revise() + self.cells.revise()

    def fade(self, factor: float) -> None:
        """Let all data count ``factor`` of what it did: the posterior goes back towards the prior.

        (Power discounting, West & Harrison 1997, towards what was believed first and not towards nothing.)
        """
        start, prior = self._prior()
        said = np.linalg.inv(self.covariance)
        pull = factor * (said @ (self.mean - start))
        said *= factor
        said[np.diag_indices_from(said)] += (1.0 - factor) * prior
        covariance = np.linalg.inv(said)
        # Trap: one layout in memory always, or a restored state would be multiplied in another sequence.
        self.covariance = np.ascontiguousarray(0.5 * (covariance + covariance.T))
        self.mean = start + self.covariance @ pull
        self.offers.fade(factor)
        self.cells.fade(factor)

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


def mode(before: float, variance: float, successes: float, trials: float) -> float:
    """The mode of N(before, variance) · exp(s·z − n·log(1 + eᶻ)), a concave function of z: Newton's steps, by
    halves where they leave the bracket."""
    low = max(before - variance * trials, min(before, -CERTAIN))
    high = min(before + variance * successes, max(before, CERTAIN))
    z = min(max(before, low), high)
    for _ in range(_STEPS):
        chance = expit(z)
        slope = z - before - variance * (successes - trials * chance)
        if slope > 0.0:
            high = z
        else:
            low = z
        following = z - slope / (1.0 + variance * trials * chance * (1.0 - chance))
        if not low <= following <= high:
            following = 0.5 * (low + high)
        if abs(following - z) <= _CLOSE * (1.0 + abs(z)):
            return following
        z = following
    return z


def moments(before: Floats, variance: float, successes: Floats, trials: Floats) -> tuple[Floats, Floats]:
    """Means and variances (n,) of what `mode` gives the modes of."""
    low, high = before - variance * trials, before + variance * successes
    top = np.clip(before, low, high)
    for _ in range(_STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(top, -_FAR, _FAR)))
        slope = top - before - variance * (successes - trials * chance)
        high, low = np.where(slope > 0.0, top, high), np.where(slope > 0.0, low, top)
        following = top - slope / (1.0 + variance * trials * chance * (1.0 - chance))
        top = np.where((low <= following) & (following <= high), following, 0.5 * (low + high))
    chance = 1.0 / (1.0 + np.exp(-np.clip(top, -_FAR, _FAR)))
    scale = 1.0 / np.sqrt(1.0 / variance + trials * chance * (1.0 - chance))
    z = top[:, None] + scale[:, None] * _NODES
    height = successes[:, None] * z - trials[:, None] * np.logaddexp(0.0, z)
    height -= (z - before[:, None]) ** 2 / (2.0 * variance)
    height += 0.5 * _NODES**2
    mass = _WEIGHTS * np.exp(height - height.max(axis=1, keepdims=True))
    mass /= mass.sum(axis=1, keepdims=True)
    middle = mass @ _NODES
    spread = np.maximum(mass @ _NODES**2 - middle * middle, 1e-6)
    return top + scale * middle, scale * scale * spread


def _logit(chance: float) -> float:
    chance = min(max(chance, _LEAST), 1.0 - _LEAST)
    return math.log(chance / (1.0 - chance))


def expit(odds: float) -> float:
    """1 / (1 + e⁻ˣ), whatever the odds."""
    if odds >= 0.0:
        return 1.0 / (1.0 + math.exp(-min(odds, 700.0)))
    small = math.exp(max(odds, -700.0))
    return small / (1.0 + small)


def slot_odds(model: BayesianLogit, names: Sequence[str]) -> list[float]:
    """Odds of each slot beside the first; 1 where nothing is known."""
    return [math.exp(float(model.mean[model.slots[name]])) if name in model.slots else 1.0 for name in names]
