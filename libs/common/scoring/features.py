"""Features of candidates for one customer in one situation: a matrix in a fixed, named order.

`Shelf` holds facts of the catalogue by position, `ScoringTables` puts the learned models beside them (made
anew when either changes, off the request path), `History` is what a customer did, `Scene` is one request,
`candidate_features` its matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import Millis
from libs.common.contracts.customer_model import Item
from libs.common.scoring.arrays import joined, parted
from libs.common.scoring.choice import FEATURES, FIRST
from libs.common.scoring.history import Histories, History, Traces
from libs.common.scoring.shelf import ScoringTables, Shelf

__all__ = [
    "FEATURES",
    "Histories",
    "History",
    "Moment",
    "Scene",
    "ScoringTables",
    "Shelf",
    "candidate_features",
    "due",
    "features_of",
    "willingness",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RECENT_DAYS = 30.0
"""Half-life of the feature ``recency``, in days."""
SEASON_DAYS = 90.0
"""Half-life of the feature ``season``, in days."""
HABIT_FLOOR = 0.3
"""Added to a decayed count before its logarithm: what never buying weighs."""
HISTORY_FLOOR = 0.003
"""The same for what goes with his history: what nothing speaks for."""

USUAL_SHARE = 3.0
"""Decayed orders that everybody's share of orders counts for in the feature ``usual``."""
USUAL_HISTORY = 30.0
"""The same for what goes with his history."""
USUAL_FLOOR = 0.003
_FIRST = [FEATURES.index(name) for name in FIRST]


@dataclass(frozen=True, eq=False)
class Scene:
    """One request: what is known about all ``n`` products of the shelf for this customer, here and now.

    Attributes
    ----------
    past:
        The customer's history on shelf positions; ``bought``, ``age`` and ``history`` are parts of it.
    given:
        Complement scores (2, n) of the page's product, and of the basket (its sum over the square root of
        its size).
    aisle:
        Share of the basket in each category (categories,).
    fits:
        How well each category fits the hour, the channel, and the size of the basket (3, categories).
    trip:
        How much likelier than usual this customer buys each with what is in the basket (n,).
    """

    tables: ScoringTables
    past: History
    given: Floats
    aisle: Floats
    fits: Floats
    trip: Floats

    @classmethod
    def of(
        cls,
        tables: ScoringTables,
        items: Mapping[str, Item],
        at: Millis,
        page: str | None = None,
        basket: Sequence[str] = (),
        channel: str = "",
    ) -> Scene:
        """The scene of a customer with ``items`` at ``at``, who looks at ``page`` with ``basket`` in hand."""
        past = History.of(tables, Traces.of(tables, items), at)
        return scenes_of(tables, [Moment(past, page, basket, channel)])[0]

    @property
    def page(self) -> Floats:
        return np.asarray(self.given[0])

    @property
    def basket(self) -> Floats:
        return np.asarray(self.given[1])

    @property
    def bought(self) -> Floats:
        return self.past.bought

    @property
    def age(self) -> Floats:
        return self.past.age

    @property
    def history(self) -> Floats:
        return self.past.complements


class Moment(NamedTuple):
    """A customer, with what he did so far, who looks at a page with a basket in hand, by a channel."""

    past: History
    page: str | None
    basket: Sequence[str]
    channel: str


def scenes_of(tables: ScoringTables, asked: Sequence[Moment]) -> list[Scene]:
    """`Scene.of` several moments, each as by itself."""
    given = tables.scores_of(
        [
            each
            for moment in asked
            for each in (
                ((moment.page,) if moment.page else (), 1.0),
                (moment.basket, max(len(moment.basket), 1) ** -0.5),
            )
        ]
    ).reshape(len(asked), 2, len(tables.shelf))
    aisles = _aisles(tables.shelf, [moment.basket for moment in asked])
    occasions = [tables.fits(one.past.at, one.channel, len(set(one.basket))) for one in asked]
    return [
        Scene(tables, moment.past, of_one, aisle, fits, _trip(moment))
        for moment, of_one, aisle, fits in zip(asked, given, aisles, occasions, strict=True)
    ]


def _trip(moment: Moment) -> Floats:
    traces = moment.past.traces
    found = np.zeros(len(moment.past.bought))
    if moment.basket and (fits := traces.trips.fits(moment.basket)) is not None:
        found[traces.positions] = fits[traces.on]
    return found


def _aisles(shelf: Shelf, baskets: Sequence[Sequence[str]]) -> Floats:
    """Array (baskets, categories): the share of each basket in each category."""
    find, rows, places, sizes = shelf.index.get, list[int](), list[int](), np.ones(len(baskets))
    for row, basket in enumerate(baskets):
        found = [place for product_id in basket if (place := find(product_id)) is not None]
        places += found
        rows += [row] * len(found)
        sizes[row] = max(len(found), 1)
    if not places:
        return np.zeros((len(baskets), shelf.categories))
    codes = np.array(rows) * shelf.categories + shelf.category[places]
    counts = np.bincount(codes, minlength=len(baskets) * shelf.categories)
    return np.asarray(counts.reshape(len(baskets), shelf.categories) / sizes[:, None], dtype=np.float64)


def candidate_features(scene: Scene, candidates: Ints) -> Floats:
    """The matrix (candidates, `FEATURES`) for shelf positions ``candidates``; every number is finite."""
    return features_of([(scene, candidates)])[0]


def features_of(asked: Sequence[tuple[Scene, Ints]]) -> list[Floats]:
    """`candidate_features` of several scenes on the same tables, each as by itself."""
    tables, shelf = asked[0][0].tables, asked[0][0].tables.shelf
    at = joined([candidates for _, candidates in asked])
    own = joined([scene.past.numbers.take(some, axis=1) for scene, some in asked], axis=1)
    bought, viewed, age, cycle, times = own
    page, basket = joined([scene.given.take(some, axis=1) for scene, some in asked], axis=1)
    history = joined([scene.past.complements[some] for scene, some in asked])
    sizes = [len(candidates) for _, candidates in asked]
    category = shelf.category[at]
    place = category + np.repeat(np.arange(len(asked)) * shelf.categories, sizes)
    x = np.empty((len(at), len(FEATURES)))
    x[:, 0] = np.log(bought + HABIT_FLOOR)
    x[:, 1] = np.exp2(-age / RECENT_DAYS)
    x[:, 2] = due(age, cycle)
    x[:, 3] = tables.log_share[at]
    pull = tables.pull[at]
    x[:, 4] = np.log1p(page * pull)
    x[:, 5] = np.log1p(basket * pull)
    x[:, 6] = np.log(history + HISTORY_FLOOR)
    x[:, 7] = np.log1p(viewed)
    x[:, 8] = joined([scene.past.affinity for scene, _ in asked])[place]
    x[:, 9] = _willing(shelf, at, joined([scene.past.willing for scene, _ in asked])[place])
    x[:, 10] = tables.rankings.trend[at]
    x[:, 11] = np.log1p(times)
    x[:, 12] = np.exp2(-age / SEASON_DAYS)
    x[:, 13] = joined([scene.aisle for scene, _ in asked])[place]
    # What he never bought is judged by weights of its own: the crowd says more where habit says nothing.
    first = times <= 0.0
    x[:, 14] = np.where(first, 0.0, _usual(bought, tables.rankings.share[at], history))
    x[:, 15] = first
    x[:, 16:19] = joined([scene.fits for scene, _ in asked], axis=1).take(place, axis=1).T
    x[:, 19] = joined([scene.trip[some] for scene, some in asked])
    x[:, 20:-1] = x[:, _FIRST] * first[:, None]
    x[:, -1] = tables.log_first[at] * first
    return parted(x, sizes)


def _usual(bought: Floats, share: Floats, history: Floats) -> Floats:
    """Log of decayed orders with what others do as orders seen before (Dirichlet smoothing)."""
    others = USUAL_SHARE * share
    others += USUAL_HISTORY * history
    return np.asarray(np.log(bought + others + USUAL_FLOOR))


def willingness(scene: Scene, candidates: Ints) -> Floats:
    """How near the price tiers (candidates,) are to what he is willing to pay there: 0 right, −1 far off."""
    shelf = scene.tables.shelf
    return _willing(shelf, candidates, scene.past.willing[shelf.category[candidates]])


def _willing(shelf: Shelf, candidates: Ints, wanted: Floats) -> Floats:
    return np.asarray(-np.abs(shelf.comparables.tier[candidates] - wanted))


def due(age: Floats, cycle: Floats) -> Floats:
    """How far into his personal cycle a product is: 0 just bought or unknown, 1 due, less when overdue."""
    known = cycle > 0
    phase = np.where(known, age, 0.0) / np.where(known, cycle, 1.0)
    return np.where(known, np.minimum(phase, 1.0) * np.exp2(-np.maximum(phase - 1.0, 0.0)), 0.0)
