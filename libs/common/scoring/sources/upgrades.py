"""Comparable products, dearer per unit than the page's or than what the customer usually buys."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from libs.common.scoring.features import HABIT_FLOOR, willingness
from libs.common.scoring.sources.look import NONE, NOTHING, Floats, Look, Positions, top_of

UPGRADES = 30
"""So many of the page's product, and so many of what he usually buys."""

_HABIT, _LOYALTY, _WILLING = 1.9, 0.5, 0.7
"""Beside 1 for the log of popularity; see `_worth`."""


class Replaced(NamedTuple):
    """What dearer products would replace.

    Parameters
    ----------
    by:
        Array (n,): position of the product that one at this position would replace, `NOTHING` for none.
    upgrades:
        Positions of open products dearer per unit than what they replace, the likeliest first.
    """

    by: Positions
    upgrades: Positions


def replaced(look: Look) -> Replaced:
    """The page's product is replaced first, then the usual product among comparable ones."""
    peers = look.scene.tables.shelf.peers
    by = np.full(len(look.open), NOTHING, dtype=np.int64)
    for position in reversed(_replaceable(look)):
        # Trap: backwards, because of several that one product could replace the last one written stays.
        by[peers.of(position).dearer] = position
    found = ((by != NOTHING) & look.open).nonzero()[0]
    worth = _worth(look, found)
    if look.page_at == NOTHING:
        return Replaced(by, top_of(found, worth, UPGRADES))
    of_page = by[found] == look.page_at
    # Rooms of their own, so that what he usually buys crowds out nothing that could replace the page's.
    rooms = [top_of(found[some], worth[some], UPGRADES) for some in (of_page, ~of_page) if some.any()]
    return Replaced(by, np.concatenate(rooms) if rooms else NONE)


def _replaceable(look: Look) -> list[int]:
    """The page's product and the usual ones, of those comparable with each other only the first."""
    page, peers = look.page_at, look.scene.tables.shelf.peers
    # Trap: of comparable products only the most bought is the usual one, or a customer's good coffee
    # would count as an up-sell of the cheap one he bought once.
    group, kinds = look.scene.tables.shelf.comparables.group, list[int]()
    rivals: dict[int, list[int]] = {}
    for position in look.usual if page == NOTHING else [page, *look.usual]:
        near = rivals.setdefault(group[position], [])
        if not any(peers.comparable(position, other) for other in near):
            near.append(position)
            kinds.append(position)
    return kinds


def _worth(look: Look, found: Positions) -> Floats:
    """How likely each is taken instead: popular, known to him, of his brands, of a tier he pays for."""
    tables, past = look.scene.tables, look.scene.past
    return np.asarray(
        tables.log_share[found]
        + _HABIT * np.log(past.bought[found] + HABIT_FLOOR)
        + _LOYALTY * past.loyal[tables.shelf.brand[found]]
        + _WILLING * willingness(look.scene, found)
    )
