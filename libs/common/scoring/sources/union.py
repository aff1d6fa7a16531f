"""All sources together: one candidate per product, and what it is an upgrade of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.scoring.arrays import parted
from libs.common.scoring.sources import complements, newcomers, popular, repeats, upgrades
from libs.common.scoring.sources.look import NONE, Look, Positions

SOURCES = (
    "page",
    "basket",
    "repeat",
    "viewed",
    "upgrade",
    "history",
    "trending",
    "new",
    "category",
    "popular",
    "authored",
)
"""Where candidates come from; what several sources name belongs to the first of them."""

CODES = {name: code for code, name in enumerate(SOURCES)}


class Candidates(NamedTuple):
    """What was found, (m,), by ascending shelf position.

    Parameters
    ----------
    positions, sources:
        Shelf positions, and a code of `SOURCES` for each.
    replaces:
        Position of the product each is dearer than, `NOTHING` where it is no upgrade.
    """

    positions: Positions
    sources: NDArray[np.int8]
    replaces: Positions


_SOURCES = (
    complements.of_page,
    complements.of_basket,
    repeats.repeats,
    repeats.viewed,
    None,
    complements.of_history,
    popular.trending,
    newcomers.new,
    popular.in_category,
    popular.popular,
)
"""What names candidates, in the order of `SOURCES`; upgrades are asked for what they replace, too."""


def candidates(look: Look, also: Positions = NONE) -> Candidates:
    """At most a few hundred products worth judging; ``also`` are open positions that must be among them."""
    return candidates_of([(look, also)])[0]


def candidates_of(asked: Sequence[tuple[Look, Positions]]) -> list[Candidates]:
    """`candidates` of several looks at one shelf, each as by itself."""
    instead = [upgrades.replaced(look) for look, _ in asked]
    source = np.full((len(asked), len(asked[0][0].open)), -1, dtype=np.int8)
    for row, (_, also) in enumerate(asked):
        source[row, also] = CODES["popular"]
    # One source after the other for all of them; what the first of several names is its own.
    for code in range(len(_SOURCES) - 1, -1, -1):
        name = _SOURCES[code]
        for (look, _), up, mine in zip(asked, instead, source, strict=True):
            mine[up.upgrades if name is None else name(look)] = code
    rows, found = (source >= 0).nonzero()
    sizes = np.bincount(rows, minlength=len(asked)).tolist()
    sources = source[rows, found]
    return [
        Candidates(positions, of_one, up.by[positions])
        for up, positions, of_one in zip(instead, parted(found, sizes), parted(sources, sizes), strict=True)
    ]
