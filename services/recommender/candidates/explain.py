"""Reasons in words for the offers that were chosen, from the numbers that chose them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

import numpy as np

from libs.common.scoring.choice import FEATURES
from libs.common.scoring.learned import Complements
from services.recommender.candidates.pool import Chosen, Pool
from services.recommender.model import reasons
from services.recommender.model.situation import Situation

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
    """Explains chosen candidates of one pool; `explainers` makes it.

    Parameters
    ----------
    speaks:
        `Pool.contributions` of each, by its place in the pool.
    page, basket, history:
        Where the pair stands that speaks most for a product, by its id: with the page's product, with one in
        the basket, with one he usually buys.
    """

    def __init__(
        self,
        here: Situation,
        speaks: Mapping[int, list[float]],
        page: Mapping[str, Found],
        basket: Mapping[str, Found],
        history: Mapping[str, Found],
    ) -> None:
        self._here = here
        self._speaks = speaks
        self._page = page
        self._basket = basket
        self._history = history

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
        tables = self._here.tables
        popular = tables.log_share[one.position] > tables.mean_log_share
        return reasons.POPULAR if popular else reasons.FROM_RANGE

    def _told(self, found: Found) -> tuple[str, float]:
        """Name of the product a pair was found with; in how many of 100 orders with it the other is, too."""
        learned, shelf = self._here.tables.learned.complements, self._here.tables.shelf
        product_id = learned.products[found[0]]
        position = shelf.index.get(product_id)
        name = product_id if position is None else shelf.products[position].name
        return name, learned.together.item(found)


def explainers(asked: Sequence[tuple[Pool, Sequence[Chosen]]]) -> list[Explainer]:
    """Of pools with the same tables, and what was chosen from each: learned pairs are looked up at once."""
    heres = [pool.here for pool, _ in asked]
    learned = heres[0].tables.learned.complements
    ids = heres[0].tables.shelf.ids
    # Several offers can be of one product: pairs are looked up by product.
    named = [dict.fromkeys(one.product_id for one in chosen) for _, chosen in asked]
    products = [[name for name in some if name is not None and name in learned.index] for some in named]
    pairs = _pairs(
        learned,
        products,
        [
            (
                [here.page] if here.page is not None else [],
                here.basket[:MOST_BASKET],
                [ids[position] for position in here.look.usual],
            )
            for here in heres
        ],
    )
    return [
        Explainer(pool.here, dict(zip((one.at for one in chosen), pool.speaks(chosen), strict=True)), *of_one)
        for (pool, chosen), of_one in zip(asked, pairs, strict=True)
    ]


def _pairs(
    learned: Complements,
    products: Sequence[Sequence[str]],
    lists: Sequence[tuple[Sequence[str], Sequence[str], Sequence[str]]],
) -> list[tuple[dict[str, Found], dict[str, Found], dict[str, Found]]]:
    """For each list: of each of its pool's products the one of the list that speaks most for it, if any."""
    find = learned.index.get
    rows: list[int] = []
    whose: list[tuple[int, int]] = []
    for at, three in enumerate(lists):
        for number, among in enumerate(three):
            found = [row for product_id in among if (row := find(product_id)) is not None]
            rows += found
            whose += [(at, number)] * len(found)
    best: list[tuple[dict[str, Found], dict[str, Found], dict[str, Found]]] = [({}, {}, {}) for _ in lists]
    if not rows:
        return best
    # Padding of the lists of neighbours is −1 and so finds the last entry, which is nobody's.
    sought = np.full((len(products), len(learned.index) + 1), NOWHERE, dtype=np.int16)
    for at, some in enumerate(products):
        sought[at, [learned.index[product_id] for product_id in some]] = range(len(some))
    places = sought[np.array([at for at, _ in whose])[:, None], learned.neighbours[rows]]
    from_, column = (places != NOWHERE).nonzero()
    row = np.array(rows)[from_]
    strongest: dict[tuple[int, int, int], float] = {}
    hits = (learned.weight[row, column], from_, places[from_, column], row, column)
    for weight, entry, place, at_row, at_column in zip(*(some.tolist() for some in hits), strict=True):
        at, number = whose[entry]
        # Trap: of equals the first counts, in the order of the list.
        if weight > strongest.get((at, number, place), 0.0):
            strongest[at, number, place] = weight
            best[at][number][products[at][place]] = (at_row, at_column)
    return best
