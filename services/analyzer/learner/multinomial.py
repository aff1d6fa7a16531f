"""An online conditional logit: a Gaussian over its weights, moved by one choice after the other."""

from __future__ import annotations

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
SCALE_DOUBT = 200.0
"""Sets that the scales to begin with count for, and so how slowly the features' own take their place."""


class ConditionalLogit:
    """P(i) ∝ exp(wᵀxᵢ) among the alternatives of a set, with full precision (McFadden 1974).

    The extended Kalman filter of the multinomial logit: each set adds its Fisher information at the present
    mean, and the mean makes the Newton step that belongs to it (Ollivier 2018, "Online natural gradient as
    a Kalman filter"). What was seen long ago is forgotten towards the prior, not towards nothing.

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

    def predict_one(self, x: Floats) -> Floats:
        """Probabilities (n,) of the alternatives ``x`` (n, d)."""
        utility = x @ self.mean
        odds = np.exp(utility - utility.max())
        return np.asarray(odds / odds.sum())

    def learn_one(self, x: Floats, chosen: Mask) -> bool:
        """Learn that of ``x`` (n, d) those ``chosen`` (n,) were taken, each a choice among all of them.

        False where that says nothing: none or all were taken, or a number is not one.
        """
        taken = int(np.count_nonzero(chosen))
        if taken in (0, len(chosen)) or not bool((np.abs(x) <= MOST_FEATURE).all()):
            return False
        chance = self.predict_one(x)
        expected = chance @ x
        around = x - expected
        spread = (around * chance[:, None]).T @ around
        self._scale(np.diag(spread))
        prior = np.maximum(self.variance, LEAST_SCALE**2) / self._doubt**2
        information = self._kept * self.information + taken * spread
        gradient = x[chosen].sum(axis=0) - taken * expected
        gradient -= (1.0 - self._kept) * prior * (self.mean - self._start)
        step = np.linalg.solve(information + np.diag(prior), gradient)
        if not bool(np.isfinite(step).all()):
            return False
        self.information = information
        self.mean = np.clip(self.mean + step, -MOST_WEIGHT, MOST_WEIGHT)
        self.samples += 1
        return True

    def _scale(self, spread: Floats) -> None:
        """Let the scales follow, as running means that begin with what was given."""
        # Trap: a feature that is silent has not become small, or its prior would melt away unseen.
        there = spread > 0.0
        self.seen = self.seen + there
        moved = (spread - self.variance) / (SCALE_DOUBT + self.seen)
        self.variance = self.variance + np.where(there, moved, 0.0)
