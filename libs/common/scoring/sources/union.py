"""All sources together: one candidate per product, and what it is an upgrade of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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


def candidates(look: Look, also: Positions = NONE) -> Candidates:
    """At most a few hundred products worth judging; ``also`` are open positions that must be among them."""
    instead = upgrades.replaced(look)
    lists = (
        complements.of_page(look),
        complements.of_basket(look),
        repeats.repeats(look),
        repeats.viewed(look),
        instead.upgrades,
        complements.of_history(look),
        popular.trending(look),
        newcomers.new(look),
        popular.in_category(look),
        popular.popular(look),
    )
    source = np.full(len(look.open), -1, dtype=np.int8)
    source[also] = CODES["popular"]
    for code in range(len(lists) - 1, -1, -1):
        source[lists[code]] = code
    found: Positions = (source >= 0).nonzero()[0]
    return Candidates(found, source[found], instead.by[found])
