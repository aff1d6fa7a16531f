"""The examination: history in, then day by day: ask before any of the day's baskets, mark, learn the day."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from deploy.local.demo.baselines import Baselines
from deploy.local.demo.data import Basket, Journey
from deploy.local.demo.feed import CHANNEL, iso
from deploy.local.demo.scores import SIZE, Scoreboard
from libs.common.clock import Millis
from tests.benchmarks.quality.loop import Loop, Request

GREEDY = "quality"
SERVED = "quality-served"
PLACEMENTS: tuple[dict[str, Any], ...] = (
    {"placement_id": GREEDY, "limit": SIZE, "objective": "acceptance", "exploration": 0.0},
    {"placement_id": SERVED, "limit": SIZE, "objective": "acceptance"},
)
"""Where the question is what the model ranks first, and where what is served, explored as by default."""


class Rivals(Baselines):
    """The baselines, and what each customer bought when: told the same orders at the same moments."""

    def __init__(self, products: Sequence[str], start: Millis) -> None:
        super().__init__(products, start)
        self._last: dict[str, dict[str, Millis]] = {}

    def hear(self, baskets: Sequence[Basket]) -> None:
        """Count baskets."""
        for basket in baskets:
            self.learn(basket.customer, basket.at, basket.products)
            last = self._last.setdefault(basket.customer, {})
            last.update(dict.fromkeys(basket.products, basket.at))

    def bought_since(self, customer: str, at: Millis) -> list[str]:
        """What ``customer`` bought at or after ``at``, the latest first."""
        last = self._last.get(customer, {})
        return sorted((key for key, then in last.items() if then >= at), key=lambda key: (-last[key], key))


class Subject(Protocol):
    """One thing that is examined, with the scores of everyone examined in it."""

    name: str
    board: Scoreboard

    def requests(self, basket: Basket, rivals: Rivals) -> dict[str, Request]:
        """What the loop is asked before ``basket``, by the name of the ranking; nothing: not examined."""
        ...

    def mark(self, basket: Basket, rivals: Rivals, lists: dict[str, list[str]]) -> None:
        """Score the answers, and the rivals'."""
        ...


class Hears(Protocol):
    """Whoever hears of every basket, after its day was examined."""

    def hear(self, baskets: Sequence[Basket]) -> object:
        """Count baskets, in time order."""
        ...


def request_before(basket: Basket, **more: Any) -> Request:
    """A request just before ``basket`` that leaves no trace."""
    return {
        "customer_id": basket.customer,
        "channel": CHANNEL,
        "limit": SIZE,
        "at": iso(basket.at),
        "dry_run": True,
        "placement": GREEDY,
        **more,
    }


def served_before(basket: Basket, subject: str, **more: Any) -> Request:
    """The same as it is served: explored, with a draw for each subject and basket."""
    drawn = f"{subject}/{basket.order_id}"
    return request_before(basket, placement=SERVED, decision_id=drawn, **more)


class Exam:
    """Takes a loop through a journey and lets each subject ask and mark.

    Attributes
    ----------
    asked, asking_seconds:
        How many requests, and how long the answers took.

    Parameters
    ----------
    hear:
        Who else hears of what the loop learns, at the same moments.
    """

    def __init__(
        self, loop: Loop, journey: Journey, subjects: Sequence[Subject], hear: Sequence[Hears] = ()
    ) -> None:
        self._loop = loop
        self._journey = journey
        self._subjects = subjects
        products = [product["product_id"] for product in journey.products]
        self.rivals = Rivals(products, journey.baskets[0].at)
        self._hear: list[Hears] = [self.rivals, *hear]
        self.asked = 0
        self.asking_seconds = 0.0

    async def run(self) -> None:
        """Everything, in the order of the journal."""
        began = time.monotonic()
        # Equal margins, so that none of the figures is about money.
        products = [{**product, "margin": 1.0} for product in self._journey.products]
        await self._loop.stock(products, PLACEMENTS)
        await self._learn(self._journey.history)
        _say(f"{len(self._journey.history):,} baskets of history after {time.monotonic() - began:.0f} s")
        for number, day in enumerate(self._journey.days, start=1):
            await self._examine([basket for basket in day if basket.customer in self._journey.scored])
            await self._learn(day)
            if number % 13 == 0:
                _say(f"day {number} of {len(self._journey.days)} after {time.monotonic() - began:.0f} s")

    async def _learn(self, baskets: Sequence[Basket]) -> None:
        await self._loop.learn(baskets)
        for each in self._hear:
            each.hear(baskets)

    async def _examine(self, baskets: Sequence[Basket]) -> None:
        papers = [
            (subject, basket, subject.requests(basket, self.rivals))
            for basket in baskets
            for subject in self._subjects
        ]
        # Subjects ask the same of a basket at times; it is asked once.
        asked = {_key(request): request for _, _, requests in papers for request in requests.values()}
        began = time.monotonic()
        answers = dict(zip(asked, await self._loop.ask(list(asked.values())), strict=True))
        self.asking_seconds += time.monotonic() - began
        self.asked += len(asked)
        for subject, basket, requests in papers:
            if requests:
                lists = {name: answers[_key(request)] for name, request in requests.items()}
                subject.mark(basket, self.rivals, lists)


def _key(request: Request) -> bytes:
    return msgspec.json.encode(request)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
