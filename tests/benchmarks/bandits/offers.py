"""Offers in the shape of the market, one slot, answered at once: what can be gained over drawing evenly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CATEGORIES = 6
TIERS = 3
PEOPLE = 2_000


@dataclass(frozen=True, eq=False)
class Offers:
    """A world of ``n`` offers and `PEOPLE` customers.

    Attributes
    ----------
    category, tier, price:
        Of each offer (n); known to everybody.
    taste, limit:
        Of each customer: shares of the categories, adding up to 1, and the dearest tier he likes to pay;
        known to everybody, as a shop knows them from purchases.
    chance:
        P(response) of each customer to each offer (`PEOPLE`, n); known to nobody.
    """

    seed: int
    category: Ints
    tier: Ints
    price: Floats
    taste: Floats
    limit: Ints
    chance: Floats

    @classmethod
    def make(cls, count: int, response: float, seed: int) -> Offers:
        """``count`` offers with a mean rate of response of about ``response``."""
        draw = np.random.default_rng([seed, count])
        category, tier = draw.integers(CATEGORIES, size=count), draw.integers(TIERS, size=count)
        taste = draw.dirichlet(np.full(CATEGORIES, 0.7), PEOPLE)
        limit = draw.choice(TIERS, PEOPLE, p=(0.35, 0.4, 0.25))
        appeal = draw.normal(0.0, 0.8, count)
        odds = appeal + 0.8 * np.log(taste[:, category] * CATEGORIES + 0.1)
        odds -= 1.5 * np.maximum(tier - limit[:, None], 0)
        # What nobody could know beforehand: this kind of customer and this very offer.
        kind = taste.argmax(axis=1)
        odds += draw.normal(0.0, 0.4, (CATEGORIES, count))[kind]
        return cls(
            seed=seed,
            category=category,
            tier=tier,
            price=10.0 * np.array([1.0, 1.5, 2.3])[tier],
            taste=taste,
            limit=limit,
            chance=_with_mean(odds, response),
        )

    def __len__(self) -> int:
        return len(self.category)

    def visitors(self, rounds: int) -> Ints:
        """Who comes, round by round: the same for every policy."""
        return np.random.default_rng([self.seed, 7]).integers(PEOPLE, size=rounds)

    def luck(self, rounds: int) -> Floats:
        """The luck of each round: the same for every policy."""
        return np.random.default_rng([self.seed, 8]).random(rounds)


def _with_mean(odds: Floats, mean: float) -> Floats:
    """Probabilities of ``odds`` shifted until their mean is ``mean``."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        chance = 1.0 / (1.0 + np.exp(-(odds + middle)))
        low, high = (middle, high) if chance.mean() < mean else (low, middle)
    return chance
