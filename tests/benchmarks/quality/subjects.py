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

MOST_EXCLUDED = 1_000
"""So many products a request may exclude; nobody in the data bought more."""

LEARNED, LIVE, HABIT, POPULAR = "learned", "served", "habit", "popular"
WITH, WITHOUT, MASKED, TOGETHER = "with half", "without", "without, masked", "co-occurrence"


class NextBasket:
    """What will be bought next, of what was not bought for some time.

    Parameters
    ----------
    mask:
        What was bought within this time is no question: excluded, for the rivals likewise. None: nothing is.
    """

    def __init__(self, name: str, mask: Millis | None) -> None:
        self.name = name
        self.board = Scoreboard()
        self._mask = mask

    def requests(self, basket: Basket, rivals: Rivals) -> dict[str, Request]:
        known = self._known(basket, rivals)
        if not set(basket.products).difference(known):
            return {}
        more = {"exclude": known} if known else {}
        return {
            LEARNED: request_before(basket, **more),
            LIVE: served_before(basket, self.name, **more),
        }

    def mark(self, basket: Basket, rivals: Rivals, lists: dict[str, list[str]]) -> None:
        known = self._known(basket, rivals)
        new = set(basket.products).difference(known)
        lists[HABIT] = rivals.habit(basket.customer, SIZE, known)
        lists[POPULAR] = rivals.popular(SIZE, known)
        scores = {name: score(ranked, new) for name, ranked in lists.items()}
        self.board.add(basket.customer, basket.week, scores)

    def learn_one(self, basket: Basket) -> None:
        return None

    def _known(self, basket: Basket, rivals: Rivals) -> list[str]:
        if self._mask is None:
            return []
        return rivals.bought_since(basket.customer, basket.at - self._mask)[:MOST_EXCLUDED]


class SecondHalf:
    """The other half of a basket, one half given; which half, ``seed`` decides."""

    def __init__(self, name: str, products: Sequence[str], seed: int) -> None:
        self.name = name
        self.board = Scoreboard()
        self._together = Together(products)
        self._seed = seed

    def requests(self, basket: Basket, rivals: Rivals) -> dict[str, Request]:
        half = self._half(basket)
        if not half:
            return {}
        given = {"context": {"basket": half}}
        return {
            WITH: request_before(basket, **given),
            LIVE: served_before(basket, self.name, **given),
            WITHOUT: request_before(basket),
            MASKED: request_before(basket, exclude=half),
        }

    def mark(self, basket: Basket, rivals: Rivals, lists: dict[str, list[str]]) -> None:
        half = self._half(basket)
        lists[TOGETHER] = self._together.best(half, SIZE)
        rest = set(basket.products).difference(half)
        scores = {name: score(ranked, rest) for name, ranked in lists.items()}
        self.board.add(basket.customer, basket.week, scores)

    def learn_one(self, basket: Basket) -> None:
        self._together.learn_one(basket)

    def _half(self, basket: Basket) -> list[str]:
        number = int(basket.order_id.rpartition("-")[2])
        drawn = np.random.default_rng((self._seed, number)).permutation(len(basket.products))
        return [basket.products[row] for row in sorted(drawn[: len(basket.products) // 2].tolist())]


class Together:
    """Co-occurrence: products by the sum, over those in hand, of how many baskets with it had them too."""

    def __init__(self, products: Sequence[str]) -> None:
        self._products = list(products)
        self._row = {product: row for row, product in enumerate(products)}
        self._counts: NDArray[np.float32] = np.zeros((len(products), len(products)), dtype=np.float32)

    def learn_one(self, basket: Basket) -> None:
        """Count a basket."""
        rows = [self._row[product] for product in basket.products]
        self._counts[np.ix_(rows, rows)] += 1.0

    def best(self, half: Sequence[str], limit: int) -> list[str]:
        """The products that go with ``half`` most often, without it."""
        rows = [self._row[product] for product in half]
        alone = np.maximum(self._counts[rows, rows], 1.0)
        shares = (self._counts[rows] / alone[:, None]).sum(axis=0)
        shares[rows] = -1.0
        return [self._products[row] for row in np.argsort(-shares, kind="stable")[:limit].tolist()]


def subjects(products: Sequence[str], seed: int) -> list[NextBasket | SecondHalf]:
    """All of them."""
    return [
        NextBasket("next basket", None),
        NextBasket("not bought for 90 days", 90 * DAY),
        NextBasket("never bought", 100_000 * DAY),
        SecondHalf("second half", products, seed),
    ]
