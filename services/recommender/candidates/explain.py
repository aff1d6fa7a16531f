"""Reasons in words for the offers that were chosen, from the numbers that chose them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from services.recommender.candidates.gather import Chosen, Pool
from services.recommender.model import reasons
from services.recommender.model.situation import Situation, top_of

Pair = tuple[str, float]
"""Name of a product, and how many of 100 orders with it have the other one too."""

MOST = 2
MOST_HISTORY = 8
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
        return self._pairs(_most_bought(self._here))

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
        known = [product_id for product_id in among if product_id in learned.index]
        none: list[Pair | None] = [None] * len(self._wanted)
        if not known or not len(self._wanted) or not learned.neighbours.size:
            return none
        rows = np.array([learned.index[product_id] for product_id in known])
        hits = learned.neighbours[rows] == self._wanted[:, None, None]
        strength = np.where(hits, learned.weight[rows], 0.0).reshape(len(self._wanted), -1)
        best = strength.argmax(axis=1)
        width = learned.neighbours.shape[1]
        for place, at in enumerate(best.tolist()):
            if strength[place, at] > 0.0:
                product_id, row, column = known[at // width], rows[at // width], at % width
                none[place] = (self._name(product_id), float(learned.together[row, column]))
        return none

    def _name(self, product_id: str) -> str:
        shelf = self._here.tables.shelf
        position = shelf.index.get(product_id)
        return product_id if position is None else shelf.products[position].name


def _most_bought(here: Situation) -> list[str]:
    if not here.items:
        return []
    bought, ids = here.scene.bought, here.tables.shelf.ids
    found = np.flatnonzero(bought > 0.0)
    return [ids[position] for position in top_of(found, bought[found], MOST_HISTORY).tolist()]
