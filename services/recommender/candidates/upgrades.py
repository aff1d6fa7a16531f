"""Comparable products of a higher tier than the page's, or than what the customer usually buys."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from services.recommender.model.situation import Positions, Situation, top_of

UPGRADES = 30
USUAL = 8
"""So many of his most bought products can be the usual one of their kind."""
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
    better: list[Positions] = []
    index = here.tables.shelf.index
    page = index.get(here.page) if here.page is not None else None
    # Trap: of comparable products only the most bought is the usual one, or a customer's good coffee
    # would count as an up-sell of the cheap one he bought once.
    settled = np.zeros(here.size, dtype=np.bool_)
    for position in ([] if page is None else [page]) + _most_bought(here):
        if settled[position]:
            continue
        peers = here.peers.of(position)
        settled[position] = True
        settled[peers.comparable] = True
        if len(peers.dearer):
            free = peers.dearer[by[peers.dearer] == NOTHING]
            by[free] = position
            better.append(peers.upgrades)
    if not better:
        return Replaced(by, np.empty(0, dtype=np.int64))
    upgrades = np.concatenate(better)
    return Replaced(by, upgrades[here.open[upgrades]][:UPGRADES])


def _most_bought(here: Situation) -> list[int]:
    bought = here.scene.bought
    found = np.flatnonzero(bought > 0.0)
    usual: list[int] = top_of(found, bought[found], USUAL).tolist()
    return usual
