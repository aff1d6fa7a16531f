"""How often what was sold comes back: by offer, and by cell of offers that are alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from libs.common.scoring.response import RETURNED_BEFORE
from services.analyzer.model.lessons import TrialLesson

START_WEIGHT = 20.0
"""How many sales `RETURNED_BEFORE` is worth, …"""
CELL_WEIGHT = 20.0
"""… what holds everywhere for a cell, …"""
OFFER_WEIGHT = 10.0
"""… and what holds for its cells for an offer."""
MOST_PAIRS = 10_000


class ReturnShares(NamedTuple):
    """Share of sales that come back, everywhere and by cell; and each offer's as a multiple of its cell's."""

    everywhere: float
    cells: dict[int, float]
    offers: dict[str, float]


class Returned:
    """Learns the share of sales that come back, of those that trials have the credit of.

    A sale counts when its trial is judged, or before that when it comes back: most of what comes back does so
    in the meantime. What comes back later counts when it does, so that the share is a little too low while
    more is sold than before.

    Attributes
    ----------
    counts:
        By offer and cell, of `MOST_PAIRS` at most: how many were sold, and how many of them came back.
    """

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], tuple[float, float]] = {}

    def learn_one(self, lesson: TrialLesson) -> bool:
        """Take one lesson; whether it said anything of a sale."""
        if lesson.ghost:
            return False
        if lesson.step == "returned":
            # Trap: once the trial was judged its sale has been counted.
            self._count(lesson, 0.0 if lesson.age_to > lesson.window else 1.0, 1.0)
            return True
        # A judged look that covers nothing comes after a conversion, and ``bought`` is what was kept.
        kept = lesson.judged and lesson.bought and lesson.age_from >= lesson.age_to
        if kept:
            self._count(lesson, 1.0, 0.0)
        return kept

    def fade(self, factor: float) -> None:
        """Let all counts be ``factor`` of what they were."""
        self.counts = {pair: (factor * sold, factor * back) for pair, (sold, back) in self.counts.items()}

    def shares(self) -> ReturnShares:
        """What is believed now."""
        everywhere = _share(_sum(self.counts.values()), RETURNED_BEFORE, START_WEIGHT)
        by_cell: dict[int, list[tuple[float, float]]] = {}
        for (_, cell), counts in self.counts.items():
            by_cell.setdefault(cell, []).append(counts)
        cells = {cell: _share(_sum(rows), everywhere, CELL_WEIGHT) for cell, rows in by_cell.items()}
        by_offer: dict[str, list[tuple[float, float]]] = {}
        expected: dict[str, float] = {}
        for (offer, cell), counts in self.counts.items():
            by_offer.setdefault(offer, []).append(counts)
            expected[offer] = expected.get(offer, 0.0) + counts[0] * cells[cell]
        offers = {}
        for offer, rows in by_offer.items():
            sold, back = _sum(rows)
            usual = expected[offer] / sold if sold > 0.0 else everywhere
            offers[offer] = _share((sold, back), usual, OFFER_WEIGHT) / usual
        return ReturnShares(everywhere, cells, offers)

    def _count(self, lesson: TrialLesson, sold: float, back: float) -> None:
        pair = lesson.offer_id, lesson.cell
        if pair not in self.counts and len(self.counts) >= MOST_PAIRS:
            self._forget()
        before = self.counts.get(pair, (0.0, 0.0))
        self.counts[pair] = before[0] + sold, before[1] + back

    def _forget(self) -> None:
        """Leave out the fifth that was sold least."""
        kept = sorted(self.counts, key=lambda pair: -self.counts[pair][0])[: MOST_PAIRS * 4 // 5]
        self.counts = {pair: self.counts[pair] for pair in sorted(kept)}


def _sum(rows: Iterable[tuple[float, float]]) -> tuple[float, float]:
    sold = back = 0.0
    for one in rows:
        sold, back = sold + one[0], back + one[1]
    return sold, back


def _share(counts: tuple[float, float], before: float, weight: float) -> float:
    """The mean of a Beta distribution about ``before`` after ``counts``; never nothing, never all.

    A return may come where its sale has faded or was not counted: of so many at most came back.
    """
    sold, back = counts
    return (min(back, sold) + weight * before) / (sold + weight)
