"""What the customer bought before, and what he looked at lately."""

from __future__ import annotations

from libs.common.scoring.features import due
from libs.common.scoring.sources.look import Look, Positions, top_of

REPEATS = 60
VIEWED = 20


def repeats(look: Look) -> Positions:
    """Products he bought, first what he buys often and is due in its personal cycle."""
    past = look.scene.past
    found = past.owned[look.open[past.owned]]
    return top_of(found, past.bought[found] * (1.0 + due(past.age[found], past.cycle[found])), REPEATS)


def viewed(look: Look) -> Positions:
    """Products he looked at, the most and latest first."""
    past = look.scene.past
    found = past.looked_at[look.open[past.looked_at]]
    return top_of(found, past.viewed[found], VIEWED)
