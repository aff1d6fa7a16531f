"""How long it takes until something comes of an offer: the share seen by an age, from a life table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.scoring.response import EVERYWHERE

Floats = NDArray[np.float64]

AGES = (1 / 64, 1 / 16, 1 / 4, 1.0)
"""Ends of the spans of age that are told apart, as shares of the window: where trials are looked at."""
START = (0.35, 0.6, 0.85, 1.0)
"""Shares seen by `AGES` before anything is known."""
START_WEIGHT, PLACE_WEIGHT = 4.0, 20.0
"""Events that this start is worth, and what holds everywhere for a placement."""
RARE = 0.02
"""How many trials something comes of, before anything is known."""
MOST_PLACES = 64
FRESH_SHARE, MOST_FRESH = 32, 256
"""Shares are found anew when what was counted has grown by so manieth part, at the latest by so many."""


class Known(NamedTuple):
    """Shares seen by `AGES`, and how much had been counted when they were found."""

    shares: tuple[float, ...]
    counted: int


class Delays:
    """Learns F: of what comes of a trial within its window, the share that has come by an age.

    Events and survivors are counted span by span, as in a life table (Kaplan & Meier 1958): trials that are
    still young count in the spans they have passed and in no other. A histogram of the ages of events would
    take the first days' haste for the rule.

    Attributes
    ----------
    counts:
        By placement (`EVERYWHERE`: all of them) an array (2, spans): events, and trials that passed without.
    counted:
        How much was counted in each, not faded.
    known:
        What is said of each.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Floats] = {EVERYWHERE: np.zeros((2, len(AGES)))}
        self.counted = {EVERYWHERE: 0}
        self.known = {EVERYWHERE: Known(_shares(self.counts[EVERYWHERE], START, START_WEIGHT), 0)}

    def event(self, placement: str, age: float) -> None:
        """Something came at ``age``, a share of the window."""
        self._count(placement, 0, _span(age))

    def passed(self, placement: str, since: float, age: float) -> None:
        """Nothing came between the ages ``since`` and ``age``."""
        for span, end in enumerate(AGES):
            if since < end <= age:
                self._count(placement, 1, span)

    def seen(self, placement: str, age: float) -> float:
        """F(age), 0 at first and 1 at the end of the window; between `AGES` a straight line."""
        shares = self.shares(placement)
        if age >= 1.0:
            return 1.0
        begin = low = 0.0
        for end, high in zip(AGES, shares, strict=True):
            if age <= end:
                return low + (high - low) * max(age - begin, 0.0) / (end - begin)
            begin, low = end, high
        return 1.0

    def shares(self, placement: str) -> tuple[float, ...]:
        """F at `AGES`."""
        return (self.known.get(placement) or self.known[EVERYWHERE]).shares

    def fade(self, factor: float) -> None:
        """Let all counts be ``factor`` of what they were; what is said goes back towards the first belief."""
        # `EVERYWHERE` comes first, and the others lean on it.
        for place, counts in self.counts.items():
            counts *= factor
            self.known[place] = Known(self._found(place), self.counted[place])

    def _count(self, placement: str, row: int, span: int) -> None:
        if placement not in self.counts and len(self.counts) < MOST_PLACES:
            self.counts[placement], self.counted[placement] = np.zeros((2, len(AGES))), 0
        for place in (EVERYWHERE, placement) if placement in self.counts and placement else (EVERYWHERE,):
            self.counts[place][row, span] += 1.0
            counted = self.counted[place] = self.counted[place] + 1
            known = self.known.get(place)
            # Trap: here and not when asked, because who reads must change nothing.
            if known is None or counted - known.counted > min(known.counted // FRESH_SHARE, MOST_FRESH):
                self.known[place] = Known(self._found(place), counted)

    def _found(self, placement: str) -> tuple[float, ...]:
        if placement == EVERYWHERE:
            return _shares(self.counts[EVERYWHERE], START, START_WEIGHT)
        return _shares(self.counts[placement], self.shares(EVERYWHERE), PLACE_WEIGHT)


def _span(age: float) -> int:
    return next((span for span, end in enumerate(AGES) if age <= end), len(AGES) - 1)


def _shares(counts: Floats, before: Sequence[float], weight: float) -> tuple[float, ...]:
    """F at `AGES` from counts and from ``before``, which is worth ``weight`` events."""
    # Trap: in plain numbers: numpy's calls cost twenty times more for four.
    shape = [high - low for low, high in zip((0.0, *before), before, strict=False)]
    events, passed = counts.tolist()
    expected = sum((came + went) * part for came, went, part in zip(events, passed, shape, strict=True))
    # How often something comes of a trial at all, if it came in the old shape.
    level = (sum(events) + weight) / (expected + weight / RARE)
    left, seen = 1.0, []
    for came, went, part in zip(events, passed, shape, strict=True):
        left *= 1.0 - min((came + weight * part) / (came + went + weight / level), 0.999999)
        seen.append(1.0 - left)
    return tuple(min(share / seen[-1], 1.0) for share in seen)
