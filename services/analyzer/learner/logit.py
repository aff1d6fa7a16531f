"""Online Bayesian logistic regression: full precision over the features, an intercept per offer beside them.

After each lot of observations the posterior is a Gaussian again, its mode and curvature those of the exact
posterior in the directions that they speak about (Spiegelhalter & Lauritzen 1990; with weights as in Chapelle
& Li 2011, but with the whole covariance; the mode as in Rasmussen & Williams 2006, algorithm 3.1). Intercepts
keep no covariance with the rest: each gets the part of a step that its own uncertainty is of the whole
(decoupled Kalman filter, Puskorius & Feldkamp 1991).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from libs.common.scoring.response import CELL_VARIANCE, OFFER_VARIANCE
from services.analyzer.learner.effects import CERTAIN, MOST_VARIANCE, EffectParameters, Effects, Key

Floats = NDArray[np.float64]

_STEPS = 40
_HALVES = 30
_CLOSE = 1e-6


class LogitParameters(Struct, frozen=True, kw_only=True):
    """Bounds and priors of a `BayesianLogit`.

    Parameters
    ----------
    offers, cells:
        Of the intercepts of offers, and of cells of offers that are alike.
    spread_weight:
        How many known weights the first belief about the spread of a block of weights is worth.
    revise_first, revise_every:
        Observations before the first look at how far intercepts and weights lie apart, and at most between
        two of them (unless there are more offers than that); until then they grow by a quarter.
    """

    offers: EffectParameters = EffectParameters(variance=OFFER_VARIANCE)
    cells: EffectParameters = EffectParameters(variance=CELL_VARIANCE)
    spread_weight: float = 0.2
    revise_first: int = 50
    revise_every: int = 2_000


class Seen(NamedTuple):
    """What was observed of: features (d,), the offer, its cell, and log odds known from elsewhere."""

    x: Floats
    offer: str
    cell: int = 0
    offset: float = 0.0


class Told(NamedTuple):
    """``successes`` (0 or 1) of ``trials`` (0 to 1): the likelihood exp(s·z − n·log(1 + eᶻ)).

    What is not yet known of a trial is left out of ``trials``, and told when it is.
    """

    seen: Seen
    successes: float
    trials: float


class BayesianLogit:
    """P(success) = σ(x·w + offer + cell + offset).

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
        Of the posterior, (d,) and (d, d).
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
        self.start = np.array(mean, dtype=np.float64)
        self._first: Floats = np.square(np.asarray(deviation, dtype=np.float64))
        self.precision: Floats = 1.0 / self._first
        self.mean: Floats = self.start.copy()
        self.covariance: Floats = np.diag(np.square(np.asarray(deviation, dtype=np.float64)))
        self.offers: Effects[str] = Effects(self.parameters.offers)
        self.cells: Effects[int] = Effects(self.parameters.cells)
        self.seen = self.revised = 0

    def predict_one(self, seen: Seen) -> float:
        """Log odds at the mean of the posterior."""
        intercepts = self.offers.of(seen.offer)[0] + self.cells.of(seen.cell)[0]
        return float(seen.x @ self.mean) + intercepts + seen.offset

    def learn_one(self, seen: Seen, successes: float, trials: float) -> None:
        """Learn from one observation, as a lot of its own."""
        self.learn_many([Told(seen, successes, trials)])

    def learn_many(self, told: Sequence[Told]) -> Floats:
        """Learn from a lot at once; the log odds (n,) that each was given before."""
        x = np.array([one.seen.x for one in told])
        successes, trials = np.array([one[1:] for one in told]).T
        across = x @ self.covariance
        of_offers, of_cells = [one.seen.offer for one in told], [one.seen.cell for one in told]
        offers, cells = _intercepts(self.offers, of_offers), _intercepts(self.cells, of_cells)
        before = x @ self.mean + offers.mean + cells.mean + [one.seen.offset for one in told]
        found = joint_mode(before, across @ x.T + offers.covariance + cells.covariance, successes, trials)
        step = found.pull @ across
        self.mean += step
        # Half of the way: one after the other, each would have seen what those before it taught.
        halfway = before + 0.5 * (x @ step)
        said = np.linalg.solve(found.lower, found.root[:, None] * across)
        self.covariance -= said.T @ said
        self.offers.learn_many(of_offers, successes, trials, trials * _expit(halfway - offers.mean))
        self.cells.learn_many(of_cells, successes, trials, trials * _expit(halfway - cells.mean))
        self.seen += len(told)
        if self.seen - self.revised >= self._pause():
            self.revised = self.seen
            self.mean[self.intercept] += self.offers.revise() + self.cells.revise()
            self._spread()
        return before

    def copy(self) -> BayesianLogit:
        """One that may learn on while this one stays as it is."""
        other = copy(self)
        other.mean, other.covariance = self.mean.copy(), self.covariance.copy()
        other.offers, other.cells = self.offers.copy(), self.cells.copy()
        return other

    def fade(self, factor: float) -> None:
        """Let all data count ``factor`` of what it did: the posterior goes back towards the prior.

        (Power discounting, West & Harrison 1997, towards what was believed first and not towards nothing.)
        """
        self._weigh(factor, (1.0 - factor) * self.precision)
        self.offers.fade(factor)
        self.cells.fade(factor)

    def _pause(self) -> int:
        """Observations between two looks at how far things lie apart; all offers are looked at then."""
        few = min(max(self.revised // 4, self.parameters.revise_first), self.parameters.revise_every)
        return max(few, len(self.offers.keys))

    def _spread(self) -> None:
        """Learn from how far weights lie from their prior means how far they may.

        Each weight counts as far as data and not the prior determine it (MacKay 1992).
        """
        if not self.blocks:
            return
        known = 1.0 - np.diag(self.covariance) * self.precision
        apart = (self.mean - self.start) ** 2
        variance = 1.0 / self.precision
        weight = self.parameters.spread_weight
        for block in self.blocks:
            first = self._first[block]
            # In units of what was believed first, of which the columns of a block may have their own.
            scale = (weight + (apart[block] / first).sum()) / (weight + np.clip(known[block], 0.0, 1.0).sum())
            variance[block] = np.minimum(first * max(scale, 1.0), MOST_VARIANCE)
        before, self.precision = self.precision, 1.0 / variance
        self._weigh(1.0, self.precision - before)

    def _weigh(self, factor: float, more: Floats) -> None:
        """Let prior and data count ``factor``, and the prior ``more`` precision (d,) beside it."""
        said = np.linalg.inv(self.covariance)
        pull = factor * (said @ (self.mean - self.start))
        said *= factor
        said[np.diag_indices_from(said)] += more
        covariance = np.linalg.inv(said)
        # Trap: one layout in memory always, or a restored state would be multiplied in another sequence.
        self.covariance = np.ascontiguousarray(0.5 * (covariance + covariance.T))
        self.mean = self.start + self.covariance @ pull

    def root(self) -> Floats:
        """Lower triangular root (d, d) of the covariance."""
        return np.asarray(np.linalg.cholesky(0.5 * (self.covariance + self.covariance.T)))


class Intercepts(NamedTuple):
    """What is believed of the intercepts (n,) of observations, and their covariance (n, n)."""

    mean: Floats
    covariance: Floats


def _intercepts(effects: Effects[Key], keys: Sequence[Key]) -> Intercepts:
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    mean, variance = np.array([effects.of(key) for key in places]).T
    at = np.array([places[key] for key in keys])
    same = at[:, None] == at[None, :]
    return Intercepts(mean[at], same * variance[at])


class JointMode(NamedTuple):
    """Where n log odds come to lie together.

    Parameters
    ----------
    pull:
        Array (n,): the slope of the likelihood there; the prior covariance times this is how far they moved.
    root, lower:
        Arrays (n,) and (n, n): square roots of the curvatures there, and the Cholesky factor of
        1 + root · covariance · root.
    """

    pull: Floats
    root: Floats
    lower: Floats


def joint_mode(before: Floats, covariance: Floats, successes: Floats, trials: Floats) -> JointMode:
    """The mode of N(before, covariance) · ∏ exp(s·z − n·log(1 + eᶻ)): Newton's steps, shortened where they
    lead lower, and none beyond `CERTAIN` where s > n, so that the likelihood has no bound."""
    # What is as good as certain is heard no further, or the others of its lot would have no room.
    successes = np.where(before > CERTAIN - 1.0, np.minimum(successes, trials), successes)

    def worth(pull: Floats, z: Floats) -> float:
        return float(successes @ z - trials @ np.logaddexp(0.0, z) - 0.5 * pull @ (z - before))

    pull, z = np.zeros(len(before)), before
    least = worth(pull, z)
    for _ in range(_STEPS):
        chance = _expit(z)
        curvature = trials * chance * (1.0 - chance)
        slope = curvature * (z - before) + successes - trials * chance
        root = np.sqrt(curvature)
        inner = _inner(root, covariance)
        full = slope - root * np.linalg.solve(inner, root * (covariance @ slope)) - pull
        for _ in range(_HALVES):
            to = before + covariance @ (pull + full)
            height = worth(pull + full, to)
            if height >= least - _CLOSE:
                break
            full = 0.5 * full
        near = float(np.abs(to - z).max()) <= _CLOSE
        pull, z, least = pull + full, to, height
        if near:
            break
    pull = _within(pull, before, z, successes > trials)
    chance = _expit(before + covariance @ pull)
    root = np.sqrt(trials * chance * (1.0 - chance))
    return JointMode(pull, root, np.asarray(np.linalg.cholesky(_inner(root, covariance))))


def _inner(root: Floats, covariance: Floats) -> Floats:
    inner = root[:, None] * covariance * root
    inner[np.diag_indices_from(inner)] += 1.0
    return np.asarray(inner)


def _within(pull: Floats, before: Floats, after: Floats, endless: NDArray[np.bool_]) -> Floats:
    """``pull``, or so much of it that no log odds of an ``endless`` likelihood leave `CERTAIN`."""
    beyond = endless & (after > CERTAIN)
    if not beyond.any():
        return pull
    # Trap: of the endless ones only: one with an end that lies beyond already would let no other move.
    share = (CERTAIN - before)[beyond] / (after - before)[beyond]
    return np.asarray(pull * float(share.min()))


def _expit(odds: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * odds))
