"""Rankings of all products that do not depend on the customer: popular, trending, new; made off the path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from libs.common.scoring.learned import Popularity

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEW_ORDERS = 10
"""A product with fewer orders than this is new to everybody."""
TREND_PRIOR = 2.0
"""Orders added on both sides of the comparison, so that one order of a rare product is no trend."""
MOST_TREND = 3.0
"""No trend is stronger than this (natural log of the ratio)."""
LEAST_TREND = 0.2
"""What is a fifth above its usual pace is trending."""
PER_CATEGORY = 3
"""So many products of one category are trending at most: a season must not fill the list alone."""


@dataclass(frozen=True, eq=False)
class Rankings:
    """Orders of ``n`` shelf positions, and the numbers behind them.

    Attributes
    ----------
    share:
        Array (n,): share of orders, decayed.
    trend:
        Array (n,): log of orders of late (half-life 7 d) over what its pace of the last months (60 d) would
        give, beside the same ratio of all products; 0 where nothing is known, within ±`MOST_TREND`.
    orders:
        Array (n,): orders with it that were seen, not decayed.
    popular:
        All positions, most popular first.
    by_category, starts:
        All positions by category and in it the most popular first; category c is
        ``by_category[starts[c] : starts[c + 1]]``.
    trending:
        Positions of what is bought more than usual of late, the strongest first.
    fresh:
        Positions of what few bought yet, the newest in the catalogue first.
    """

    share: Floats
    trend: Floats
    orders: Floats
    popular: Ints
    by_category: Ints
    starts: Ints
    trending: Ints
    fresh: Ints

    @classmethod
    def of(cls, at: Ints, popularity: Popularity, category: Ints, categories: int, listed: Ints) -> Rankings:
        """Rankings of a shelf.

        Parameters
        ----------
        at:
            Shelf position of each product of ``popularity``, −1 where it is not on the shelf.
        category, listed:
            Arrays (n,): category number, and when a product came into the catalogue, in ms.
        """
        n, known = len(category), at >= 0
        share, orders = np.zeros(n), np.zeros(n)
        share[at[known]] = popularity.share[known]
        orders[at[known]] = popularity.orders[known]
        trend = np.zeros(n)
        trend[at[known]] = _trend(popularity)[known]
        popular = np.argsort(-share, kind="stable")
        by_category = popular[category[popular].argsort(kind="stable")]
        rare = (orders < FEW_ORDERS).nonzero()[0]
        return cls(
            share=share,
            trend=trend,
            orders=orders,
            popular=popular,
            by_category=by_category,
            starts=np.searchsorted(category[by_category], np.arange(categories + 1)),
            trending=_trending(trend, category),
            fresh=rare[np.lexsort((rare, orders[rare], -listed[rare]))],
        )


def _trend(popularity: Popularity) -> Floats:
    total, late = float(popularity.weight.sum()), float(popularity.recent.sum())
    if not (0.0 < total < np.inf and 0.0 < late < np.inf):
        return np.zeros(len(popularity.weight))
    usual = popularity.weight * (late / total)
    ratio = np.log((popularity.recent + TREND_PRIOR) / (usual + TREND_PRIOR))
    return np.asarray(np.clip(ratio, -MOST_TREND, MOST_TREND))


def _trending(trend: Floats, category: Ints) -> Ints:
    rising = (trend >= LEAST_TREND).nonzero()[0]
    rising = rising[(-trend[rising]).argsort(kind="stable")]
    # The place of each within its category, in this order.
    together = category[rising].argsort(kind="stable")
    ordered = category[rising][together]
    place = np.empty(len(rising), dtype=np.int64)
    place[together] = np.arange(len(rising)) - np.searchsorted(ordered, ordered)
    return np.asarray(rising[place < PER_CATEGORY], dtype=np.int64)
