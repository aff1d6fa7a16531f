"""Reasons in words for the offers that were chosen, from the numbers that chose them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from libs.common.contracts.learned_model import Neighbour
from services.recommender.candidates.gather import Pool
from services.recommender.model import reasons
from services.recommender.model.authored import NO_PRODUCT

MOST = 2
MOST_HISTORY = 16
MOST_BASKET = 32


class Explainer:
    """Explains one pool; what is needed for several offers is looked up once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._here = pool.here
        self._usual: list[str] | None = None

    def reasons(self, at: int) -> list[str]:
        """At most `MOST` sentences about candidate ``at``, the strongest first; never none."""
        position = int(self._pool.positions[at])
        if position == NO_PRODUCT:
            return [reasons.FROM_RANGE]
        here, scene = self._here, self._here.scene
        found: list[str] = []
        replaces = int(self._pool.replaces[at])
        if replaces >= 0:
            found.append(reasons.better_than(here.name(replaces)))
        found += self._goes_with(position)
        item = here.items.get(here.tables.shelf.ids[position])
        if item is not None and item.orders > 0:
            found.append(reasons.usual(item))
        elif (
            len(found) < MOST
            and scene.history[position] > 0.0
            and (pair := self._pair(position, self._most_bought())) is not None
        ):
            found.append(reasons.goes_with_history(self._name(pair[0]), pair[1]))
        if item is not None and item.orders == 0 and item.last_viewed_at:
            found.append(reasons.seen(item, here.now))
        return found[:MOST] or [self._common(position)]

    def _goes_with(self, position: int) -> list[str]:
        """What speaks for it on this page and with this basket."""
        here, scene = self._here, self._here.scene
        found: list[str] = []
        page = [] if here.page is None or scene.page[position] <= 0.0 else [here.page]
        if (pair := self._pair(position, page)) is not None:
            found.append(reasons.goes_with_page(self._name(pair[0]), pair[1]))
        basket = here.basket[:MOST_BASKET] if scene.basket[position] > 0.0 else []
        if (pair := self._pair(position, basket)) is not None:
            found.append(reasons.goes_with_basket(self._name(pair[0]), pair[1]))
        return found

    def _common(self, position: int) -> str:
        sold = self._here.tables.log_share
        return reasons.POPULAR if sold[position] > sold.mean() else reasons.FROM_RANGE

    def _name(self, product_id: str) -> str:
        shelf = self._here.tables.shelf
        position = shelf.index.get(product_id)
        return product_id if position is None else shelf.products[position].name

    def _most_bought(self) -> list[str]:
        if self._usual is None:
            bought = self._here.scene.bought
            ids = self._here.tables.shelf.ids
            some = np.argsort(-bought, kind="stable")[:MOST_HISTORY]
            self._usual = [ids[p] for p in some.tolist() if bought[p] > 0.0]
        return self._usual

    def _pair(self, position: int, among: Sequence[str]) -> tuple[str, Neighbour] | None:
        """The product of ``among`` that speaks most for ``position``, and what is known of the two."""
        learned = self._here.tables.learned.complements
        known = [p for p in among if p in learned.index]
        wanted = learned.index.get(self._here.tables.shelf.ids[position])
        if not known or wanted is None:
            return None
        rows = [learned.index[p] for p in known]
        hits, places = np.nonzero(learned.neighbours[rows] == wanted)
        if not len(hits):
            return None
        best, place = max(
            zip(hits.tolist(), places.tolist(), strict=True),
            key=lambda hit: float(learned.weight[rows[hit[0]], hit[1]]),
        )
        row = rows[best]
        return known[best], Neighbour(
            known[best],
            float(learned.weight[row, place]),
            float(learned.together[row, place]),
            float(learned.lift[row, place]),
        )
