"""Features of candidates for one customer in one situation: a matrix in a fixed, named order.

`Shelf` holds facts of the catalogue by position, `ScoringTables` puts the learned models beside them (made
anew when either changes, off the request path), `Scene` is one request, `candidate_features` its matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import DAY, Millis
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_model import Item
from libs.common.scoring.comparables import NO_TIER, Comparables
from libs.common.scoring.decay import HALF_LIFE_FORTNIGHT, HALF_LIFE_SEASON
from libs.common.scoring.learned import Complements, LearnedModels

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEATURES = (
    "habit",
    "recency",
    "due",
    "popularity",
    "page",
    "basket",
    "history",
    "viewed",
    "category",
    "tier",
)
"""Columns of the matrix. Trap: the order is part of the models' versions and of floating-point results."""

HISTORY_ITEMS = 64
"""So many of a customer's products, the most bought first, ask for their complements."""
RECENT_DAYS = 30.0
"""Half-life of the feature ``recency``, in days."""
SHARE_FLOOR = 1e-5
HABIT_FLOOR = 0.3
"""Added to a decayed count before its logarithm: what never buying weighs."""
PULL_FLOOR = 0.02
"""Added to a product's share of orders before complement scores are compared with it."""


_NEVER = -np.inf


class Shelf:
    """Facts of ``n`` products by position.

    Attributes
    ----------
    products, ids, index:
        The products, their ids, and the position of each id.
    category:
        Array (n,): a number per category.
    price:
        Array (n,).
    comparables:
        Price tiers and upgrades, see `Comparables`.
    """

    def __init__(self, products: Sequence[Product]) -> None:
        self.products = tuple(products)
        self.ids = [product.product_id for product in products]
        self.index = {product_id: position for position, product_id in enumerate(self.ids)}
        codes: dict[str, int] = {}
        self.category: Ints = np.array(
            [codes.setdefault(product.category, len(codes)) for product in products], dtype=np.int64
        )
        self.categories = len(codes)
        self.price: Floats = np.array([product.price for product in products], dtype=np.float64)
        self.comparables = Comparables(products)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class ScoringTables:
    """A shelf with what was learned about it, aligned to its positions.

    Attributes
    ----------
    log_share:
        Array (n,): log of the share of orders, floored.
    pull:
        Array (n,): 1 / (share of orders + `PULL_FLOOR`). A complement score times this says how much more
        likely than usual a product is: rare ones gain more from the same score.
    popular:
        Positions, most popular first.
    columns:
        Array (rows of complements, width): shelf positions of the neighbours, n where not on the shelf.
    weights:
        Array (rows, width): their weights.
    """

    shelf: Shelf
    learned: LearnedModels
    log_share: Floats
    pull: Floats
    popular: Ints
    columns: Ints
    weights: Floats

    @classmethod
    def align(
        cls, shelf: Shelf, learned: LearnedModels, before: ScoringTables | None = None
    ) -> ScoringTables:
        """Tables of ``shelf`` and ``learned``; ``before`` saves work where the complements are the same."""
        popularity, complements = learned.popularity, learned.complements
        share = np.zeros(len(shelf))
        at = np.array([shelf.index.get(product_id, -1) for product_id in popularity.products], dtype=np.int64)
        known = at >= 0
        share[at[known]] = popularity.share[known]
        if before is not None and before.shelf is shelf and before.learned.complements is complements:
            columns, weights = before.columns, before.weights
        else:
            columns, weights = _aligned(shelf, complements)
        return cls(
            shelf=shelf,
            learned=learned,
            log_share=np.log(np.maximum(share, SHARE_FLOOR)),
            pull=1.0 / (share + PULL_FLOOR),
            popular=np.argsort(-share, kind="stable"),
            columns=columns,
            weights=weights,
        )

    def complement_scores(self, product_ids: Sequence[str], amounts: Sequence[float] | Floats) -> Floats:
        """Array (n,): what goes with ``product_ids``, their neighbours' weights times ``amounts`` summed."""
        index = self.learned.complements.index
        size = len(self.shelf)
        found = [
            (index[key], amount) for key, amount in zip(product_ids, amounts, strict=True) if key in index
        ]
        if not found:
            return np.zeros(size)
        rows = [row for row, _ in found]
        by = np.array([amount for _, amount in found])
        sums = np.bincount(
            self.columns[rows].ravel(),
            weights=(self.weights[rows] * by[:, None]).ravel(),
            minlength=size + 1,
        )
        return np.asarray(sums[:size], dtype=np.float64)


def _aligned(shelf: Shelf, complements: Complements) -> tuple[Ints, Floats]:
    on_shelf = np.array(
        [shelf.index.get(product_id, len(shelf)) for product_id in complements.products] + [len(shelf)],
        dtype=np.int64,
    )
    # A padded place is −1 and so finds the last entry: not on the shelf.
    return on_shelf[complements.neighbours], complements.weight


@dataclass(frozen=True, eq=False)
class History:
    """A customer's products at one moment, as arrays (m,) in the order of his `Items`.

    Attributes
    ----------
    ids, positions:
        Product ids and their shelf positions (−1: not on the shelf).
    bought, viewed:
        Decayed orders (half-life 120 d) and views (14 d) at the moment.
    age, cycle:
        Days since the latest order with it (infinite: never bought), mean days between orders (0: unknown).
    """

    ids: Sequence[str]
    positions: Ints
    bought: Floats
    viewed: Floats
    age: Floats
    cycle: Floats

    @classmethod
    def of(cls, items: Mapping[str, Item], at: Millis, shelf: Shelf) -> History:
        """``items`` at ``at``; what lies behind ``at`` in time counts as of now."""
        index = shelf.index
        # Trap: flat and by attribute looks clumsy, but it is half of the time of a whole scene.
        flat = [
            number
            for item in items.values()
            for number in (
                item.bought.weight,
                item.bought.at,
                item.viewed.weight,
                item.viewed.at,
                item.last_bought_at if item.orders else _NEVER,
                item.cycle,
            )
        ]
        numbers = np.array(flat, dtype=np.float64).reshape(-1, 6)
        bought, bought_at, viewed, viewed_at, last, cycle = numbers.T
        return cls(
            ids=list(items),
            positions=np.array([index.get(product_id, -1) for product_id in items], dtype=np.int64),
            bought=bought * np.exp2(np.minimum(bought_at - at, 0.0) / HALF_LIFE_SEASON),
            viewed=viewed * np.exp2(np.minimum(viewed_at - at, 0.0) / HALF_LIFE_FORTNIGHT),
            age=np.maximum(at - last, 0.0) / DAY,
            cycle=cycle / DAY,
        )


@dataclass(frozen=True, eq=False)
class Scene:
    """One request: what is known about all ``n`` products of the shelf for this customer, here and now.

    Attributes
    ----------
    bought, viewed, age, cycle:
        The customer's history on shelf positions, arrays (n,).
    page, basket, history:
        Complement scores (n,) of the page's product, of the basket (its sum over the square root of its
        size), and of what he buys (mean weighted by decayed orders).
    affinity, usual_tier:
        Share of his purchases in a product's category (n,), and their mean price tier.
    """

    tables: ScoringTables
    bought: Floats
    viewed: Floats
    age: Floats
    cycle: Floats
    page: Floats
    basket: Floats
    history: Floats
    affinity: Floats
    usual_tier: float

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
        shelf = tables.shelf
        own = History.of(items, at, shelf)
        on = own.positions >= 0
        places = own.positions[on]
        bought = _spread(places, own.bought[on], len(shelf), 0.0)
        return cls(
            tables=tables,
            bought=bought,
            viewed=_spread(places, own.viewed[on], len(shelf), 0.0),
            age=_spread(places, own.age[on], len(shelf), np.inf),
            cycle=_spread(places, own.cycle[on], len(shelf), 0.0),
            page=tables.complement_scores((page,) if page else (), (1.0,) if page else ()),
            basket=tables.complement_scores(basket, np.full(len(basket), max(len(basket), 1) ** -0.5)),
            history=_history_scores(tables, own),
            affinity=_affinity(shelf, bought),
            usual_tier=_usual_tier(shelf, bought),
        )


def candidate_features(scene: Scene, candidates: Ints) -> Floats:
    """The matrix (candidates, `FEATURES`) for shelf positions ``candidates``; every number is finite."""
    tables = scene.tables
    bought, age, cycle = scene.bought[candidates], scene.age[candidates], scene.cycle[candidates]
    x = np.empty((len(candidates), len(FEATURES)))
    x[:, 0] = np.log(bought + HABIT_FLOOR)
    x[:, 1] = np.exp2(-age / RECENT_DAYS)
    x[:, 2] = _due(age, cycle)
    x[:, 3] = tables.log_share[candidates]
    pull = tables.pull[candidates]
    x[:, 4] = np.log1p(scene.page[candidates] * pull)
    x[:, 5] = np.log1p(scene.basket[candidates] * pull)
    x[:, 6] = np.log1p(scene.history[candidates] * pull)
    x[:, 7] = np.log1p(scene.viewed[candidates])
    x[:, 8] = scene.affinity[candidates]
    x[:, 9] = -np.abs(tables.shelf.comparables.tier[candidates] - scene.usual_tier)
    return x


def _spread(places: Ints, values: Floats, size: int, empty: float) -> Floats:
    spread = np.full(size, empty)
    spread[places] = values
    return spread


def _due(age: Floats, cycle: Floats) -> Floats:
    """How far into his personal cycle a product is: 0 just bought or unknown, 1 due, less when overdue."""
    known = cycle > 0
    phase = np.where(known, age, 0.0) / np.where(known, cycle, 1.0)
    return np.where(known, np.minimum(phase, 1.0) * np.exp2(-np.maximum(phase - 1.0, 0.0)), 0.0)


def _history_scores(tables: ScoringTables, own: History) -> Floats:
    """Complements of what he buys: his products weighted by their share of his decayed orders."""
    total = float(own.bought.sum())
    if total <= 0.0:
        return np.zeros(len(tables.shelf))
    most = np.argsort(-own.bought, kind="stable")[:HISTORY_ITEMS]
    return tables.complement_scores([own.ids[at] for at in most.tolist()], own.bought[most] / total)


def _affinity(shelf: Shelf, bought: Floats) -> Floats:
    total = float(bought.sum())
    if total <= 0.0:
        return np.zeros(len(shelf))
    by_category = np.bincount(shelf.category, weights=bought, minlength=shelf.categories)
    return np.asarray(by_category[shelf.category] / total)


def _usual_tier(shelf: Shelf, bought: Floats) -> float:
    total = float(bought.sum())
    return float(bought @ shelf.comparables.tier / total) if total > 0.0 else NO_TIER
