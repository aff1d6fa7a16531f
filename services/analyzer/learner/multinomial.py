"""An online conditional logit: a Gaussian over its weights, moved by one choice after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_WEIGHT = 50.0
"""No weight leaves ± this."""
MOST_FEATURE = 1e6
"""Sets with a larger feature teach nothing."""
LEAST_SCALE = 0.1
"""A feature of less spread is not taken for a small one: its weight is held as if it had this."""
CLOSE = 0.5
"""A step that moves no utility by more is the last: of most sets the first."""
SCALE_DOUBT = 200.0
"""Sets that the scales to begin with count for, and so how slowly the features' own take their place."""
_STEPS = 20
_HALVES = 30
_CLOSE = 1e-9


class ConditionalLogit:
    """P(i) ∝ exp(wᵀxᵢ) among the alternatives of a set, with full precision (McFadden 1974).

    Assumed density filtering by Laplace's approximation: after each set the posterior is a Gaussian again,
    at the mode of the exact one, to which Newton's steps lead, and with the Fisher information there
    (Spiegelhalter & Lauritzen 1990). What was seen long ago is forgotten towards the prior, not towards
    nothing.

    Parameters
    ----------
    start:
        Prior mean (d,).
    scales:
        Spread (d,) of each feature within a set, to begin with.
    doubt:
        Standard deviation of the prior, in log odds per spread of a feature.
    memory:
        Sets after which one has faded to 1/e.

    Attributes
    ----------
    mean:
        Array (d,).
    information:
        Array (d, d): what sets have said, without the prior.
    variance, seen:
        Arrays (d,): mean square of each feature's spread within the sets where it had any, and how many.
    samples:
        Sets learned from.
    refused:
        Sets with a number that is none, for whoever counts them; no part of what is known.
    """

    def __init__(self, start: Floats, scales: Floats, doubt: float, memory: float) -> None:
        self._start = start
        self._doubt = doubt
        self._kept = 1.0 - 1.0 / memory
        self.mean = start.copy()
        self.information = np.zeros((len(start), len(start)))
        self.variance = scales**2
        self.seen = np.zeros(len(start))
        self.samples = 0
        self.refused = 0

    def predict_one(self, x: Floats) -> Floats:
        """Probabilities (n,) of the alternatives ``x`` (n, d)."""
        return _softmax(x @ self.mean)

    def learn_one(self, x: Floats, chosen: Mask) -> bool:
        """Learn that of ``x`` (n, d) those ``chosen`` (n,) were taken, each a choice among all of them.

        False where that says nothing: none or all were taken, or a number is not one.
        """
        taken = int(np.count_nonzero(chosen))
        if taken in (0, len(chosen)):
            return False
        if not bool((np.abs(x) <= MOST_FEATURE).all()):
            self.refused += 1
            return False
        wanted = x[chosen].sum(axis=0)
        chance, spread = self._at(x, self.mean)
        self._scale(np.diag(spread))
        prior = np.maximum(self.variance, LEAST_SCALE**2) / self._doubt**2
        held = self._kept * self.information
        before = held + np.diag(prior)
        pull = (1.0 - self._kept) * prior * (self.mean - self._start)
        moved = np.zeros(len(self.mean))
        for _ in range(_STEPS):
            gradient = wanted - taken * (chance @ x) - before @ moved - pull
            step = np.linalg.solve(before + taken * spread, gradient)
            if not bool(np.isfinite(step).all()):
                self.refused += 1
                return False
            small = float(np.abs(x @ step).max()) < CLOSE
            if not small:
                # Trap: where the model was sure and wrong there is no curvature, and the full step leads far
                # beyond the mode: one order could turn habits around, and no owned product be asked again.
                step = self._shortened(step, moved, lambda after: self._worth(x, chosen, after, before, pull))
            moved = moved + step
            chance, spread = self._at(x, self.mean + moved)
            if small:
                break
        self.information = held + taken * spread
        self.mean = np.clip(self.mean + moved, -MOST_WEIGHT, MOST_WEIGHT)
        self.samples += 1
        return True

    def _worth(self, x: Floats, chosen: Mask, moved: Floats, before: Floats, pull: Floats) -> float:
        """Log of the posterior where the mean is ``moved`` (d,), but for a constant."""
        doubted = float(0.5 * moved @ before @ moved + pull @ moved)
        return _likelihood(x, chosen, self.mean + moved) - doubted

    @staticmethod
    def _shortened(step: Floats, moved: Floats, worth: Callable[[Floats], float]) -> Floats:
        """``step`` halved until it leads no lower."""
        least = worth(moved) - _CLOSE
        for _ in range(_HALVES):
            if worth(moved + step) >= least:
                break
            step = 0.5 * step
        return step

    def _at(self, x: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Probabilities (n,) by ``weights`` (d,), and the covariance (d, d) of the features under them."""
        chance = _softmax(x @ weights)
        around = x - chance @ x
        return chance, (around * chance[:, None]).T @ around

    def _scale(self, spread: Floats) -> None:
        """Let the scales follow, as running means that begin with what was given."""
        # Trap: a feature that is silent has not become small, or its prior would melt away unseen.
        there = spread > 0.0
        self.seen = self.seen + there
        moved = (spread - self.variance) / (SCALE_DOUBT + self.seen)
        self.variance = self.variance + np.where(there, moved, 0.0)


def _softmax(utility: Floats) -> Floats:
    odds = np.exp(utility - utility.max())
    return np.asarray(odds / odds.sum())


def _likelihood(x: Floats, chosen: Mask, weights: Floats) -> float:
    """Log of the chance of what was ``chosen``."""
    utility = x @ weights
    most = utility.max()
    taken = np.count_nonzero(chosen)
    return float(utility[chosen].sum() - taken * (most + np.log(np.exp(utility - most).sum())))
