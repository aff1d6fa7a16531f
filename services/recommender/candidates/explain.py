"""Reasons in words for the offers that were chosen, from the numbers that chose them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from services.recommender.candidates.pool import Chosen, Pool
from services.recommender.model import reasons

Pair = tuple[str, float]
"""Name of a product, and how many of 100 orders with it have the other one too."""

MOST = 2
MOST_BASKET = 32
NOWHERE = -1


class Explainer:
    """Explains the ``chosen`` candidates of one pool; the learned pairs of all are looked up at once."""

    def __init__(self, pool: Pool, chosen: Sequence[Chosen]) -> None:
        here = pool.here
        self._here = here
        learned = here.tables.learned.complements.index
        # Several offers can be of one product: pairs are looked up by product.
        named = dict.fromkeys(one.product_id for one in chosen if one.product_id is not None)
        products = [product_id for product_id in named if product_id in learned]
        self._places = {product_id: place for place, product_id in enumerate(products)}
        # Padding of the lists of neighbours is −1 and so finds the last entry, which is nobody's.
        self._sought = np.full(len(learned) + 1, NOWHERE)
        for product_id, place in self._places.items():
            self._sought[learned[product_id]] = place
        self._page = self._pairs([here.page] if here.page is not None else [])
        self._basket = self._pairs(here.basket[:MOST_BASKET])

    @cached_property
    def _history(self) -> list[Pair | None]:
        return self._pairs([self._here.tables.shelf.ids[position] for position in self._here.look.usual])

    def reasons(self, one: Chosen) -> list[str]:
        """At most `MOST` sentences about a chosen candidate, the strongest first; never none."""
        if one.product_id is None:
            return [reasons.FROM_RANGE]
        here, place = self._here, self._places.get(one.product_id, NOWHERE)
        found: list[str] = []
        if one.replaces >= 0:
            found.append(reasons.better_than(here.name(one.replaces)))
        if (pair := self._page[place]) is not None:
            found.append(reasons.goes_with_page(*pair))
        if (pair := self._basket[place]) is not None:
            found.append(reasons.goes_with_basket(*pair))
        if len(found) >= MOST:
            return found[:MOST]
        item = here.items.get(one.product_id)
        if item is not None and item.orders > 0:
            found.append(reasons.usual(item))
        elif here.items and (pair := self._history[place]) is not None:
            found.append(reasons.goes_with_history(*pair))
        if item is not None and item.orders == 0 and item.last_viewed_at:
            found.append(reasons.seen(item, here.now))
        return found[:MOST] or [self._common(one.position)]

    def _common(self, position: int) -> str:
        sold = self._here.tables.log_share
        return reasons.POPULAR if sold[position] > sold.mean() else reasons.FROM_RANGE

    def _pairs(self, among: Sequence[str]) -> list[Pair | None]:
        """For each product looked up the one of ``among`` that speaks most for it; the last is for others."""
        learned = self._here.tables.learned.complements
        rows = [row for product_id in among if (row := learned.index.get(product_id)) is not None]
        best: list[Pair | None] = [None] * (len(self._places) + 1)
        if not rows or not self._places or not learned.neighbours.size:
            return best
        near = learned.neighbours[rows].ravel()
        sought = self._sought[near]
        hits = (sought != NOWHERE).nonzero()[0]
        width = learned.neighbours.shape[1]
        strongest = [0.0] * len(best)
        for at, place in zip(hits.tolist(), sought[hits].tolist(), strict=True):
            row, column = rows[at // width], at % width
            # Trap: of equals the first counts, in the order of ``among``.
            if (weight := float(learned.weight[row, column])) > strongest[place]:
                strongest[place] = weight
                best[place] = (self._name(learned.products[row]), float(learned.together[row, column]))
        return best

    def _name(self, product_id: str) -> str:
        shelf = self._here.tables.shelf
        position = shelf.index.get(product_id)
        return product_id if position is None else shelf.products[position].name
