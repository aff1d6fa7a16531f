"""The shelf and what was learned about it, side by side by position: made off the request path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import Millis
from libs.common.contracts.catalogue import Product
from libs.common.contracts.learned_model import USUAL_FIRST
from libs.common.errors import Invalid
from libs.common.scoring.comparables import Comparables
from libs.common.scoring.learned import Complements, LearnedModels, Popularity
from libs.common.scoring.occasions import GIVEN, SIZES, hour_at, size_at
from libs.common.scoring.peers import Peers
from libs.common.scoring.rankings import Rankings
from libs.common.times import parse_time

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NO_BRAND = 0
SHARE_FLOOR = 1e-5
PULL_FLOOR = 0.02
"""Added to a product's share of orders before complement scores are compared with it."""


class Shelf:
    """Facts of ``n`` products by position.

    Attributes
    ----------
    products, ids, index:
        The products, their ids, and the position of each id.
    category_names:
        The category of each number.
    category, brand:
        Arrays (n,): a number per category, and per brand, `NO_BRAND` where none is said.
    price:
        Array (n,).
    listed:
        Array (n,): since when a product can be had, in ms; 0 where that is not said.
    comparables, peers:
        Price tiers, and what can stand in for what, see `Comparables` and `Peers`.
    """

    def __init__(self, products: Sequence[Product]) -> None:
        self.products = tuple(products)
        self.ids = [product.product_id for product in products]
        self.index = {product_id: position for position, product_id in enumerate(self.ids)}
        codes: dict[str, int] = {}
        self.category: Ints = np.array(
            [codes.setdefault(product.category, len(codes)) for product in products], dtype=np.int64
        )
        self.category_names = list(codes)
        self.categories = len(codes)
        brands = {"": NO_BRAND}
        self.brand: Ints = np.array(
            [brands.setdefault(product.brand or "", len(brands)) for product in products], dtype=np.int64
        )
        self.brands = len(brands)
        self.listed: Ints = np.array([_listed(product) for product in products], dtype=np.int64)
        self.price: Floats = np.array([product.price for product in products], dtype=np.float64)
        self.comparables = Comparables(products)
        self.peers = Peers(self.comparables)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class ScoringTables:
    """A shelf with what was learned about it, aligned to its positions.

    Attributes
    ----------
    log_share:
        Array (n,): log of the share of orders, floored.
    log_first:
        Array (n,): log of how often who never had it buys it, over `USUAL_FIRST`.
    pull:
        Array (n,): 1 / (share of orders + `PULL_FLOOR`). A complement score times this says how much more
        likely than usual a product is: rare ones gain more from the same score.
    rankings:
        What is popular, trending and new, see `Rankings`.
    rows:
        Array (n,): the row of complements of each product, −1 where it has none.
    columns:
        Array (rows of complements, width): shelf positions of the neighbours, n where not on the shelf.
    weights:
        Array (rows, width): their weights.
    occasions:
        Array (categories, columns of `Occasions`): what is bought more than usual then and there.
    """

    shelf: Shelf
    learned: LearnedModels
    log_share: Floats
    log_first: Floats
    pull: Floats
    rankings: Rankings
    rows: Ints
    columns: Ints
    weights: Floats
    occasions: Floats

    @classmethod
    def align(
        cls, shelf: Shelf, learned: LearnedModels, before: ScoringTables | None = None
    ) -> ScoringTables:
        """Tables of ``shelf`` and ``learned``; ``before`` saves work where the complements are the same."""
        popularity, complements = learned.popularity, learned.complements
        at = np.array([shelf.index.get(product_id, -1) for product_id in popularity.products], dtype=np.int64)
        rankings = Rankings.of(at, popularity, shelf.category, shelf.categories, shelf.listed)
        if before is not None and before.shelf is shelf and before.learned.complements is complements:
            rows, columns, weights = before.rows, before.columns, before.weights
        else:
            row = complements.index.get
            rows = np.array([row(product_id, -1) for product_id in shelf.ids], dtype=np.int64)
            columns, weights = _aligned(shelf, complements)
        return cls(
            shelf=shelf,
            learned=learned,
            log_share=np.log(np.maximum(rankings.share, SHARE_FLOOR)),
            log_first=_log_first(len(shelf), at, popularity),
            pull=1.0 / (rankings.share + PULL_FLOOR),
            rankings=rankings,
            rows=rows,
            columns=columns,
            weights=weights,
            occasions=learned.occasions.on(shelf.category_names),
        )

    @cached_property
    def mean_log_share(self) -> float:
        """Mean of ``log_share``."""
        return float(self.log_share.mean())

    def fits(self, at: Millis, channel: str, given: int = 0) -> Floats:
        """Array (3, categories): how well each fits the hour of ``at``, ``channel``, and a basket that has
        so many products ``given``; 0 where unknown."""
        before, after, part = hour_at(at)
        fits = np.zeros((3, self.shelf.categories))
        fits[0] = (1.0 - part) * self.occasions[:, before] + part * self.occasions[:, after]
        if (column := self.learned.occasions.channels.get(channel)) is not None:
            fits[1] = self.occasions[:, column]
        if given:
            below, above, part = size_at(given / GIVEN)
            sizes = self.occasions[:, -SIZES:]
            fits[2] = (1.0 - part) * sizes[:, below] + part * sizes[:, above]
        return fits

    def scores_of(self, asked: Sequence[tuple[Sequence[str], float]]) -> Floats:
        """Array (asked, n): what goes with each list of products, times the amount that comes with it."""
        find = self.learned.complements.index.get
        found = [[row for key in ids if (row := find(key)) is not None] for ids, _ in asked]
        which = np.repeat(np.arange(len(asked)), [len(rows) for rows in found])
        by = np.repeat([amount for _, amount in asked], [len(rows) for rows in found])
        return self.row_scores([row for rows in found for row in rows], by, which, len(asked))

    def row_scores(self, rows: Ints | list[int], by: Floats, which: Ints, many: int) -> Floats:
        """Array (many, n): sums of ``rows`` of complements, each times ``by``, by ``which`` it belongs to."""
        size = len(self.shelf)
        if not len(rows):
            return np.zeros((many, size))
        # Whole rows: `take` does them at once, an index one by one.
        weights = self.weights.take(rows, axis=0)
        weights *= by[:, None]
        columns = self.columns.take(rows, axis=0)
        columns += (which * (size + 1))[:, None]
        sums = np.bincount(columns.ravel(), weights=weights.ravel(), minlength=many * (size + 1))
        return np.ascontiguousarray(sums.reshape(many, size + 1)[:, :size], dtype=np.float64)


def _log_first(size: int, at: Ints, popularity: Popularity) -> Floats:
    """Array (size,): never beyond a factor of 1,000; what nobody bought is as the least of what somebody did,
    or usual where that is less."""
    known = at >= 0
    rates = np.clip(popularity.first[known] / USUAL_FIRST, 1e-3, 1e3)
    logs = np.log(np.where(np.isnan(rates), 1.0, rates))
    found = np.full(size, min(float(logs.min(initial=0.0)), 0.0))
    found[at[known]] = logs
    return found


def _listed(product: Product) -> int:
    if product.available_from is None:
        return 0
    try:
        return parse_time(product.available_from, "")
    except Invalid:
        return 0


def _aligned(shelf: Shelf, complements: Complements) -> tuple[Ints, Floats]:
    on_shelf = np.array(
        [shelf.index.get(product_id, len(shelf)) for product_id in complements.products] + [len(shelf)],
        dtype=np.int64,
    )
    # A padded place is −1 and so finds the last entry: not on the shelf.
    return on_shelf[complements.neighbours], complements.weight
