"""Intercepts of many things that are alike, each from its own binomial, and how far they lie apart."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from copy import copy
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)

CERTAIN = 20.0
"""Odds do not grow beyond e²⁰ to one, whatever is told."""
MOST_VARIANCE = 4.0
"""Of intercepts: odds of 1 to 50 either way."""
_STEPS = 40
_CLOSE = 1e-8
_FAR = 700.0
_LEAST = 1e-12
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_VARIANCES: Floats = MOST_VARIANCE * 0.5 ** np.arange(11.0)[::-1]
"""Those of intercepts that are told apart."""


class EffectParameters(Struct, frozen=True, kw_only=True):
    """How intercepts differ before any is known.

    Parameters
    ----------
    variance, doubt:
        The middle of what their variance may be, and the standard deviation of its logarithm.
    weight:
        How many intercepts of 0 stand against what all have in common.
    most:
        So many are kept.
    """

    variance: float
    doubt: float = 2.5
    weight: float = 4.0
    most: int = 10_000


class Effects(Generic[Key]):
    """Intercepts about 0 whose common variance is learned: a random effect, by empirical Bayes.

    Its variance is the (geometric) mean of the posterior on a grid, each offer's binomial integrated over its
    intercept. Expectation maximisation would hardly move from a narrow start: where little is known of
    each, what is believed of all is also what is found.

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
        # Trap: as in `_told`.
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
        before, successes, trials = self._told()
        found = moments(before, self.variance, successes, trials)
        return found.mean - before, found.variance

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

    def learn_many(self, keys: Sequence[Key], successes: Floats, trials: Floats, expected: Floats) -> None:
        """The same of several, in this sequence."""
        numbers = zip(keys, successes.tolist(), trials.tolist(), expected.tolist(), strict=True)
        for key, succeeded, tried, foreseen in numbers:
            self.learn_one(key, succeeded, tried, foreseen)

    def revise(self) -> float:
        """Learn from how far intercepts lie apart how far they may; returns what all have in common.

        That belongs to the intercept of all and is taken out here. (Steps that share among blocks alone
        hardly ever move it: hierarchical centring, Gelfand, Sahu & Carlin 1995.)
        """
        if not self.keys or self.variance <= 0.0:
            return 0.0
        mean, _ = self.arrays()
        common = float(mean.sum()) / (self.parameters.weight + len(mean))
        for row, trials in enumerate(self.trials):
            if trials > 0.0:
                self.expected[row] = trials * expit(_logit(self.expected[row] / trials) + common)
        self.variance = self._likely()
        self._held.clear()
        return common

    def _likely(self) -> float:
        """The variance that prior and data speak for."""
        apart = np.log(_VARIANCES / self.parameters.variance) / self.parameters.doubt
        height = -0.5 * apart**2
        before, successes, trials = self._told()
        for at, variance in enumerate(_VARIANCES.tolist()):
            height[at] += float(moments(before, variance, successes, trials).evidence.sum())
        mass = np.exp(height - height.max())
        return float(np.exp(mass @ np.log(_VARIANCES) / mass.sum()))

    def _told(self) -> tuple[Floats, Floats, Floats]:
        """Of each row the log odds that were expected without it, its successes and its trials."""
        trials, expected = np.array(self.trials), np.array(self.expected)
        share = np.clip(expected / np.maximum(trials, _LEAST), _LEAST, 1.0 - _LEAST)
        before = np.where(trials > 0.0, np.log(share / (1.0 - share)), 0.0)
        successes = np.array(self.successes)
        # Trap: of successes alone, without the trials they are of, odds would grow without end.
        return before, successes, np.maximum(trials, successes)

    def copy(self) -> Effects[Key]:
        """One that may learn on while this one stays as it is."""
        other = copy(self)
        other.keys, other.index, other._held = list(self.keys), dict(self.index), dict(self._held)
        other.trials, other.expected = list(self.trials), list(self.expected)
        other.successes = list(self.successes)
        return other

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


def mode(before: float, variance: float, successes: float, trials: float) -> float:
    """The mode of N(before, variance) · exp(s·z − n·log(1 + eᶻ)), a concave function of z: Newton's steps, by
    halves where they leave the bracket."""
    low = max(before - variance * trials, min(before, -CERTAIN))
    high = min(before + variance * successes, max(before, CERTAIN))
    z = min(max(before, low), high)
    for _ in range(_STEPS):
        chance = 1.0 / (1.0 + math.exp(-z)) if z > -_FAR else 0.0
        tried = trials * chance
        slope = z - before - variance * (successes - tried)
        if slope > 0.0:
            high = z
        else:
            low = z
        following = z - slope / (1.0 + variance * tried * (1.0 - chance))
        if not low <= following <= high:
            following = 0.5 * (low + high)
        if abs(following - z) <= _CLOSE * (1.0 + abs(z)):
            return following
        z = following
    return z


class Moments(NamedTuple):
    """Means and variances (n,) of posteriors, and the logarithm of what they were divided by."""

    mean: Floats
    variance: Floats
    evidence: Floats


def moments(before: Floats, variance: float, successes: Floats, trials: Floats) -> Moments:
    """Of what `mode` gives the modes of."""
    low, high = before - variance * trials, before + variance * successes
    top = np.clip(before, low, high)
    for _ in range(_STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(top, -_FAR, _FAR)))
        slope = top - before - variance * (successes - trials * chance)
        high, low = np.where(slope > 0.0, top, high), np.where(slope > 0.0, low, top)
        following = top - slope / (1.0 + variance * trials * chance * (1.0 - chance))
        following = np.where((low <= following) & (following <= high), following, 0.5 * (low + high))
        near = bool((np.abs(following - top) <= _CLOSE * (1.0 + np.abs(top))).all())
        top = following
        if near:
            break
    chance = 1.0 / (1.0 + np.exp(-np.clip(top, -_FAR, _FAR)))
    scale = 1.0 / np.sqrt(1.0 / variance + trials * chance * (1.0 - chance))
    z = top[:, None] + scale[:, None] * _NODES
    height = successes[:, None] * z - trials[:, None] * np.logaddexp(0.0, z)
    height -= (z - before[:, None]) ** 2 / (2.0 * variance)
    height += 0.5 * _NODES**2
    highest = height.max(axis=1, keepdims=True)
    mass = _WEIGHTS * np.exp(height - highest)
    whole = mass.sum(axis=1, keepdims=True)
    mass /= whole
    middle = mass @ _NODES
    spread = np.maximum(mass @ _NODES**2 - middle * middle, 1e-6)
    evidence = (highest + np.log(whole))[:, 0] + np.log(scale / math.sqrt(2.0 * math.pi * variance))
    return Moments(top + scale * middle, scale * scale * spread, evidence)


def _logit(chance: float) -> float:
    chance = min(max(chance, _LEAST), 1.0 - _LEAST)
    return math.log(chance / (1.0 - chance))


def expit(odds: float) -> float:
    """1 / (1 + e⁻ˣ), whatever the odds."""
    if odds >= 0.0:
        return 1.0 / (1.0 + math.exp(-min(odds, 700.0)))
    small = math.exp(max(odds, -700.0))
    return small / (1.0 + small)
