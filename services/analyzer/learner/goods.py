"""What is learned about goods: how popular each is and what goes with what, solved at fixed places."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from msgspec import Struct

from libs.common.clock import DAY, Millis
from libs.common.scoring.decay import HALF_LIFE_POPULARITY, HALF_LIFE_RECENT
from services.analyzer.learner.complements import (
    ComplementParameters,
    Solution,
    empty_solution,
    solve,
)
from services.analyzer.learner.counts import PAIR_SHIFT, OrderCounts
from services.analyzer.learner.pairs import Lists, PairLog, lists_from_pairs
from services.analyzer.model.lessons import OrderBrief, OrderChangeLesson


class GoodsParameters(Struct, frozen=True, kw_only=True):
    """How goods are counted, and when complements are solved.

    Parameters
    ----------
    half_life_popularity, half_life_recent, half_life_pairs:
        Of the counts, in ms of event time.
    first_solve:
        Orders before the first solve.
    growth:
        By this factor orders grow from one solve to the next.
    solve_every:
        Longest journal time between solves, in ms, while orders come in.
    """

    half_life_popularity: Millis = HALF_LIFE_POPULARITY
    half_life_recent: Millis = HALF_LIFE_RECENT
    half_life_pairs: Millis = 365 * DAY
    max_pairs: int = 1_000_000
    max_products: int = 100_000
    max_lines: int = 60
    first_solve: int = 20
    growth: float = 1.25
    solve_every: Millis = 28 * DAY
    complements: ComplementParameters = ComplementParameters()


class GoodsLearner:
    """Counts, the latest solution, and when the next one is due.

    Attributes
    ----------
    last_at:
        Journal time of the last order, in ms.
    pair_log:
        Neighbour lists of products that the solution lacks, kept at fixed places of the sequence.
    touched:
        Products that the solution lacks and that were bought since then, in the sequence they were.
    """

    def __init__(self, parameters: GoodsParameters) -> None:
        self.parameters = parameters
        self.counts = OrderCounts(
            self.parameters.half_life_popularity,
            self.parameters.half_life_recent,
            self.parameters.half_life_pairs,
            self.parameters.max_pairs,
            self.parameters.max_products,
            self.parameters.max_lines,
        )
        self.solution: Solution = empty_solution()
        self.last_at: Millis = 0
        self.solved_orders = 0
        self.solved_at: Millis = 0
        self.loose: dict[int, dict[int, float]] = {}
        """By number of a product that the solution lacks: numbers of the products bought with it, and the
        weights of those pairs, which are thousands to look up for each list among all pairs."""
        self.pair_log = PairLog()
        self.touched: dict[str, None] = {}
        self._solved: frozenset[str] = frozenset()
        self._landmark: Millis = 0

    def learn_one(self, lesson: OrderBrief | OrderChangeLesson) -> None:
        """Count what was bought, or came back."""
        product_ids = [line.product_id for line in lesson.lines]
        if isinstance(lesson, OrderChangeLesson):
            self.counts.unlearn_one(product_ids, lesson.occurred_at)
            self._weigh_alike()
            return
        self.last_at = max(self.last_at, lesson.at)
        numbers = self.counts.learn_one(product_ids, lesson.occurred_at)
        # Trap: what is imported may lie thousands of half-lives behind the journal time it is weighed at.
        self.counts.reach(self.last_at)
        self._weigh_alike()
        self._note_loose(numbers)
        if self.counts.crowded:
            self.counts.forget()
            self.sort_out()
            self._begin_pairs()
        elif self.counts.orders % self.parameters.complements.pair_orders == 0:
            self._keep_pairs()

    def due(self, now: Millis) -> Millis | None:
        """The journal time a solve falls due at, where it does by ``now``; it sees what is folded so far."""
        orders = self.counts.orders
        if orders < self.parameters.first_solve or orders == self.solved_orders:
            return None
        if orders >= self.solved_orders * self.parameters.growth:
            return self.last_at
        # Trap: due at its own time, not at that of the event or tick which passed it, which may differ.
        at = max(self.solved_at + self.parameters.solve_every, self.last_at)
        return at if now >= at else None

    def solve(self, at: Millis) -> Solution:
        """The solution that falls due at ``at``; changes nothing, so a thread may run it."""
        return solve(self.counts, at, self.parameters.complements)

    def accept(self, solution: Solution, at: Millis) -> None:
        """Use ``solution`` from here on."""
        self.solution = solution
        self.solved_orders = self.counts.orders
        self.solved_at = at
        self.sort_out()
        self._begin_pairs()

    def pending_pairs(self) -> Lists:
        """The lists of what was touched, from the present state."""
        index = self.counts.index
        numbers = [index[product_id] for product_id in self.touched if product_id in index]
        return self._pairs_of(numbers)

    def sort_out(self) -> None:
        """Find anew which products the solution lacks, and their pairs."""
        # Trap: by id. One that was forgotten and is bought again has another number, but still its list.
        self._solved = frozenset(self.solution.products)
        self._landmark = self.counts.pairs_decay.landmark
        products = enumerate(self.counts.products)
        self.loose = {number: {} for number, product_id in products if product_id not in self._solved}
        lacking = np.zeros(len(self.counts.products), dtype=np.bool_)
        lacking[list(self.loose)] = True
        pairs = self.counts.pairs
        keys = np.fromiter(pairs, dtype=np.int64, count=len(pairs))
        weights = np.fromiter(pairs.values(), dtype=np.float64, count=len(pairs))
        # Most pairs are of two products that the solution has: those are not even looked at one by one.
        first, second = keys >> PAIR_SHIFT, keys & ((1 << PAIR_SHIFT) - 1)
        for owner, other in (first, second), (second, first):
            loose = np.flatnonzero(lacking[owner])
            loose = loose[np.argsort(owner[loose], kind="stable")]
            owners = owner[loose]
            ends = np.flatnonzero(np.diff(owners, append=-1)) + 1
            for begin, end in pairwise([0, *ends.tolist()]):
                its = loose[begin:end]
                bought_with = zip(other[its].tolist(), weights[its].tolist(), strict=True)
                self.loose[int(owners[begin])].update(bought_with)

    def _weigh_alike(self) -> None:
        """Have the pairs of loose products again where all pairs were scaled, which is once in centuries."""
        if self.counts.pairs_decay.landmark != self._landmark:
            self.sort_out()

    def _keep_pairs(self) -> None:
        self.pair_log.add(self.pending_pairs())
        self.touched.clear()
        if self.pair_log.added > 2 * self.parameters.complements.pair_lists:
            newest, index = self.pair_log.newest(), self.counts.index
            self._log_anew(newest, self._most_popular(index[key] for key in newest if key in index))

    def _begin_pairs(self) -> None:
        """Make the lists of the most popular anew, and forget all others."""
        most = self._most_popular(self.loose)
        self._log_anew(self._pairs_of(most), most)
        self.touched.clear()

    def _log_anew(self, lists: Lists, numbers: list[int]) -> None:
        ids = [self.counts.products[number] for number in numbers]
        self.pair_log = PairLog()
        self.pair_log.add({product_id: lists[product_id] for product_id in ids if lists[product_id]})

    def _most_popular(self, numbers: Iterable[int]) -> list[int]:
        popular = self.counts.popular
        most = sorted(numbers, key=lambda number: (-popular[number], number))
        return most[: self.parameters.complements.pair_lists]

    def _pairs_of(self, numbers: list[int]) -> Lists:
        return lists_from_pairs(self.counts, numbers, self.loose, self.last_at, self.parameters.complements)

    def _note_loose(self, numbers: list[int]) -> None:
        products, pairs = self.counts.products, self.counts.pairs
        paired = numbers[: self.parameters.max_lines]
        for place, number in enumerate(numbers):
            if products[number] not in self._solved:
                self.touched[products[number]] = None
                others = self.loose.setdefault(number, {})
                if place < len(paired):
                    for other in paired:
                        if other < number:
                            others[other] = pairs[other << PAIR_SHIFT | number]
                        elif other > number:
                            others[other] = pairs[number << PAIR_SHIFT | other]
