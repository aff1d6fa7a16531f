"""What the customer bought before, and what he looked at lately."""

from __future__ import annotations

import numpy as np

from services.recommender.model.situation import Positions, Situation, top_of

REPEATS = 60
VIEWED = 20


def repeats(here: Situation) -> Positions:
    """Products he bought, the most often bought of late first."""
    bought = here.scene.bought
    found = np.flatnonzero((bought > 0.0) & here.open)
    return top_of(found, bought[found], REPEATS)


def viewed(here: Situation) -> Positions:
    """Products he looked at, the most and latest first."""
    looks = here.scene.viewed
    found = np.flatnonzero((looks > 0.0) & here.open)
    return top_of(found, looks[found], VIEWED)
