"""Comparable products and their price tiers: what up-selling may offer in place of what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.catalogue import Product

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SIZE_RANGE = 2.0
"""Comparable sizes differ by at most this factor."""
PRICE_RANGE = 3.0
"""Where a category says no sizes, prices of comparable products differ by at most this factor."""
NO_TIER = 0.5
"""Tier of a product that nothing can be compared with."""

Group = tuple[str, ...]


def group_of(product: Product) -> Group:
    """Where to look for products comparable with this one: its group by name, else category and unit."""
    if product.comparable_group:
        return ("group", product.comparable_group)
    if product.size is not None:
        return ("sized", product.category, product.unit or "")
    return ("unsized", product.category)


class Comparables:
    """Which of ``n`` products stand in for which, by position, and which of those are dearer.

    Products are comparable within the same ``comparable_group``; without one, within the same category
    and unit at 0.5 to 2 times the size, or, where no size is known, at a third to three times the price.

    Attributes
    ----------
    unit_price:
        Array (n,): price by size; the price itself where no size is known, or where the products of one
        ``comparable_group`` do not all say theirs in the same unit.
    group:
        A number of each product for where to look for its comparables, see `group_of`: those of other
        numbers are none.
    tier:
        Array (n,) in [0, 1]: the quantile (mid-rank) of a product's unit price among its comparables,
        `NO_TIER` where there are none.
    """

    def __init__(self, products: Sequence[Product]) -> None:
        self._price = np.array([product.price for product in products], dtype=np.float64)
        self._size = np.array([product.size or 1.0 for product in products])
        self._group: list[Group] = [group_of(product) for product in products]
        numbers: dict[Group, int] = {}
        self.group = [numbers.setdefault(group, len(numbers)) for group in self._group]
        members: dict[Group, list[int]] = {}
        for position, group in enumerate(self._group):
            members.setdefault(group, []).append(position)
        self._members = {group: np.array(positions) for group, positions in members.items()}
        self.unit_price = self._price / self._size
        for group, positions in self._members.items():
            said = {(products[at].unit, products[at].size is None) for at in positions.tolist()}
            if group[0] == "group" and len(said) > 1:
                self.unit_price[positions] = self._price[positions]
        self.tier = np.full(len(products), NO_TIER)
        for group, positions in self._members.items():
            self.tier[positions] = self._tiers(group, positions)

    def are(self, position: int, other: int) -> bool:
        """Whether the products at two positions are comparable with each other; a product is with itself."""
        group = self._group[position]
        if group != self._group[other]:
            return False
        if group[0] == "group":
            return True
        values, limit = (self._size, SIZE_RANGE) if group[0] == "sized" else (self._price, PRICE_RANGE)
        mine, theirs = values.item(position), values.item(other)
        return position == other or bool(theirs <= mine * limit and mine <= theirs * limit)

    def comparable_with(self, position: int) -> Ints:
        """Positions of the products comparable with that at ``position``, without itself, ascending."""
        group = self._group[position]
        members = self._members[group]
        mask = self._mask(group, members, np.array([position]))[0]
        mask &= members != position
        return np.asarray(members[mask], dtype=np.int64)

    def dearer(self, position: int, among: Ints) -> Ints:
        """Those of ``among`` that cost more per unit than the product at ``position``, the cheapest first."""
        dearer = among[self.unit_price[among] > self.unit_price[position]]
        return np.asarray(dearer[self.unit_price[dearer].argsort(kind="stable")], dtype=np.int64)

    def _mask(self, group: Group, members: Ints, of: Ints) -> NDArray[np.bool_]:
        """Which of ``members`` are comparable with each of ``of``: array (of, members)."""
        if group[0] == "group":
            return np.ones((len(of), len(members)), dtype=bool)
        values, limit = (self._size, SIZE_RANGE) if group[0] == "sized" else (self._price, PRICE_RANGE)
        mine, theirs = values[of][:, None], values[members][None, :]
        return np.asarray((theirs <= mine * limit) & (mine <= theirs * limit))

    def _tiers(self, group: Group, positions: Ints) -> Floats:
        tiers = np.full(len(positions), NO_TIER)
        # In blocks, so that a category of ten thousand products does not ask for a square of memory.
        for start in range(0, len(positions), 256):
            of = positions[start : start + 256]
            mask = self._mask(group, positions, of)
            theirs, mine = self.unit_price[positions][None, :], self.unit_price[of][:, None]
            below = ((theirs < mine) & mask).sum(axis=1)
            equal = ((theirs == mine) & mask).sum(axis=1)
            tiers[start : start + 256] = (below + 0.5 * equal) / mask.sum(axis=1)
        return tiers
