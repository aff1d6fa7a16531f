"""What the customer bought before, and what he looked at lately."""

from __future__ import annotations

from services.recommender.model.situation import Positions, Situation, top_of

REPEATS = 60
VIEWED = 20


def repeats(here: Situation) -> Positions:
    """Products he bought, the most often bought of late first."""
    past = here.scene.past
    found = past.owned[here.open[past.owned]]
    return top_of(found, past.bought[found], REPEATS)


def viewed(here: Situation) -> Positions:
    """Products he looked at, the most and latest first."""
    past = here.scene.past
    found = past.looked_at[here.open[past.looked_at]]
    return top_of(found, past.viewed[found], VIEWED)
