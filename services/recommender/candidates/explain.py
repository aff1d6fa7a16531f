"""Reasons in words for the offers that were chosen, from the numbers that chose them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from services.recommender.candidates.gather import Chosen, Pool
from services.recommender.model import reasons

Pair = tuple[str, float]
"""Name of a product, and how many of 100 orders with it have the other one too."""

MOST = 2
MOST_BASKET = 32


class Explainer:
    """Explains the ``chosen`` candidates of one pool; the learned pairs of all are looked up at once."""

    def __init__(self, pool: Pool, chosen: Sequence[Chosen]) -> None:
        here = pool.here
        self._here = here
        self._places = {one.at: place for place, one in enumerate(chosen)}
        learned = here.tables.learned.complements.index
        self._wanted = np.array(
            [-2 if one.product_id is None else learned.get(one.product_id, -2) for one in chosen]
        )
        self._page = self._pairs([here.page] if here.page is not None else [])
        self._basket = self._pairs(here.basket[:MOST_BASKET])

    @cached_property
    def _history(self) -> list[Pair | None]:
        return self._pairs([self._here.tables.shelf.ids[position] for position in self._here.usual])

    def reasons(self, one: Chosen) -> list[str]:
        """At most `MOST` sentences about a chosen candidate, the strongest first; never none."""
        if one.product_id is None:
            return [reasons.FROM_RANGE]
        here, place = self._here, self._places[one.at]
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
        """For each chosen candidate the product of ``among`` that speaks most for it, if any."""
        learned = self._here.tables.learned.complements
        rows = [row for product_id in among if (row := learned.index.get(product_id)) is not None]
        best: list[Pair | None] = [None] * len(self._wanted)
        if not rows or not len(self._wanted) or not learned.neighbours.size:
            return best
        hits = learned.neighbours[rows][:, :, None] == self._wanted
        strongest = [0.0] * len(best)
        for at, column, place in zip(*(axis.tolist() for axis in hits.nonzero()), strict=True):
            row = rows[at]
            # Trap: of equals the first counts, in the order of ``among``.
            if (weight := float(learned.weight[row, column])) > strongest[place]:
                strongest[place] = weight
                best[place] = (self._name(learned.products[row]), float(learned.together[row, column]))
        return best

    def _name(self, product_id: str) -> str:
        shelf = self._here.tables.shelf
        position = shelf.index.get(product_id)
        return product_id if position is None else shelf.products[position].name
