"""What sources look at, and how they choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from libs.common.scoring.features import Scene

Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]
Floats = NDArray[np.float64]

NOTHING = -1
NONE: Positions = np.empty(0, dtype=np.int64)
USUAL = 8
"""So many of a customer's products, the most bought first, are what he usually buys."""


@dataclass(frozen=True, eq=False)
class Look:
    """One request as sources see it.

    Attributes
    ----------
    scene:
        What is known of all ``n`` products of the shelf for this customer, here and now.
    open:
        Array (n,): what may be offered at all. It is masked before any candidate is chosen.
    page, basket:
        The product looked at and those in hand, by id.
    """

    scene: Scene
    open: Mask
    page: str | None = None
    basket: Sequence[str] = ()

    @property
    def page_at(self) -> int:
        """Position of the page's product, `NOTHING` without one."""
        return NOTHING if self.page is None else self.scene.tables.shelf.index.get(self.page, NOTHING)

    @cached_property
    def usual(self) -> list[int]:
        """Positions of what the customer usually buys, the most bought first."""
        owned = self.scene.past.owned
        found: list[int] = top_of(owned, self.scene.past.bought[owned], USUAL).tolist()
        return found


def top_of(positions: Positions, scores: Floats, top: int) -> Positions:
    """The ``top`` positions with the greatest ``scores``, best first, ties by position."""
    if len(positions) > 4 * top:
        # Trap: a partition alone would cut ties anywhere; all that tie with the last one stay in.
        kept = scores >= np.partition(scores, len(scores) - top)[len(scores) - top]
        positions, scores = positions[kept], scores[kept]
    best: Positions = positions[(-scores).argsort(kind="stable")[:top]]
    return best


def first_open(look: Look, ranking: Positions, top: int) -> Positions:
    """The first ``top`` open positions of a ``ranking`` that was made off the path."""
    some = ranking[: 4 * top]
    found: Positions = some[look.open[some]][:top]
    if len(found) < top and len(ranking) > len(some):
        found = ranking[look.open[ranking]][:top]
    return found
