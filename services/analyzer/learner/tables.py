"""Shelf and scoring tables of the learner: the catalogue beside its own counts, made anew at fixed places."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from libs.common.clock import DAY, Millis
from libs.common.contracts.catalogue import Product
from libs.common.contracts.learned_model import OccasionsPart, Popular
from libs.common.scoring.features import ScoringTables, Shelf
from libs.common.scoring.learned import Complements, LearnedModels, complements_of, popularity_of
from libs.common.scoring.occasions import occasions_of
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.complements import Solution
from services.analyzer.learner.firsts import FirstPurchases
from services.analyzer.learner.goods import GoodsLearner
from services.analyzer.learner.occasions import OccasionCounts
from services.analyzer.learner.pairs import Lists
from services.analyzer.learner.popular import popular_of

LONGEST: Millis = DAY
"""Tables are made anew after a solve, and after this much journal time in which orders came."""
PAIRS_LONGEST: Millis = 7 * DAY
"""The same of the lists of what the solution lacks: few are chosen by them, and they are much to make."""


class TablesState(Struct, frozen=True, kw_only=True):
    """What tables were made of, beside the latest solution: they cannot be had back from later counts."""

    products: list[Product] = []
    popularity: list[Popular] = []
    pairs: Lists = {}
    occasions: list[OccasionsPart] = []
    orders: int = 0
    at: Millis = 0
    solved_orders: int = 0
    pairs_at: Millis = 0


class Tables:
    """Keeps `ScoringTables` of a catalogue and of what is known about goods.

    What they say is what a recommender's would that had read a publication of the place they were made at,
    but for the lists of pairs, which may be older.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.state = TablesState()
        self._made: ScoringTables | None = None
        self._changes = -1
        self._solution: Solution | None = None
        self._solved: Complements | None = None
        self._pairs: Lists | None = None
        self._complements: Complements | None = None

    def now(
        self, goods: GoodsLearner, firsts: FirstPurchases, occasions: OccasionCounts
    ) -> ScoringTables | None:
        """The tables to use at this place; None while there is nothing to choose from."""
        if self._due(goods):
            self._note(goods, firsts, occasions)
            self._make(goods.solution)
        elif self._made is None and self.state.products:
            self._make(goods.solution)
        return self._made

    @property
    def until(self) -> Millis:
        """Orders before this journal time see the tables of now, unless a solve comes between."""
        return self.state.at + LONGEST

    def restore(self, state: TablesState) -> None:
        """Go on from what was saved; the tables themselves are made when they are needed."""
        self.state = state
        self.catalogue.remember(state.products)
        self._made = None

    def _due(self, goods: GoodsLearner) -> bool:
        state = self.state
        if not state.products:
            return self._changes != self.catalogue.changes
        return goods.solved_orders != state.solved_orders or goods.last_at >= state.at + LONGEST

    def _note(self, goods: GoodsLearner, firsts: FirstPurchases, occasions: OccasionCounts) -> None:
        products = self.state.products
        if self._changes != self.catalogue.changes:
            self._changes = self.catalogue.changes
            products = self.catalogue.products()
        state, solved = self.state, goods.solved_orders != self.state.solved_orders
        fresh = solved or goods.last_at >= state.pairs_at + PAIRS_LONGEST
        self.state = TablesState(
            products=products,
            popularity=popular_of(goods, firsts),
            pairs=goods.pair_log.newest() if fresh else state.pairs,
            occasions=occasions.told(),
            orders=goods.counts.orders,
            at=goods.last_at,
            solved_orders=goods.solved_orders,
            pairs_at=goods.last_at if fresh else state.pairs_at,
        )

    def _make(self, solution: Solution) -> None:
        state, before = self.state, self._made
        if not state.products:
            self._made = None
            return
        if self._solved is None or self._solution is not solution:
            self._solution, self._solved = solution, _complements_of(solution)
        if self._complements is None or self._pairs is not state.pairs or before is None:
            self._pairs, self._complements = state.pairs, complements_of(state.pairs, self._solved)
        learned = LearnedModels(
            orders=state.orders,
            popularity=popularity_of(state.popularity),
            complements=self._complements,
            occasions=occasions_of(state.occasions),
        )
        same = before is not None and before.shelf.products == tuple(state.products)
        shelf = before.shelf if before is not None and same else Shelf(state.products)
        self._made = ScoringTables.align(shelf, learned, before)


def _complements_of(solution: Solution) -> Complements:
    """The lists of a solution as readers have them, without a detour over lists in Python."""
    products = list(solution.products)
    weight, together, lift = (
        array.astype(np.float64) for array in (solution.weight, solution.together, solution.lift)
    )
    index = {product_id: row for row, product_id in enumerate(products)}
    return Complements(products, index, solution.places.astype(np.int64), weight, together, lift)
