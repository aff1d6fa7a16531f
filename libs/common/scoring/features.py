"""Features of candidates for one customer in one situation: a matrix in a fixed, named order.

`Shelf` holds facts of the catalogue by position, `ScoringTables` puts the learned models beside them (made
anew when either changes, off the request path), `History` is what a customer did, `Scene` is one request,
`candidate_features` its matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import Millis
from libs.common.contracts.customer_model import Item
from libs.common.scoring.choice import FEATURES, FIRST
from libs.common.scoring.history import Histories, History, Traces
from libs.common.scoring.shelf import ScoringTables, Shelf

__all__ = [
    "FEATURES",
    "Histories",
    "History",
    "Scene",
    "ScoringTables",
    "Shelf",
    "candidate_features",
    "due",
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
    page, basket:
        Complement scores (n,) of the page's product, and of the basket (its sum over the square root of
        its size).
    aisle:
        Share of the basket in each category (categories,).
    """

    tables: ScoringTables
    past: History
    page: Floats
    basket: Floats
    aisle: Floats

    @classmethod
    def of(
        cls,
        tables: ScoringTables,
        items: Mapping[str, Item],
        at: Millis,
        page: str | None = None,
        basket: Sequence[str] = (),
    ) -> Scene:
        """The scene of a customer with ``items`` at ``at``, who looks at ``page`` with ``basket`` in hand."""
        return cls.after(History.of(tables, Traces.of(tables, items), at), tables, page, basket)

    @classmethod
    def after(
        cls, past: History, tables: ScoringTables, page: str | None = None, basket: Sequence[str] = ()
    ) -> Scene:
        """The same where his history on ``tables`` is at hand."""
        return cls(
            tables=tables,
            past=past,
            page=tables.complement_scores((page,) if page else ()),
            basket=tables.complement_scores(basket, max(len(basket), 1) ** -0.5),
            aisle=_aisle(tables.shelf, basket),
        )

    @property
    def bought(self) -> Floats:
        return self.past.bought

    @property
    def age(self) -> Floats:
        return self.past.age

    @property
    def history(self) -> Floats:
        return self.past.complements


def candidate_features(scene: Scene, candidates: Ints) -> Floats:
    """The matrix (candidates, `FEATURES`) for shelf positions ``candidates``; every number is finite."""
    tables, past = scene.tables, scene.past
    bought, age, cycle = past.bought[candidates], past.age[candidates], past.cycle[candidates]
    x = np.empty((len(candidates), len(FEATURES)))
    x[:, 0] = np.log(bought + HABIT_FLOOR)
    x[:, 1] = np.exp2(-age / RECENT_DAYS)
    x[:, 2] = due(age, cycle)
    x[:, 3] = tables.log_share[candidates]
    pull = tables.pull[candidates]
    x[:, 4] = np.log1p(scene.page[candidates] * pull)
    x[:, 5] = np.log1p(scene.basket[candidates] * pull)
    x[:, 6] = np.log(past.complements[candidates] + HISTORY_FLOOR)
    x[:, 7] = np.log1p(past.viewed[candidates])
    category = tables.shelf.category[candidates]
    x[:, 8] = past.affinity[category]
    x[:, 9] = willingness(scene, candidates)
    x[:, 10] = tables.rankings.trend[candidates]
    x[:, 11] = np.log1p(past.times[candidates])
    x[:, 12] = np.exp2(-age / SEASON_DAYS)
    x[:, 13] = scene.aisle[category]
    # What he never bought is judged by weights of its own: the crowd says more where habit says nothing.
    first = past.times[candidates] <= 0.0
    x[:, 14] = np.where(first, 0.0, _usual(scene, candidates, bought))
    x[:, 15] = first
    x[:, 16:] = x[:, _FIRST] * first[:, None]
    return x


def _usual(scene: Scene, candidates: Ints, bought: Floats) -> Floats:
    """Log of decayed orders (candidates,) with what others do as orders seen before (Dirichlet smoothing)."""
    others = USUAL_SHARE * scene.tables.rankings.share[candidates]
    others += USUAL_HISTORY * scene.past.complements[candidates]
    return np.asarray(np.log(bought + others + USUAL_FLOOR))


def _aisle(shelf: Shelf, basket: Sequence[str]) -> Floats:
    places = [place for product_id in basket if (place := shelf.index.get(product_id)) is not None]
    if not places:
        return np.zeros(shelf.categories)
    counts = np.bincount(shelf.category[places], minlength=shelf.categories)
    return np.asarray(counts / len(places), dtype=np.float64)


def willingness(scene: Scene, candidates: Ints) -> Floats:
    """How near the price tiers (candidates,) are to what he is willing to pay there: 0 right, −1 far off."""
    shelf = scene.tables.shelf
    return np.asarray(
        -np.abs(shelf.comparables.tier[candidates] - scene.past.willing[shelf.category[candidates]])
    )


def due(age: Floats, cycle: Floats) -> Floats:
    """How far into his personal cycle a product is: 0 just bought or unknown, 1 due, less when overdue."""
    known = cycle > 0
    phase = np.where(known, age, 0.0) / np.where(known, cycle, 1.0)
    return np.where(known, np.minimum(phase, 1.0) * np.exp2(-np.maximum(phase - 1.0, 0.0)), 0.0)
