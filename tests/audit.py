"""Whether what was drawn occurs as often as was stated, for any policy that states its propensities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from services.recommender.model.policy import Draw, Exploration, fill_slots, propensities, seed_of

RARE = 10.0
"""Offers expected less often than this are not judged one by one."""


def redraw(
    values: np.ndarray, worlds: np.ndarray, exploration: Exploration, limit: int, numbers: Iterable[int]
) -> Iterator[Draw]:
    """The same decision under many ids."""
    for number in numbers:
        yield from fill_slots(values, worlds.copy, limit, exploration, seed_of(f"decision {number}"))


def worst_deviation(draws: Iterable[Draw], exploration: float, size: int) -> float:
    """`deviation` of draws by rank and candidate."""
    stated: list[tuple[int, int, np.ndarray]] = []
    for draw in draws:
        assert draw.open is not None
        assert draw.wins is not None
        stated.append((draw.rank, draw.chosen, propensities(draw.wins, draw.open, exploration)))
    worst = 0.0
    for rank in {rank for rank, _, _ in stated}:
        chances = np.array([chances for at, _, chances in stated if at == rank])
        drawn = np.zeros((len(chances), size))
        drawn[np.arange(len(chances)), [chosen for at, chosen, _ in stated if at == rank]] = 1.0
        worst = max(worst, deviation(drawn, chances))
    return worst


def deviation(drawn: np.ndarray, chances: np.ndarray) -> float:
    """The greatest standard score of any candidate, and of their chi-square, by Wilson and Hilferty.

    ``drawn`` (n, m) holds 1 where a candidate was placed, ``chances`` what was stated for it. The sums of
    their differences are martingales, so that the chances may change from draw to draw.
    """
    expected, spread = chances.sum(axis=0), (chances * (1.0 - chances)).sum(axis=0)
    often = (expected >= RARE) & (spread > 0.0)
    if np.any(drawn[:, expected == 0.0]):
        return float("inf")
    difference = (drawn - chances).sum(axis=0)[often]
    if not len(difference):
        return 0.0
    worst = float(np.abs(difference / np.sqrt(spread[often])).max())
    free = max(int(often.sum()) - 1, 1)
    square = float((difference**2 / expected[often]).sum()) / free
    return max(worst, float((np.cbrt(square) - (1.0 - 2.0 / (9.0 * free))) / np.sqrt(2.0 / (9.0 * free))))
