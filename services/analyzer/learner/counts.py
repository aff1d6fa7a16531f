"""Decayed counts of products in orders: how popular each is, and which are bought together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import Millis

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PAIR_SHIFT = 32
"""A pair (i < j) of product numbers is kept under the key ``i << PAIR_SHIFT | j``."""
HEADROOM = 512
"""Half-lives of forward growth before counts are scaled down (2⁵¹² is far from overflow)."""


class ForwardDecay:
    """Exponential decay counted forward (Cormode et al. 2009): an amount grows with its time instead.

    What happened at ``at`` counts 2^((at − landmark) / half-life); dividing by the weight of now gives the
    usual fading. So nothing is touched as time passes, and the order of events does not matter.

    Parameters
    ----------
    half_life:
        In ms.
    landmark:
        Time that weighs 1, in ms; the time of the first event.
    """

    def __init__(self, half_life: Millis, landmark: Millis = 0) -> None:
        self.half_life = half_life
        self.landmark = landmark

    def weight(self, at: Millis) -> float:
        """Weight of ``at`` relative to the landmark."""
        return float(2.0 ** ((at - self.landmark) / self.half_life))

    def excess(self, at: Millis) -> int:
        """By how many half-lives the landmark must move to keep ``at`` within `HEADROOM`; mostly 0."""
        ahead = (at - self.landmark) // self.half_life
        return int(ahead) if ahead > HEADROOM else 0

    def move(self, half_lives: int) -> float:
        """Move the landmark on; returns the factor for all counts, an exact power of two."""
        self.landmark += half_lives * self.half_life
        return float(2.0**-half_lives)


class OrderCounts:
    """Decayed numbers of orders with a product (and with a pair of products), over everybody.

    A product counts once per order, whatever its quantity. Products are numbered as they first appear, so
    equal orders in equal sequence give equal counts to the bit.

    Parameters
    ----------
    half_life_popularity, half_life_recent, half_life_pairs:
        In ms, over event time; of the recent ones the trend is made.
    max_pairs:
        Pairs kept; beyond it the lightest fifth is forgotten.
    max_products:
        Products kept; beyond it the least popular fifth is forgotten, with its pairs.
    max_lines:
        Products of one order that make pairs: the first so many of a larger one.

    Attributes
    ----------
    orders:
        Orders learned from, undecayed.
    products:
        Product ids by number.
    """

    def __init__(
        self,
        half_life_popularity: Millis,
        half_life_recent: Millis,
        half_life_pairs: Millis,
        max_pairs: int = 1_000_000,
        max_products: int = 100_000,
        max_lines: int = 60,
    ) -> None:
        self.popularity_decay = ForwardDecay(half_life_popularity)
        self.recent_decay = ForwardDecay(half_life_recent)
        self.pairs_decay = ForwardDecay(half_life_pairs)
        self.max_pairs = max_pairs
        self.max_products = max_products
        self.max_lines = max_lines
        self.orders = 0
        self.total = 0.0
        """Decayed number of orders, in forward units of ``popularity_decay``."""
        self.total_pairs = 0.0
        """The same in forward units of ``pairs_decay``."""
        self.products: list[str] = []
        self.index: dict[str, int] = {}
        self.seen: list[int] = []
        self.popular: list[float] = []
        self.recent: list[float] = []
        """Decayed orders with a product in forward units of ``recent_decay``."""
        self.support: list[float] = []
        """Decayed orders with a product in forward units of ``pairs_decay``: the diagonal of the pairs."""
        self.pairs: dict[int, float] = {}

    def learn_one(self, product_ids: Sequence[str], at: Millis) -> list[int]:
        """Count an order of ``product_ids`` at event time ``at``; returns their numbers, each once."""
        if not self.orders:
            for decay in (self.popularity_decay, self.recent_decay, self.pairs_decay):
                decay.landmark = at
        self.reach(at)
        numbers = [self._number(product_id) for product_id in dict.fromkeys(product_ids)]
        light, heavy = self.popularity_decay.weight(at), self.pairs_decay.weight(at)
        late = self.recent_decay.weight(at)
        self.orders += 1
        self.total += light
        self.total_pairs += heavy
        for number in numbers:
            self.seen[number] += 1
            self.popular[number] += light
            self.recent[number] += late
            self.support[number] += heavy
        pairs = self.pairs
        for i, j in combinations(sorted(numbers[: self.max_lines]), 2):
            key = i << PAIR_SHIFT | j
            pairs[key] = pairs.get(key, 0.0) + heavy
        return numbers

    def unlearn_one(self, product_ids: Sequence[str], at: Millis) -> None:
        """Goods were cancelled or came back at ``at``: they were not that popular.

        Pairs stay: what came back was still wanted together.
        """
        if not self.orders:
            return
        self.reach(at)
        weight, late = self.popularity_decay.weight(at), self.recent_decay.weight(at)
        for product_id in dict.fromkeys(product_ids):
            number = self.index.get(product_id)
            if number is not None:
                self.popular[number] = max(self.popular[number] - weight, 0.0)
                self.recent[number] = max(self.recent[number] - late, 0.0)

    @property
    def crowded(self) -> bool:
        """Whether `forget` has something to do."""
        return len(self.pairs) > self.max_pairs or len(self.products) > self.max_products

    def forget(self) -> None:
        """Come back within the bounds. Product numbers change where products leave."""
        if len(self.products) > self.max_products:
            self._forget_products()
        if len(self.pairs) > self.max_pairs:
            keys, values = self.pair_arrays()
            kept = np.lexsort((keys, -values))[: self.max_pairs * 4 // 5]
            self.pairs = dict(zip(keys[kept].tolist(), values[kept].tolist(), strict=True))

    def pair_arrays(self) -> tuple[Ints, Floats]:
        """Keys and forward weights of all pairs, by ascending key."""
        keys = np.fromiter(self.pairs.keys(), dtype=np.int64, count=len(self.pairs))
        values = np.fromiter(self.pairs.values(), dtype=np.float64, count=len(self.pairs))
        order = np.argsort(keys, kind="stable")
        return keys[order], values[order]

    def _forget_products(self) -> None:
        popular = np.array(self.popular)
        kept = np.sort(np.lexsort((np.arange(len(popular)), -popular))[: self.max_products * 4 // 5])
        renumbered = {old: new for new, old in enumerate(kept.tolist())}
        self.products = [self.products[old] for old in renumbered]
        self.index = {product_id: number for number, product_id in enumerate(self.products)}
        self.seen = [self.seen[old] for old in renumbered]
        self.popular = [self.popular[old] for old in renumbered]
        self.recent = [self.recent[old] for old in renumbered]
        self.support = [self.support[old] for old in renumbered]
        mask = (1 << PAIR_SHIFT) - 1
        # Numbers keep their order, so i < j stays true.
        self.pairs = {
            renumbered[key >> PAIR_SHIFT] << PAIR_SHIFT | renumbered[key & mask]: value
            for key, value in self.pairs.items()
            if key >> PAIR_SHIFT in renumbered and key & mask in renumbered
        }

    def _number(self, product_id: str) -> int:
        number = self.index.get(product_id)
        if number is None:
            number = self.index[product_id] = len(self.products)
            self.products.append(product_id)
            self.seen.append(0)
            self.popular.append(0.0)
            self.recent.append(0.0)
            self.support.append(0.0)
        return number

    def reach(self, at: Millis) -> None:
        """See to it that ``at`` can be weighed; what is scaled for it is scaled by powers of two, exactly."""
        if half_lives := self.popularity_decay.excess(at):
            factor = self.popularity_decay.move(half_lives)
            self.total *= factor
            self.popular = [value * factor for value in self.popular]
        if half_lives := self.recent_decay.excess(at):
            factor = self.recent_decay.move(half_lives)
            self.recent = [value * factor for value in self.recent]
        if half_lives := self.pairs_decay.excess(at):
            factor = self.pairs_decay.move(half_lives)
            self.total_pairs *= factor
            self.support = [value * factor for value in self.support]
            self.pairs = {key: value * factor for key, value in self.pairs.items()}
