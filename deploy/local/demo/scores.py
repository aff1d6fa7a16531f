"""How good a list of ten would have been: NDCG, recall, hit; and paired intervals over households."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIZE = 10
SAMPLES = 2_000
SEED = 7
MEASURES = ("ndcg", "recall", "hit")
_GAINS = tuple(1.0 / math.log2(rank + 2) for rank in range(SIZE))


class Score(NamedTuple):
    """One list against one basket."""

    ndcg: float
    recall: float
    hit: float


def score(ranked: Sequence[str], bought: Collection[str]) -> Score:
    """NDCG@10, recall@10, and whether any of the ten was bought. ``bought`` is not empty."""
    truth = set(bought)
    hits = [rank for rank, product in enumerate(ranked[:SIZE]) if product in truth]
    best = sum(_GAINS[: min(SIZE, len(truth))])
    return Score(
        ndcg=sum(_GAINS[rank] for rank in hits) / best,
        recall=len(hits) / len(truth),
        hit=1.0 if hits else 0.0,
    )


class Interval(NamedTuple):
    """A mean with what 95 of 100 such samples of households would contain."""

    mean: float
    low: float
    high: float


@dataclass
class Scoreboard:
    """Scores of several rankings on the same baskets."""

    customers: list[str] = field(default_factory=list)
    weeks: list[int] = field(default_factory=list)
    rows: dict[str, list[Score]] = field(default_factory=dict)

    def add(self, customer: str, week: int, scores: dict[str, Score]) -> None:
        """Note how each ranking did on one basket: always the same rankings."""
        self.customers.append(customer)
        self.weeks.append(week)
        for name, row in scores.items():
            self.rows.setdefault(name, []).append(row)

    def __len__(self) -> int:
        return len(self.customers)

    def mean(self, name: str, measure: str, week: int | None = None) -> float:
        """Mean over all baskets, or those of one week; not a number where there are none."""
        column = MEASURES.index(measure)
        chosen = [
            row[column]
            for row, of in zip(self.rows.get(name, []), self.weeks, strict=False)
            if week is None or of == week
        ]
        return sum(chosen) / len(chosen) if chosen else math.nan

    def interval(self, name: str, measure: str, minus: str | None = None) -> Interval:
        """Mean of ``name``, or by how much it is above that of ``minus`` on the same baskets."""
        draws = self._draws(name, measure)
        mean = self.mean(name, measure)
        if minus is None:
            return _between(mean, draws)
        return _between(mean - self.mean(minus, measure), draws - self._draws(minus, measure))

    def ratio(self, name: str, over: str, measure: str) -> Interval:
        """How many times the mean of ``over`` that of ``name`` is, on the same baskets."""
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = self._draws(name, measure) / self._draws(over, measure)
            mean = np.float64(self.mean(name, measure)) / np.float64(self.mean(over, measure))
        # Samples without a hit of either say nothing about how much better one is.
        return _between(float(mean), draws[np.isfinite(draws)])

    def _draws(self, name: str, measure: str) -> NDArray[np.float64]:
        """Means of ``name`` in samples of households: for every ranking the same samples.

        Baskets of one household are alike, so the household and not the basket is what is drawn again.
        """
        column = MEASURES.index(measure)
        values = np.array([row[column] for row in self.rows[name]])
        _, household = np.unique(self.customers, return_inverse=True)
        sums, counts = np.bincount(household, values), np.bincount(household)
        size = len(sums)
        draws = np.random.default_rng(SEED).multinomial(size, np.full(size, 1 / size), SAMPLES)
        return np.asarray((draws @ sums) / (draws @ counts))


def _between(mean: float, draws: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(draws, (0.025, 0.975)) if len(draws) else (math.nan, math.nan)
    return Interval(mean, float(low), float(high))
