"""Comparable products by position, looked up once and remembered as long as the shelf stays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.scoring.features import Shelf

Positions = NDArray[np.int64]


MOST_HELD = 2_000_000
"""Positions kept in all peer groups together (16 MB)."""


class PeerGroup(NamedTuple):
    """What one product can be compared with: all, the dearer ones, and those of a higher tier too."""

    comparable: Positions
    dearer: Positions
    upgrades: Positions


class Peers:
    """Peer groups of one shelf, each made when first asked for."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._known: dict[int, PeerGroup] = {}
        self._held = 0

    def comparable(self, position: int, other: int) -> bool:
        """Whether one could stand in for the other; a product can for itself."""
        return self.shelf.comparables.are(position, other)

    def of(self, position: int) -> PeerGroup:
        """The peers of the product at ``position``."""
        group = self._known.get(position)
        if group is None:
            comparables = self.shelf.comparables
            comparable = comparables.comparable_with(position)
            dearer = comparable[self.shelf.price[comparable] > self.shelf.price[position]]
            group = PeerGroup(comparable, dearer, comparables.upgrades(position))
            self._held += sum(map(len, group))
            if self._held > MOST_HELD:
                # Where thousands are comparable with each other, remembering all would fill the memory.
                self._known.clear()
                self._held = sum(map(len, group))
            self._known[position] = group
        return group
