"""Reasons in words for the offers that were chosen, from the numbers that chose them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from libs.common.scoring.choice import FEATURES
from services.recommender.candidates.pool import Chosen, Pool
from services.recommender.model import reasons

Pair = tuple[str, float]
"""Name of a product, and how many of 100 orders with it have the other one too."""

MOST = 2
OWN = ("habit", "usual", "recency", "due")
"""Features that speak of his own purchases."""
BY_THE_WAY = 1e3
"""Weaker than any contribution, and yet better than nothing."""
MOST_BASKET = 32
NOWHERE = -1


class Reason(NamedTuple):
    """A sentence, and how much what it says spoke for the choice (log odds)."""

    strength: float
    text: str


class Explainer:
    """Explains the ``chosen`` candidates of one pool; the learned pairs of all are looked up at once."""

    def __init__(self, pool: Pool, chosen: Sequence[Chosen]) -> None:
        here = pool.here
        self._pool, self._here = pool, here
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
        found = sorted(self._found(one), key=lambda reason: -reason.strength)
        return [reason.text for reason in found[:MOST]] or [self._last(one)]

    def _found(self, one: Chosen) -> Iterator[Reason]:
        """All that can be said of its product, as strong as it was in the choice."""
        if one.product_id is None:
            return
        here, place = self._here, self._places.get(one.product_id, NOWHERE)
        speaks = dict(zip(FEATURES, self._pool.contributions[one.at].tolist(), strict=True))
        if one.replaces >= 0:
            yield Reason(math.inf, reasons.better_than(here.name(one.replaces)))
        if (pair := self._page[place]) is not None:
            yield Reason(speaks["page"], reasons.goes_with_page(*pair))
        if (pair := self._basket[place]) is not None:
            yield Reason(speaks["basket"], reasons.goes_with_basket(*pair))
        item = here.items.get(one.product_id)
        if item is not None and item.orders > 0:
            own = sum(speaks.get(name, 0.0) for name in OWN)
            yield Reason(own, reasons.usual(item))
        elif here.items and (pair := self._history[place]) is not None:
            yield Reason(speaks["history"] + speaks["first_history"], reasons.goes_with_history(*pair))
        if item is not None and item.orders == 0 and item.last_viewed_at:
            yield Reason(speaks["viewed"], reasons.seen(item, here.now))
        yield from self._of_source(one)

    def _of_source(self, one: Chosen) -> Iterator[Reason]:
        """What a source alone knows is said after what is his own."""
        if one.source == "trending":
            yield Reason(-BY_THE_WAY, reasons.TRENDING)
        elif one.source == "category":
            category = self._here.tables.shelf.products[one.position].category
            yield Reason(-BY_THE_WAY, reasons.popular_in(category))
        elif one.source == "new":
            listed = int(self._here.tables.shelf.listed[one.position])
            yield Reason(-BY_THE_WAY, reasons.new(listed, self._here.now))
        elif one.offer is not None:
            # Its own words come first; what its kind alone says, last.
            said = isinstance(one.offer.content.get(reasons.SAID), str)
            yield Reason(math.inf if said else -BY_THE_WAY, reasons.authored(one.offer))

    def _last(self, one: Chosen) -> str:
        """What is said where nothing else can be."""
        if one.product_id is None:
            return reasons.FROM_RANGE if one.offer is None else reasons.authored(one.offer)
        sold = self._here.tables.log_share
        return reasons.POPULAR if sold[one.position] > sold.mean() else reasons.FROM_RANGE

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
