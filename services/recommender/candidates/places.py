"""Who goes on where there are more candidates than places: the best, and some of each source that learns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from libs.common.scoring.sources.union import CODES

MOST = 100
"""So many candidates go on to the policy."""
FEW, SHORT = 64, 16
"""So many are enough for so few slots: those behind them are dear to judge and hardly ever drawn."""

RESERVED: Mapping[int, int] = {
    CODES["new"]: 10,
    CODES["upgrade"]: 10,
    CODES["trending"]: 5,
    CODES["authored"]: 10,
}
"""Places kept for the best of a source: what nobody was shown yet looks bad until it is drawn."""


def room(limit: int) -> int:
    """How many candidates go on for ``limit`` slots."""
    return FEW if limit <= SHORT else MOST


def best(
    by: NDArray[np.float64],
    sources: NDArray[np.int8],
    most: int = MOST,
    reserved: Mapping[int, int] = RESERVED,
) -> NDArray[np.int64]:
    """Ascending indices of the at most ``most`` that go on, ranked by ``by``, the greatest first."""
    order: NDArray[np.int64] = (-by).argsort(kind="stable")
    if len(order) <= most:
        return np.sort(order)
    kept = np.zeros(len(order), dtype=bool)
    ranked = sources[order]
    left = most
    for source, places in reserved.items():
        of_source = order[ranked == source][: min(places, left)]
        kept[of_source] = True
        left -= len(of_source)
    kept[order[~kept[order]][:left]] = True
    return kept.nonzero()[0]
