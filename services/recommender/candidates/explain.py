"""Reasons in words for the offers that were chosen, from the numbers that chose them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import itemgetter

import numpy as np

from libs.common.scoring.choice import FEATURES
from services.recommender.candidates.pool import Chosen, Pool
from services.recommender.model import reasons

Found = tuple[int, int]
"""Row and column of the learned complements where a pair of products stands."""

MOST = 2
OWN = ("habit", "usual", "recency", "due")
"""Features that speak of his own purchases."""
BY_THE_WAY = 1e3
"""Weaker than any contribution, and yet better than nothing."""
MOST_BASKET = 32
NOWHERE = -1
_OF_OWN = tuple(map(FEATURES.index, OWN))
_PAGE, _BASKET, _VIEWED = map(FEATURES.index, ("page", "basket", "viewed"))
_HISTORY, _FIRST_HISTORY = map(FEATURES.index, ("history", "first_history"))
_FIRST_PAGE, _FIRST_BASKET = map(FEATURES.index, ("first_page", "first_basket"))
_strength = itemgetter(0)

Reason = tuple[float, str]
"""How much what a sentence says spoke for the choice (log odds), and the sentence."""


class Explainer:
    """Explains the ``chosen`` candidates of one pool; the learned pairs of all are looked up at once."""

    def __init__(self, pool: Pool, chosen: Sequence[Chosen]) -> None:
        here = pool.here
        self._here = here
        learned = here.tables.learned.complements.index
        # Several offers can be of one product: pairs are looked up by product.
        named = dict.fromkeys(one.product_id for one in chosen if one.product_id is not None)
        self._products = [product_id for product_id in named if product_id in learned]
        # Padding of the lists of neighbours is −1 and so finds the last entry, which is nobody's.
        self._sought = np.full(len(learned) + 1, NOWHERE)
        self._sought[[learned[product_id] for product_id in self._products]] = range(len(self._products))
        self._speaks = dict(zip((one.at for one in chosen), pool.speaks(chosen), strict=True))
        self._page = self._pairs([here.page] if here.page is not None else [])
        self._basket = self._pairs(here.basket[:MOST_BASKET])

    @cached_property
    def _history(self) -> dict[str, Found]:
        return self._pairs([self._here.tables.shelf.ids[position] for position in self._here.look.usual])

    def reasons(self, one: Chosen) -> list[str]:
        """At most `MOST` sentences about a chosen candidate, the strongest first; never none."""
        found = [] if one.product_id is None else [*self._found(one, one.product_id), *self._of_source(one)]
        # Of equals the first stays first.
        found.sort(key=_strength, reverse=True)
        return [text for _, text in found[:MOST]] or [self._last(one)]

    def _found(self, one: Chosen, product_id: str) -> Iterator[Reason]:
        """What can be said of its product, as strong as it was in the choice."""
        here, speaks = self._here, self._speaks[one.at]
        if one.replaces >= 0:
            yield math.inf, reasons.better_than(here.name(one.replaces))
        if (pair := self._page.get(product_id)) is not None:
            yield speaks[_PAGE] + speaks[_FIRST_PAGE], reasons.goes_with_page(*self._told(pair))
        if (pair := self._basket.get(product_id)) is not None:
            yield speaks[_BASKET] + speaks[_FIRST_BASKET], reasons.goes_with_basket(*self._told(pair))
        item = here.items.get(product_id)
        if item is not None and item.orders > 0:
            yield sum(speaks[column] for column in _OF_OWN), reasons.usual(item)
        elif here.items and (pair := self._history.get(product_id)) is not None:
            yield speaks[_HISTORY] + speaks[_FIRST_HISTORY], reasons.goes_with_history(*self._told(pair))
        if item is not None and item.orders == 0 and item.last_viewed_at:
            yield speaks[_VIEWED], reasons.seen(item, here.now)

    def _of_source(self, one: Chosen) -> Iterator[Reason]:
        """What a source alone knows is said after what is his own."""
        if one.source == "trending":
            yield -BY_THE_WAY, reasons.TRENDING
        elif one.source == "category":
            category = self._here.tables.shelf.products[one.position].category
            yield -BY_THE_WAY, reasons.popular_in(category)
        elif one.source == "new":
            listed = int(self._here.tables.shelf.listed[one.position])
            yield -BY_THE_WAY, reasons.new(listed, self._here.now)
        elif one.offer is not None:
            # Its own words come first; what its kind alone says, last.
            said = isinstance(one.offer.content.get(reasons.SAID), str)
            yield math.inf if said else -BY_THE_WAY, reasons.authored(one.offer)

    def _last(self, one: Chosen) -> str:
        """What is said where nothing else can be."""
        if one.product_id is None:
            return reasons.FROM_RANGE if one.offer is None else reasons.authored(one.offer)
        sold = self._here.tables.log_share
        return reasons.POPULAR if sold[one.position] > sold.mean() else reasons.FROM_RANGE

    def _pairs(self, among: Sequence[str]) -> dict[str, Found]:
        """Of each product looked up the one of ``among`` that speaks most for it, where one does."""
        learned = self._here.tables.learned.complements
        rows = [row for product_id in among if (row := learned.index.get(product_id)) is not None]
        best: dict[str, Found] = {}
        if not rows or not self._products:
            return best
        sought = self._sought[learned.neighbours[rows]]
        row, column = (sought != NOWHERE).nonzero()
        place = sought[row, column]
        row = np.array(rows)[row]
        strongest = [0.0] * len(self._products)
        hits = zip(
            learned.weight[row, column].tolist(), place.tolist(), row.tolist(), column.tolist(), strict=True
        )
        for weight, at, *found in hits:
            # Trap: of equals the first counts, in the order of ``among``.
            if weight > strongest[at]:
                strongest[at] = weight
                best[self._products[at]] = (found[0], found[1])
        return best

    def _told(self, found: Found) -> tuple[str, float]:
        """Name of the product a pair was found with; in how many of 100 orders with it the other is, too."""
        learned, shelf = self._here.tables.learned.complements, self._here.tables.shelf
        product_id = learned.products[found[0]]
        position = shelf.index.get(product_id)
        name = product_id if position is None else shelf.products[position].name
        return name, learned.together.item(found)
