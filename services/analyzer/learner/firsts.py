"""How often who never had a product buys it: the rate of first purchases, beside popularity, which is mostly
of those who buy it again and again (trial and repeat: Parfitt & Collins 1968)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from libs.common.clock import Millis
from libs.common.contracts.learned_model import USUAL_FIRST
from libs.common.scoring.decay import HALF_LIFE_POPULARITY
from libs.common.scoring.shelf import Shelf
from services.analyzer.learner.arrays import packed, unpacked
from services.analyzer.learner.counts import Floats, ForwardDecay, Ints
from services.analyzer.model.lessons import OrderLesson

DOUBT = 20.0
"""Decayed orders that `USUAL_FIRST` counts for."""


class FirstsState(Struct, frozen=True, kw_only=True):
    """Everything that was counted, arrays as bytes of ``<f8``."""

    landmark: Millis = 0
    last: Millis = 0
    total: float = 0.0
    products: list[str] = []
    counts: bytes = b""
    joined: bytes = b""


class FirstPurchases:
    """Decayed numbers of orders, by product of the shelf: of who had it, and of who bought it first.

    Attributes
    ----------
    counts:
        Array (2, n): orders of customers who had bought each product before, and orders with it by others,
        in forward units of ``decay``.
    total:
        Orders, likewise.
    joined:
        Array (n,): ``total`` where each product came onto the shelf; of orders before, none could hold it.
    """

    def __init__(self) -> None:
        self.decay = ForwardDecay(HALF_LIFE_POPULARITY)
        self.last: Millis = 0
        self.total = 0.0
        self.products: Sequence[str] = ()
        self.counts: Floats = np.zeros((2, 0))
        self.joined: Floats = np.zeros(0)
        self._shelf: Shelf | None = None

    def learn_one(self, lesson: OrderLesson, shelf: Shelf, had: Ints) -> None:
        """Count an order of a customer who had bought what is at ``had`` on the shelf."""
        self._turn_to(shelf)
        if not self.total:
            self.decay.landmark = lesson.occurred_at
        self.last = max(self.last, lesson.at, lesson.occurred_at)
        if half_lives := self.decay.excess(self.last):
            factor = self.decay.move(half_lives)
            self.counts *= factor
            self.total *= factor
            self.joined *= factor
        weight = self.decay.weight(lesson.occurred_at)
        find = shelf.index.get
        bought = {place for line in lesson.lines if (place := find(line.product_id)) is not None}
        self.total += weight
        self.counts[0, had] += weight
        self.counts[1, sorted(bought.difference(had.tolist()))] += weight

    def rates(self) -> dict[str, float]:
        """By product: the share of orders of those who never had it that hold it."""
        scale = 1.0 / self.decay.weight(self.last)
        had, first = self.counts * scale
        others = np.maximum((self.total - self.joined) * scale - had, 0.0)
        rates = ((first + DOUBT * USUAL_FIRST) / (others + DOUBT)).astype(np.float32).tolist()
        return dict(zip(self.products, rates, strict=True))

    def state(self) -> FirstsState:
        return FirstsState(
            landmark=self.decay.landmark,
            last=self.last,
            total=self.total,
            products=list(self.products),
            counts=packed(self.counts),
            joined=packed(self.joined),
        )

    def restore(self, saved: FirstsState) -> None:
        """Go on from what was saved."""
        self.decay.landmark, self.last, self.total = saved.landmark, saved.last, saved.total
        self.products = saved.products
        self.counts = unpacked(saved.counts).reshape(2, len(saved.products))
        self.joined = unpacked(saved.joined)

    def _turn_to(self, shelf: Shelf) -> None:
        """Count on another shelf; what is no more on it is forgotten."""
        if shelf is self._shelf:
            return
        counts, joined = np.zeros((2, len(shelf))), np.full(len(shelf), self.total)
        kept = [place for place, key in enumerate(self.products) if key in shelf.index]
        to = [shelf.index[self.products[place]] for place in kept]
        counts[:, to], joined[to] = self.counts[:, kept], self.joined[kept]
        self._shelf, self.products, self.counts, self.joined = shelf, shelf.ids, counts, joined
