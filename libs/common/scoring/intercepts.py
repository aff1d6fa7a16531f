"""What offers, and cells of offers that are alike, have beyond their features, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Intercepts:
    """Means and variances of offers (n) and of cells of offers (c) under every head.

    Attributes
    ----------
    offers, cells:
        The row of each; offers and cells not named have the heads' variances about 0.
    mean, deviation:
        Arrays (n + c + 2, heads), float32: offers, then cells, then an offer and a cell that nothing is
        known of.
    returned:
        Array (n + c + 2,), in the same order: of cells the share of sales that come back, of offers how many
        times that of its cell.
    """

    offers: Mapping[str, int]
    cells: Mapping[int, int]
    mean: Singles
    deviation: Singles
    returned: Singles

    def rows(self, offer_ids: Sequence[str], cells: Ints | None) -> tuple[Ints, Ints]:
        """Rows of offers and of their cells."""
        new = len(self.mean) - 2
        find = self.offers.get
        at: Ints = np.array([find(offer_id, new) for offer_id in offer_ids], dtype=np.int64)
        if cells is None or not self.cells:
            return at, np.full(len(at), new + 1)
        find_cell = self.cells.get
        return at, np.array([find_cell(cell, new + 1) for cell in cells.tolist()], dtype=np.int64)
