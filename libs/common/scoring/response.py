"""P(outcome | trial) as it is served: means and posterior draws of every candidate, and what showing causes.

Three heads, each a Bayesian logistic regression with an intercept per offer: ``engaged``; ``converted``
given engaged; ``converted`` without it. q = P(e)·P(c | e) + P(c, not e), all as if seen in the first slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from itertools import count
from typing import NamedTuple, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.catalogue import KINDS, Kind
from libs.common.contracts.learned_model import CausedPart, InterceptsPart, ResponsePart
from libs.common.scoring.arrays import joined, parted
from libs.common.scoring.intercepts import Intercepts
from libs.common.scoring.trial import RESPONSE_FEATURES, TRIAL_FEATURES

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Codes = NDArray[np.int8]
_F = TypeVar("_F", np.float32, np.float64)
_N = TypeVar("_N", bound=np.generic)

HEADS = ("engaged", "converted_engaged", "converted_alone")
DRAWS = 128
"""Weight vectors drawn from the posterior, once per version …"""
DRAWN_SPREAD = 0.3
"""… at so much of its standard deviation. Who tries all that may be good wins less in a finite time than who
believes a little more than he should (posterior reshaping, Chapelle & Li 2011, An empirical evaluation of
Thompson sampling). Means, variances and intervals are those of the posterior itself."""

_OWN = len(RESPONSE_FEATURES)
_NOISE = 4093
"""Rows of normal numbers that intercepts are drawn with, by hash of offer and version: so nothing is drawn on
the path of a request. A prime, so that no pattern of ids or versions meets the same row more often."""
_FAR = 40.0
"""Log odds beyond this are certain."""

START: Mapping[str, tuple[float, float]] = {
    "engaged": (-1.0, 0.5),
    "converted_engaged": (-0.3, 0.5),
    "converted_alone": (-1.5, 1.0),
}
"""Before anything was learned: intercept and weight of logit(choice). For the small chances at hand q is then
proportional to P(choice): e · c|e to its root twice."""
INTERCEPT_SPREAD = 0.7
CHOICE_SPREAD = 0.1
FEATURE_SPREAD = 0.1
"""How unsure the weights are then, as standard deviations: little, so that what nothing is known of is ranked
by the choice model; some hundred trials say more than this."""
OFFER_VARIANCE = 0.015
CELL_VARIANCE = 0.0075
"""Variances of intercepts at first; the learner follows how much offers really differ."""

CAUSED_BEFORE: Mapping[Kind, float] = {
    "repeat": 0.1,
    "cross_sell": 0.5,
    "up_sell": 0.7,
    "retrofit": 0.9,
    "service": 0.9,
    "retention": 0.5,
    "content": 0.5,
}
"""κ by kind, the share of conversions that showing causes, before anything is learned about it.

A regular buys his coffee whether he is shown it or not; nobody finds the retrofit kit by himself.
"""
RETURNED_BEFORE = 0.05
"""The share of sales that come back, before anything is learned about it."""
MOST_RETURNED = 0.95
EVERYWHERE = ""
"""Stands for all placements."""


@dataclass(frozen=True, eq=False)
class Head:
    """One regression.

    Attributes
    ----------
    mean:
        Weights (d,).
    root:
        Lower triangular (d, d); the covariance is root · rootᵀ.
    """

    mean: Floats
    root: Floats
    offer_variance: float = OFFER_VARIANCE
    cell_variance: float = CELL_VARIANCE


class Trials(NamedTuple):
    """The candidates of one decision, as the model is asked about them; `ResponseModel.trials` makes it.

    Parameters
    ----------
    own, shared:
        Features (m, `RESPONSE_FEATURES`) and (`SHARED_FEATURES`,), see `libs.common.scoring.trial`.
    offer_ids, offers, cells:
        Their ids, and the rows of their intercepts.
    """

    own: Floats
    shared: Floats
    offer_ids: Sequence[str]
    offers: Ints
    cells: Ints

    def at(self, kept: Ints) -> Trials:
        """Those at ``kept`` only."""
        ids = [self.offer_ids[at] for at in kept.tolist()]
        return Trials(self.own[kept], self.shared, ids, self.offers[kept], self.cells[kept])


def start_mean(head: str) -> Floats:
    """Weights (`TRIAL_FEATURES`,) of a head before anything was learned."""
    mean = np.zeros(len(TRIAL_FEATURES))
    intercept, slope = START[head]
    mean[TRIAL_FEATURES.index("intercept")] = intercept
    mean[TRIAL_FEATURES.index("logit_choice")] = slope
    return mean


def start_deviation() -> Floats:
    """Standard deviations (`TRIAL_FEATURES`,) of the weights then."""
    deviation = np.full(len(TRIAL_FEATURES), FEATURE_SPREAD)
    deviation[TRIAL_FEATURES.index("intercept")] = INTERCEPT_SPREAD
    deviation[TRIAL_FEATURES.index("logit_choice")] = CHOICE_SPREAD
    return deviation


def start_head(head: str) -> Head:
    """A head before anything was learned."""
    return Head(start_mean(head), np.diag(start_deviation()))


def no_intercepts(heads: Sequence[Head]) -> Intercepts:
    """Intercepts of which nothing is known."""
    return intercepts_of((), heads)


def intercepts_of(parts: Sequence[InterceptsPart], heads: Sequence[Head]) -> Intercepts:
    """Arrays from published parts; of an offer in several parts the last one counts."""
    offers: dict[str, int] = {}
    cells: dict[int, int] = {}
    numbers: list[Singles] = []
    offer_row, cell_row = 0, sum(len(part.offers) for part in parts)
    cell_numbers: list[Singles] = []
    everywhere = next((part.returned_everywhere for part in parts if part.returned), RETURNED_BEFORE)
    factors: list[Singles] = []
    shares: list[Singles] = []
    for part in parts:
        rows = np.frombuffer(part.numbers, "<f4").reshape(-1, len(HEADS), 2)
        # Trap: rows are counted by themselves, for an offer in two parts has two of them.
        offers.update(zip(part.offers, count(offer_row), strict=False))
        cells.update(zip(part.cells, count(cell_row), strict=False))
        offer_row, cell_row = offer_row + len(part.offers), cell_row + len(part.cells)
        numbers.append(rows[: len(part.offers)])
        cell_numbers.append(rows[len(part.offers) :])
        back = np.frombuffer(part.returned, "<f4")
        if len(back) != len(rows):
            back = np.repeat(np.array([1.0, everywhere], np.float32), [len(part.offers), len(part.cells)])
        factors.append(back[: len(part.offers)])
        shares.append(back[len(part.offers) :])
    unknown = np.array(
        [[[0.0, head.offer_variance] for head in heads], [[0.0, head.cell_variance] for head in heads]]
    )
    table = np.concatenate([*numbers, *cell_numbers, unknown]).astype(np.float32)
    return Intercepts(
        offers=offers,
        cells=cells,
        mean=table[:, :, 0],
        deviation=np.sqrt(np.maximum(table[:, :, 1], 0.0)),
        returned=np.concatenate([*factors, *shares, [1.0, everywhere]]).astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class ResponseModel:
    """What was learned of trials, ready to score; by itself what is believed before any.

    Equal versions score equally to the bit, wherever they are read.

    Parameters
    ----------
    version:
        Of the learned models: what the draws are keyed by.
    heads:
        In the order of `HEADS`.
    shares:
        κ by placement (`EVERYWHERE`: all of them) and kind.
    """

    version: int = 0
    heads: Sequence[Head] = field(default_factory=lambda: tuple(start_head(head) for head in HEADS))
    intercepts: Intercepts | None = None
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def means(
        self, own: Floats, shared: Floats, offer_ids: Sequence[str], cells: Ints | None = None
    ) -> Floats:
        """q of each candidate (m,) at the mean of the weights.

        Parameters
        ----------
        own, shared:
            Features (m, `RESPONSE_FEATURES`) and (`SHARED_FEATURES`,), see `libs.common.scoring.trial`.
        cells:
            See `libs.common.scoring.trial.cells_of`.
        """
        return self.means_of([self.trials(own, shared, offer_ids, cells)])[0]

    def trials(
        self, own: Floats, shared: Floats, offer_ids: Sequence[str], cells: Ints | None = None
    ) -> Trials:
        """What the model is asked about; of the same parameters as `means`."""
        return Trials(own, shared, offer_ids, *self._known.rows(offer_ids, cells))

    def means_of(self, asked: Sequence[Trials]) -> list[Floats]:
        """`means` of several decisions, each as by itself."""
        return _parted(_chance(-self._mean_odds(asked)), asked)

    def head_means(
        self, own: Floats, shared: Floats, offer_ids: Sequence[str], cells: Ints | None = None
    ) -> Floats:
        """The probabilities behind `means`, (m, `HEADS`)."""
        return _expit(-self._mean_odds([self.trials(own, shared, offer_ids, cells)]))

    def draws(
        self, own: Floats, shared: Floats, offer_ids: Sequence[str], cells: Ints | None = None
    ) -> Singles:
        """q of each candidate under each of this version's weight vectors: (`DRAWS`, m), float32."""
        return self.draws_of([self.trials(own, shared, offer_ids, cells)])[0]

    def draws_of(self, asked: Sequence[Trials]) -> list[Singles]:
        """`draws` of several decisions, each as by itself."""
        known = self._known
        weights, normal = self._drawn
        at, cell = _rows_of(asked)
        noise: Ints = np.array([_noise_row(key) for one in asked for key in one.offer_ids], dtype=np.int64)
        noise = (noise + 1009 * self.version) % _NOISE
        # Log odds are wanted with the other sign.
        spread = -DRAWN_SPREAD * np.sqrt(known.deviation[at] ** 2 + known.deviation[cell] ** 2)
        centre = -(known.mean[at] + known.mean[cell])
        own = joined([one.own for one in asked]).astype(np.float32)
        parts = (_parted(numbers, asked) for numbers in (own, noise, spread[:, :, None], centre[:, :, None]))
        found: list[Singles] = []
        # Not all decisions at once: what is in hand of one fits into the cache of a core.
        for one, of_one, rows, width, middle in zip(asked, *parts, strict=True):
            # One product for all heads; what the offers share is multiplied once.
            odds = of_one @ weights[:_OWN]
            odds += one.shared.astype(np.float32) @ weights[_OWN:]
            odds = odds.reshape(len(of_one), len(HEADS), DRAWS)
            noisy = normal.take(rows, axis=0)
            noisy *= width
            noisy += middle
            odds += noisy
            found.append(_chance(odds).T)
        return found

    def caused(self, kinds: Codes, placement: str) -> Floats:
        """κ of each candidate (m,), in [0, 1], by its kind."""
        table = self._shares.get(placement)
        if table is None:
            table = self._shares[EVERYWHERE]
        return np.asarray(table[kinds])

    def returned(self, offer_ids: Sequence[str], cells: Ints) -> Floats:
        """Share of the sales of each candidate (m,) that come back."""
        return self._returned(*self._known.rows(offer_ids, cells))

    def returned_of(self, asked: Sequence[Trials]) -> list[Floats]:
        """`returned` of several decisions."""
        return _parted(self._returned(*_rows_of(asked)), asked)

    def _returned(self, offers: Ints, cells: Ints) -> Floats:
        share = self._known.returned[offers].astype(np.float64) * self._known.returned[cells]
        return np.asarray(np.minimum(share, MOST_RETURNED))

    @cached_property
    def _known(self) -> Intercepts:
        return no_intercepts(self.heads) if self.intercepts is None else self.intercepts

    @cached_property
    def _shares(self) -> dict[str, Floats]:
        """κ by placement as arrays by kind code; what a placement does not say holds everywhere."""
        before = {str(kind): share for kind, share in CAUSED_BEFORE.items()}
        before.update(self.shares.get(EVERYWHERE, {}))
        tables = {EVERYWHERE: before, **{name: {**before, **own} for name, own in self.shares.items()}}
        return {name: np.clip([table[kind] for kind in KINDS], 0.0, 1.0) for name, table in tables.items()}

    @cached_property
    def _drawn(self) -> tuple[Singles, Singles]:
        """Weights (d, heads × `DRAWS`) with the other sign; normal numbers (`_NOISE`, heads, `DRAWS`)."""
        generator = np.random.Generator(np.random.PCG64(self.version))
        size = len(self.heads[0].mean)
        weights = np.empty((size, len(HEADS), DRAWS), dtype=np.float32)
        for number, head in enumerate(self.heads):
            normal = generator.standard_normal((size, DRAWS))
            weights[:, number] = -(head.mean[:, None] + DRAWN_SPREAD * (head.root @ normal))
        return weights.reshape(size, -1), _normal_table()

    def _mean_odds(self, asked: Sequence[Trials]) -> Floats:
        """Log odds of all candidates, (m, heads)."""
        known, weights = self._known, self._weights
        at, cell = _rows_of(asked)
        # Trap: one product for all of them would round by how many they are.
        odds = joined([one.own @ weights[:_OWN] + one.shared @ weights[_OWN:] for one in asked])
        return np.asarray(odds + known.mean[at] + known.mean[cell])

    @cached_property
    def _weights(self) -> Floats:
        """Means of the weights, (d, heads)."""
        return np.stack([head.mean for head in self.heads], axis=1)


def _rows_of(asked: Sequence[Trials]) -> tuple[Ints, Ints]:
    """Rows of the offers and cells of all candidates."""
    return joined([one.offers for one in asked]), np.concatenate([one.cells for one in asked])


def _parted(numbers: NDArray[_N], asked: Sequence[Trials]) -> list[NDArray[_N]]:
    """Rows of all candidates as those of each decision."""
    return parted(numbers, [len(one.own) for one in asked])


def _chance(negated: NDArray[_F]) -> NDArray[_F]:
    """q of log odds (m, `HEADS`, …) with the other sign, which are written over."""
    heads = _expit(negated)
    chance: NDArray[_F] = heads[:, 0] * heads[:, 1]
    chance += heads[:, 2]
    return np.minimum(chance, 1.0, out=chance)


def _expit(odds: NDArray[_F]) -> NDArray[_F]:
    """1 / (1 + exp(x)) in place: these are the many numbers of a request."""
    # Whatever is far below makes a certainty by itself; what is far above would overflow.
    np.minimum(odds, _FAR, out=odds)
    np.exp(odds, out=odds)
    odds += 1.0
    return np.reciprocal(odds, out=odds)


@cache
def _normal_table() -> Singles:
    generator = np.random.Generator(np.random.PCG64(_NOISE))
    return generator.standard_normal((_NOISE, len(HEADS), DRAWS), dtype=np.float32)


@lru_cache(maxsize=65_536)
def _noise_row(offer_id: str) -> int:
    return crc32(offer_id.encode("utf-8", "surrogatepass"))


def lower_triangle(size: int, numbers: bytes) -> Floats:
    """The matrix (size, size) of a lower triangle's rows as floats."""
    root = np.zeros((size, size))
    root[np.tril_indices(size)] = np.frombuffer(numbers, "<f4")
    return root


def response_of(
    version: int,
    heads: Sequence[ResponsePart],
    intercepts: Sequence[InterceptsPart],
    caused: Sequence[CausedPart],
) -> ResponseModel:
    """The model of published parts; those that are missing, or speak of other features, are the start's.

    Intercepts say what is left beside the heads they were learned with, and count only with all of those.
    """
    said = {part.head: part for part in heads if tuple(part.names) == TRIAL_FEATURES}
    made = tuple(_head(said[name]) if name in said else start_head(name) for name in HEADS)
    return ResponseModel(
        version=version,
        heads=made,
        intercepts=intercepts_of(intercepts if len(said) == len(HEADS) else (), made),
        shares={placement: table for part in caused for placement, table in part.shares.items()},
    )


def _head(part: ResponsePart) -> Head:
    return Head(
        mean=np.frombuffer(part.mean, "<f8"),
        root=lower_triangle(len(part.names), part.root),
        offer_variance=part.offer_variance,
        cell_variance=part.cell_variance,
    )
