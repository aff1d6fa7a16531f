"""What the learned ranking is compared with: popularity, and what this household bought before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import DAY, Millis

HALF_LIFE = 120 * DAY

Floats = NDArray[np.float64]


class Baselines:
    """Decayed purchase counts, of everybody and of each customer.

    A purchase at ``t`` adds 2^(t / half-life) instead of letting all others decay: at any one moment the
    order is the same, and nothing has to be multiplied.

    Parameters
    ----------
    products:
        All product ids; a list of products is ranked by these rows.
    start:
        Any moment near the data, so that the powers stay small.
    """

    def __init__(self, products: Sequence[str], start: Millis, half_life: Millis = HALF_LIFE) -> None:
        self._products = list(products)
        self._row = {product: row for row, product in enumerate(products)}
        self._start = start
        self._half_life = half_life
        self._everybody: Floats = np.zeros(len(products))
        self._own: dict[str, Floats] = {}

    def learn(self, customer: str, at: Millis, products: Iterable[str]) -> None:
        """Count a basket."""
        rows = [self._row[product] for product in products]
        weight = 2.0 ** ((at - self._start) / self._half_life)
        own = self._own.get(customer)
        if own is None:
            own = self._own[customer] = np.zeros(len(self._products))
        own[rows] += weight
        self._everybody[rows] += weight

    def popular(self, limit: int, without: Collection[str] = ()) -> list[str]:
        """What everybody buys most, ``without`` some products."""
        return self._first(np.argsort(-self._everybody, kind="stable"), limit, without)

    def habit(self, customer: str, limit: int, without: Collection[str] = ()) -> list[str]:
        """What this customer buys most; popularity decides between equals, so also fills the list."""
        own = self._own.get(customer)
        if own is None:
            return self.popular(limit, without)
        return self._first(np.lexsort((-self._everybody, -own)), limit, without)

    def _first(self, rows: NDArray[np.intp], limit: int, without: Collection[str]) -> list[str]:
        """The products of the first ``limit`` of ``rows`` that are not ``without``."""
        some = (self._products[row] for row in rows[: limit + len(without)].tolist())
        return [product for product in some if product not in without][:limit]
