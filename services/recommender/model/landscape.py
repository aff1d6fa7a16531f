"""What was learned from everybody, laid over the rows of the shelf."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from libs.common.scoring.learned import LearnedModels
from services.recommender.model.shelf import Shelf

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]

UNKNOWN = -1
_NOTHING: Rows = np.empty(0, dtype=np.intp)
_WEIGHTLESS: Floats = np.empty(0)


class Landscape:
    """Popularity and neighbours of the shelf's rows, for one learned version and one set of products.

    Attributes
    ----------
    popular:
        All rows, most popular first; those nobody bought yet come last, in the order they came in.
    share:
        By row: share of all orders with this product.
    """

    def __init__(self, shelf: Shelf, learned: LearnedModels) -> None:
        self.learned = learned
        self.version = learned.version
        self.size = shelf.size
        self.share: Floats = np.zeros(shelf.size)
        weight = np.zeros(shelf.size)
        popularity = learned.popularity
        rows = _rows(shelf, popularity.products)
        known = rows != UNKNOWN
        weight[rows[known]] = popularity.weight[known]
        self.share[rows[known]] = popularity.share[known]
        self.popular: Rows = np.argsort(-weight, kind="stable")
        self._neighbour_rows = _rows(shelf, learned.complements.products)

    def fits(self, shelf: Shelf, learned: LearnedModels) -> bool:
        """Whether this is still the landscape of ``shelf`` and ``learned``."""
        return self.learned is learned and self.size == shelf.size

    def neighbours(self, product_ids: list[str], weights: list[float], top: int) -> Rows:
        """Rows that go with ``product_ids``, best first by the weighted sum over all of them, at most ``top``."""
        complements = self.learned.complements
        index = complements.index
        sources = [(index[p], w) for p, w in zip(product_ids, weights, strict=True) if p in index]
        if not sources or not complements.neighbours.size:
            return _NOTHING
        places = np.array([place for place, _ in sources])
        columns = complements.neighbours[places]
        pulls = complements.weight[places] * np.array([weight for _, weight in sources])[:, None]
        rows = np.where(columns >= 0, self._neighbour_rows[columns], UNKNOWN)
        good = (rows >= 0) & (pulls > 0.0)
        sums = np.bincount(rows[good], weights=pulls[good], minlength=self.size)
        found = np.flatnonzero(sums)
        return top_of(found, sums[found], top)


def top_of(rows: Rows, scores: Floats, top: int) -> Rows:
    """The ``top`` rows with the greatest ``scores``, best first, ties by row."""
    if len(rows) > 4 * top:
        part = np.argpartition(-scores, top)[: 2 * top]
        part.sort()
        rows, scores = rows[part], scores[part]
    return rows[np.argsort(-scores, kind="stable")[:top]]


def _rows(shelf: Shelf, product_ids: object) -> Rows:
    rows = shelf.rows
    return np.fromiter((rows.get(p, UNKNOWN) for p in product_ids), dtype=np.intp)  # type: ignore[attr-defined]
