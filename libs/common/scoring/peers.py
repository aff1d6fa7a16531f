"""Comparable products by position, looked up once and remembered as long as the shelf stays."""

from __future__ import annotations

from typing import NamedTuple

from libs.common.scoring.comparables import Comparables, Ints

MOST_HELD = 2_000_000
"""Positions kept in all peer groups together (16 MB)."""


class PeerGroup(NamedTuple):
    """What one product can be compared with: all others, and those dearer per unit, the cheapest first."""

    comparable: Ints
    dearer: Ints


class Peers:
    """Peer groups of one shelf, each made when first asked for."""

    def __init__(self, comparables: Comparables) -> None:
        self._comparables = comparables
        self._known: dict[int, PeerGroup] = {}
        self._held = 0

    def comparable(self, position: int, other: int) -> bool:
        """Whether one could stand in for the other; a product can for itself."""
        return self._comparables.are(position, other)

    def of(self, position: int) -> PeerGroup:
        """The peers of the product at ``position``."""
        group = self._known.get(position)
        if group is None:
            comparable = self._comparables.comparable_with(position)
            group = PeerGroup(comparable, self._comparables.dearer(position, comparable))
            self._held += sum(map(len, group))
            if self._held > MOST_HELD:
                # Where thousands are comparable with each other, remembering all would fill the memory.
                self._known.clear()
                self._held = sum(map(len, group))
            self._known[position] = group
        return group
