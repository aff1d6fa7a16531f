"""What is examined: the next basket, as a whole and as far as it is new, and its second half."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.local.demo.data import Basket
from deploy.local.demo.scores import SIZE, Scoreboard, score
from libs.common.clock import DAY, Millis
from tests.benchmarks.quality.exam import Rivals, request_before, served_before
from tests.benchmarks.quality.loop import Request
from tests.benchmarks.quality.table import Claim

MOST_EXCLUDED = 1_000
"""So many products a request may exclude; nobody in the data bought more."""

LEARNED, LIVE, HABIT, POPULAR = "learned", "served", "habit", "popularity"
WITH, WITHOUT, MASKED, TOGETHER = "half given", "not given", "not given, masked", "co-occurrence"

NEXT, SEASON, NEVER = "next basket", "next basket, not bought for 90 days", "next basket, never bought"
HALF, NEW_HALF = "second half", "second half, not bought for 90 days"
EXPLORING = -0.015
"""What exploration may cost at most."""

CLAIMS = (
    Claim(NEXT, LEARNED, HABIT, 0.0, differs=True),
    Claim(NEXT, LEARNED, POPULAR),
    Claim(NEXT, LIVE, LEARNED, EXPLORING, differs=True),
    Claim(SEASON, LEARNED, HABIT, 0.0, differs=True),
    Claim(SEASON, LEARNED, POPULAR),
    Claim(SEASON, LIVE, LEARNED, EXPLORING, differs=True),
    Claim(NEVER, LEARNED, POPULAR, 1.15),
    Claim(NEVER, LIVE, LEARNED, EXPLORING, differs=True),
    Claim(HALF, WITH, WITHOUT, 1.3),
    Claim(HALF, WITH, MASKED),
    Claim(HALF, WITH, TOGETHER, 1.2),
    Claim(HALF, LIVE, WITH, EXPLORING, differs=True),
    Claim(NEW_HALF, WITH, MASKED, 1.3),
    Claim(NEW_HALF, WITH, TOGETHER, 1.2),
    Claim(NEW_HALF, LIVE, WITH, EXPLORING, differs=True),
)


class NextBasket:
    """What will be bought next, of what was not bought for some time.

    Parameters
    ----------
    mask:
        What was bought within this time is no question: excluded, for the rivals likewise. 0: nothing is.
    """

    def __init__(self, name: str, mask: Millis = 0) -> None:
        self.name = name
        self.board = Scoreboard()
        self._mask = mask

    def requests(self, basket: Basket, rivals: Rivals) -> dict[str, Request]:
        known = known_to(basket, rivals, self._mask)
        if not set(basket.products).difference(known):
            return {}
        more = {"exclude": known} if known else {}
        return {
            LEARNED: request_before(basket, **more),
            LIVE: served_before(basket, self.name, **more),
        }

    def mark(self, basket: Basket, rivals: Rivals, lists: dict[str, list[str]]) -> None:
        known = known_to(basket, rivals, self._mask)
        new = set(basket.products).difference(known)
        lists[HABIT] = rivals.habit(basket.customer, SIZE, known)
        lists[POPULAR] = rivals.popular(SIZE, known)
        scores = {name: score(ranked, new) for name, ranked in lists.items()}
        self.board.add(basket.customer, basket.week, scores)


class SecondHalf:
    """The other half of a basket, one half given; which half, ``seed`` decides. ``mask`` as above."""

    def __init__(self, name: str, together: Together, seed: int, mask: Millis = 0) -> None:
        self.name = name
        self.board = Scoreboard()
        self._together = together
        self._seed = seed
        self._mask = mask

    def requests(self, basket: Basket, rivals: Rivals) -> dict[str, Request]:
        half, known, rest = self._parts(basket, rivals)
        if not half or not rest:
            return {}
        more = {"exclude": known} if known else {}
        given = {"context": {"basket": half}, **more}
        return {
            WITH: request_before(basket, **given),
            LIVE: served_before(basket, self.name, **given),
            WITHOUT: request_before(basket, **more),
            MASKED: request_before(basket, exclude=[*half, *known][:MOST_EXCLUDED]),
        }

    def mark(self, basket: Basket, rivals: Rivals, lists: dict[str, list[str]]) -> None:
        half, known, rest = self._parts(basket, rivals)
        lists[TOGETHER] = self._together.best(half, SIZE, known)
        scores = {name: score(ranked, rest) for name, ranked in lists.items()}
        self.board.add(basket.customer, basket.week, scores)

    def _parts(self, basket: Basket, rivals: Rivals) -> tuple[list[str], list[str], set[str]]:
        """The half that is given, what is no question besides it, and what is."""
        number = int(basket.order_id.rpartition("-")[2])
        drawn = np.random.default_rng((self._seed, number)).permutation(len(basket.products))
        half = [basket.products[row] for row in sorted(drawn[: len(basket.products) // 2].tolist())]
        known = [key for key in known_to(basket, rivals, self._mask) if key not in half]
        return half, known, set(basket.products).difference(half, known)


class Together:
    """Co-occurrence: of how many baskets with a product in hand had another, summed over those in hand."""

    def __init__(self, products: Sequence[str]) -> None:
        self._products = list(products)
        self._row = {product: row for row, product in enumerate(products)}
        self._counts: NDArray[np.float32] = np.zeros((len(products), len(products)), dtype=np.float32)

    def hear(self, baskets: Sequence[Basket]) -> None:
        """Count baskets."""
        for basket in baskets:
            rows = [self._row[product] for product in basket.products]
            self._counts[np.ix_(rows, rows)] += 1.0

    def best(self, half: Sequence[str], limit: int, without: Sequence[str] = ()) -> list[str]:
        """The products that go with ``half`` most often, without it."""
        rows = [self._row[product] for product in half]
        alone = np.maximum(self._counts[rows, rows], 1.0)
        shares = (self._counts[rows] / alone[:, None]).sum(axis=0)
        shares[[self._row[product] for product in (*half, *without)]] = -1.0
        return [self._products[row] for row in np.argsort(-shares, kind="stable")[:limit].tolist()]


def known_to(basket: Basket, rivals: Rivals, mask: Millis) -> list[str]:
    """What the customer of ``basket`` bought within ``mask`` before it."""
    if not mask:
        return []
    return rivals.bought_since(basket.customer, basket.at - mask)[:MOST_EXCLUDED]


def subjects(together: Together, seed: int) -> list[NextBasket | SecondHalf]:
    """All of them."""
    return [
        NextBasket(NEXT),
        NextBasket(SEASON, 90 * DAY),
        NextBasket(NEVER, 100_000 * DAY),
        SecondHalf(HALF, together, seed),
        SecondHalf(NEW_HALF, together, seed, 90 * DAY),
    ]
