"""The replay: history in, then day by day: ask, score, report what came of it, let the learner catch up."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploy.local.demo.baselines import Baselines
from deploy.local.demo.calls import Calls
from deploy.local.demo.data import Basket, Journey
from deploy.local.demo.feed import CHANNEL, Feed, iso
from deploy.local.demo.scores import SIZE, Scoreboard, score
from libs.common.clock import Millis

BASKET = "basket"
LIVE = "basket-live"
PROBE_SECONDS = 0.6
"""From one visitor who asks what the loop has seen of him to the next: so that time, which closes a day once
nothing has come for a moment, is seldom held up by them."""
PROBES = 4
SAME_DAY = 86_400
"""Seconds after an offer in which a purchase is credited to it: taken on this visit, not on the next."""
PLACEMENTS: tuple[dict[str, Any], ...] = (
    {"placement_id": BASKET, "limit": SIZE, "objective": "acceptance", "exploration": 0.0},
    {
        "placement_id": LIVE,
        "limit": SIZE,
        "objective": "acceptance",
        "exploration": 0.02,
        "window": SAME_DAY,
    },
)


@dataclass
class Pulse:
    """Figures of the run so far, written by the replay and read by whoever draws them."""

    stage: str = "loading the catalogue"
    done: int = 0
    total: int = 0
    events: int = 0
    recommendations: int = 0
    recommending_seconds: float = 0.0
    history_events: int = 0
    history_seconds: float = 0.0
    loop_seconds: list[float] = field(default_factory=list)
    stale_probes: int = 0
    week: int = 0
    week_hits: list[float] = field(default_factory=list)

    def enter(self, stage: str, total: int) -> None:
        """Begin another stage of ``total`` steps."""
        self.stage, self.done, self.total = stage, 0, total

    def hit(self, week: int, value: float) -> None:
        """Note whether a list would have hit, in the week it belongs to."""
        if week != self.week:
            self.week, self.week_hits = week, []
        self.week_hits.append(value)


@dataclass
class Replay:
    """Drives a platform through a journey, over HTTP only.

    Parameters
    ----------
    board, halves, live:
        Scores: of the rankings side by side, of lists made with and without half the basket, and of what
        was really served with exploration.
    """

    calls: Calls
    journey: Journey
    pulse: Pulse
    seed: int
    board: Scoreboard = field(default_factory=Scoreboard)
    halves: Scoreboard = field(default_factory=Scoreboard)
    live: Scoreboard = field(default_factory=Scoreboard)

    def __post_init__(self) -> None:
        self._feed = Feed(self.calls, self._counted)

    async def run(self) -> None:
        """Everything, in the order of the journal."""
        products = [product["product_id"] for product in self.journey.products]
        self._baselines = Baselines(products, self.journey.baskets[0].at)
        self._rng = np.random.default_rng(self.seed)
        self.pulse.enter("loading the catalogue", len(products))
        await self._feed.stock(self.journey.products, PLACEMENTS)
        await self._learn_history()
        days = self.journey.days
        self.pulse.enter("scoring day by day", len(days))
        self._at = days[0][0].at if days else 0
        probing = asyncio.create_task(self._probe())
        try:
            for day in days:
                await self._day(day)
                self.pulse.done += 1
        finally:
            probing.cancel()
            [failure] = await asyncio.gather(probing, return_exceptions=True)
        if isinstance(failure, Exception):
            raise failure

    def popular(self, limit: int) -> list[str]:
        """What everybody bought most, as far as the replay has come."""
        return self._baselines.popular(limit)

    async def _learn_history(self) -> None:
        history = self.journey.history
        self.pulse.enter("learning from history", len(history))
        began = time.monotonic()
        for basket in history:
            self._baselines.learn(basket.customer, basket.at, basket.products)
        await self._feed.history(history)
        self.pulse.history_events = self.pulse.events = self._feed.events
        self.pulse.history_seconds = time.monotonic() - began

    def _counted(self, done: int) -> None:
        self.pulse.done, self.pulse.events = done, self._feed.events

    async def _day(self, day: list[Basket]) -> None:
        chosen = [basket for basket in day if basket.customer in self.journey.scored]
        shown = await self._ask(chosen)
        self._at = day[0].at
        await asyncio.gather(self._feed.post_orders(day), self._post_outcomes(shown_outcomes(chosen, shown)))
        await self._post_outcomes(bought_outcomes(chosen, shown))
        for basket in day:
            self._baselines.learn(basket.customer, basket.at, basket.products)
        self.pulse.events += len(day)
        await self._feed.learned(day[-1].at)

    async def _ask(self, baskets: list[Basket]) -> list[dict[str, Any]]:
        """The day's recommendations, before any of the day's baskets; scores them, returns what is served."""
        halves = [self._half(basket) for basket in baskets]
        asked = [
            request
            for basket, half in zip(baskets, halves, strict=True)
            for request in requests_for(basket, half)
        ]
        began = time.monotonic()
        answers = [
            answer
            for first in range(0, len(asked), 1_000)
            for answer in await self.calls.recommend(asked[first : first + 1_000])
        ]
        self.pulse.recommending_seconds += time.monotonic() - began
        self.pulse.recommendations += len(asked)
        popular = self._baselines.popular(SIZE)
        served = []
        place = iter(answers)
        for basket, half in zip(baskets, halves, strict=True):
            plain, live = next(place), next(place)
            scores = {
                "learned": score(listed(plain), basket.products),
                "habit": score(self._baselines.habit(basket.customer, SIZE), basket.products),
                "popular": score(popular, basket.products),
            }
            self.board.add(basket.customer, basket.week, scores)
            self.live.add(basket.customer, basket.week, {"live": score(listed(live), basket.products)})
            self.pulse.hit(basket.week, scores["learned"].hit)
            served.append(live)
            if half:
                rest = set(basket.products) - set(half)
                lists = {"with": next(place), "masked": next(place), "without": plain}
                compared = {name: score(listed(answer), rest) for name, answer in lists.items()}
                self.halves.add(basket.customer, basket.week, compared)
        return served

    def _half(self, basket: Basket) -> list[str]:
        size = len(basket.products) // 2
        return [basket.products[row] for row in sorted(self._rng.permutation(len(basket.products))[:size])]

    async def _post_outcomes(self, outcomes: list[dict[str, Any]]) -> None:
        await self._feed.post_outcomes(outcomes)
        self.pulse.events += len(outcomes)

    async def _probe(self) -> None:
        """How long from a touchpoint to a recommendation that has seen it, while days are learned."""
        for number in itertools.cycle(range(PROBES)):
            await self._probe_one(f"probe-{number}", self._at)
            await asyncio.sleep(PROBE_SECONDS)

    async def _probe_one(self, customer: str, at: Millis) -> None:
        began = time.monotonic()
        seen = {
            "type": "page_viewed",
            "channel": "web",
            "customer_id": customer,
            "occurred_at": iso(at),
        }
        position = (await self.calls.post("collector", "/v1/touchpoints", seen))["position"]
        request: dict[str, Any] = {
            "placement": BASKET,
            "customer_id": customer,
            "after": position,
            "dry_run": True,
            "wait_ms": 1_000,
        }
        answer = await self.calls.post("recommender", "/v1/recommendations", request)
        if answer["fresh"]:
            self.pulse.loop_seconds.append(time.monotonic() - began)
        else:
            self.pulse.stale_probes += 1
        self.pulse.events += 1


def requests_for(basket: Basket, half: list[str]) -> list[dict[str, Any]]:
    """What is asked before a basket: plain, served, and where it can be halved with the half given.

    And once more without saying that the half is in the basket, but excluding it all the same: so that
    it can be told how much of the gain is only knowing what need not be offered.
    """
    common = {"customer_id": basket.customer, "channel": CHANNEL, "limit": SIZE, "at": iso(basket.at)}
    asked: list[dict[str, Any]] = [
        {**common, "placement": BASKET, "decision_id": f"{BASKET}-{basket.order_id}"},
        {**common, "placement": LIVE, "decision_id": f"{LIVE}-{basket.order_id}"},
    ]
    if half:
        asked.append({**common, "placement": BASKET, "context": {"basket": half}, "dry_run": True})
        asked.append({**common, "placement": BASKET, "exclude": half, "dry_run": True})
    return asked


def listed(answer: dict[str, Any]) -> list[str]:
    """The products of an answer, best first."""
    return [offer["product_id"] for offer in answer["offers"]]


def shown_outcomes(baskets: list[Basket], served: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each offer that was served was seen."""
    return [
        {"token": offer["token"], "outcome": "shown", "occurred_at": iso(basket.at)}
        for basket, answer in zip(baskets, served, strict=True)
        for offer in answer["offers"]
    ]


def bought_outcomes(baskets: list[Basket], served: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that were truly bought in the basket that followed, and no others."""
    return [
        {
            "token": offer["token"],
            "outcome": "converted",
            "order_id": basket.order_id,
            "occurred_at": iso(basket.at),
        }
        for basket, answer in zip(baskets, served, strict=True)
        for offer in answer["offers"]
        if offer["product_id"] in basket.products
    ]
