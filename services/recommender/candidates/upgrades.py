"""Comparable products of a higher tier than the page's, or than what the customer usually buys."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from services.recommender.model.situation import Positions, Situation

UPGRADES = 30
NOTHING = -1


class Replaced(NamedTuple):
    """What dearer products would replace.

    Parameters
    ----------
    by:
        Array (n,): position of the product that one at this position would replace, `NOTHING` for none.
    upgrades:
        Positions of open products of a higher tier than what they replace.
    """

    by: Positions
    upgrades: Positions


def replaced(here: Situation) -> Replaced:
    """The page's product is replaced first, then the usual product among comparable ones."""
    by = np.full(here.size, NOTHING, dtype=np.int64)
    found = [(position, here.peers.of(position)) for position in _usual(here)]
    if not found:
        return Replaced(by, np.empty(0, dtype=np.int64))
    # Trap: backwards, because of several that one product could replace the last one written stays.
    for position, peers in reversed(found):
        by[peers.dearer] = position
    upgrades = np.concatenate([peers.upgrades for _, peers in found])
    return Replaced(by, upgrades[here.open[upgrades]][:UPGRADES])


def _usual(here: Situation) -> list[int]:
    """The page's product and the usual ones, of those comparable with each other only the first."""
    page = here.tables.shelf.index.get(here.page) if here.page is not None else None
    # Trap: of comparable products only the most bought is the usual one, or a customer's good coffee
    # would count as an up-sell of the cheap one he bought once.
    kinds: list[int] = []
    for position in here.usual if page is None else [page, *here.usual]:
        if not any(here.peers.comparable(position, other) for other in kinds):
            kinds.append(position)
    return kinds
