"""What everybody buys: overall, in the categories at hand, and more than usual of late."""

from __future__ import annotations

import numpy as np

from libs.common.scoring.sources.look import NONE, NOTHING, Look, Positions, first_open, top_of

POPULAR = 100
OF_PAGE = 20
OF_FAVOURITE = 10
FAVOURITES = 3
"""So many of the categories a customer buys most in are looked into."""
TRENDING = 20


def popular(look: Look, top: int = POPULAR) -> Positions:
    """Open products, most popular first; those nobody bought yet come last."""
    return first_open(look, look.scene.tables.rankings.popular, top)


def in_category(look: Look) -> Positions:
    """The most popular of the page's category, and of those he buys most in."""
    shelf, past = look.scene.tables.shelf, look.scene.past
    rankings = look.scene.tables.rankings
    page = look.page_at
    wanted = {} if page == NOTHING else {int(shelf.category[page]): OF_PAGE}
    if len(past.owned):
        categories = shelf.category[past.owned]
        heaviest = top_of(categories, past.affinity[categories], len(categories))
        for category in list(dict.fromkeys(heaviest.tolist()))[:FAVOURITES]:
            wanted.setdefault(category, OF_FAVOURITE)
    found = [
        first_open(look, rankings.by_category[rankings.starts[category] : rankings.starts[category + 1]], top)
        for category, top in wanted.items()
    ]
    return np.concatenate(found) if found else NONE


def trending(look: Look) -> Positions:
    """Open products that are bought more than usual of late, the strongest first."""
    return first_open(look, look.scene.tables.rankings.trending, TRENDING)
