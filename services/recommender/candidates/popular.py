"""What everybody buys."""

from __future__ import annotations

from services.recommender.model.situation import Positions, Situation

POPULAR = 100


def popular(here: Situation, top: int = POPULAR) -> Positions:
    """Open products, most popular first; those nobody bought yet come last."""
    ranking = here.tables.popular
    some = ranking[: 4 * top]
    found: Positions = some[here.open[some]][:top]
    if len(found) < top and len(ranking) > len(some):
        found = ranking[here.open[ranking]][:top]
    return found
