"""The market day by day, over HTTP only: browsing, being offered something, buying, sending back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from deploy.local.demo.calls import Calls
from deploy.local.demo.feed import Feed, iso
from deploy.local.demo.replay import Pulse
from deploy.local.market.shoppers import Reaction, Shoppers, Showings
from deploy.local.market.world import CURRENCY, EXAMINED, Floats, World, customer_id, product_id, product_of
from libs.common.clock import DAY, HOUR, SECOND, Millis
from libs.common.contracts.catalogue import KINDS, PRODUCT_KINDS

PLACEMENT = "shop"
SLOTS = len(EXAMINED)
WINDOW_DAYS = 4
BEGIN: Millis = 1_767_225_600_000
"""2026-01-01: the first day of the history."""
BROWSING, OFFERING, BUYING, RETURNING = 9 * HOUR, 11 * HOUR, 15 * HOUR, 19 * HOUR
"""The hours of a day. Each is over before the next begins, so that events come in time order."""
CHUNK = 1_000
GROUPS = ("none", "baseline", "treatment")


class Slate(NamedTuple):
    """One answer: who asked, in which group, and what stood in the slots."""

    decision_id: str
    customer: int
    group: str
    offers: list[dict[str, Any]]


@dataclass
class DayOfTrade:
    """What happened on one day in one group, slot by slot (n).

    Attributes
    ----------
    decisions:
        How many answers there were.
    worth, best:
        Margin that showing what was shown causes in truth (n), weighed by how often its slot is looked at;
        and what the best slates would have caused, summed over the decisions; ``even`` is the sum for
        slates drawn evenly.
    """

    day: int
    group: str
    decisions: int
    showings: Showings
    reaction: Reaction
    kinds: np.ndarray[Any, Any]
    scores: Floats
    propensities: Floats
    worth: Floats
    best: float
    even: float


@dataclass
class Play:
    """Drives a platform through a world, and notes what the world knows about what it did."""

    calls: Calls
    world: World
    pulse: Pulse
    shoppers: Shoppers = field(init=False)
    groups: dict[int, str] = field(default_factory=dict)
    days: list[DayOfTrade] = field(default_factory=list)
    decision_ids: list[str] = field(default_factory=list)
    not_fresh: int = 0
    _last: Millis = field(default=BEGIN, init=False)

    def __post_init__(self) -> None:
        self.shoppers = Shoppers(self.world)
        self._feed = Feed(self.calls)

    async def run(self) -> None:
        """History first, when nothing is offered, then the days of trade."""
        size = self.world.size
        self.pulse.enter("opening the market", size.last)
        await self._open()
        for day in range(size.history):
            await self._browse(day)
            await self._buy(day)
            self.pulse.done += 1
        await self._feed.learned(self._last)
        for day in range(size.history, size.last):
            await self._restock(day)
            await self._offer(day, await self._browse(day))
            await self._buy(day)
            await self._feed.learned(self._last)
            self.pulse.done += 1

    async def _open(self) -> None:
        there = np.flatnonzero(self.world.opens == 0).tolist()
        await self._feed.stock([self.world.entry(product) for product in there], [placement()])

    async def _restock(self, day: int) -> None:
        """What is new on the shelf, and what is sold no longer: that stays known, but is not offered."""
        world = self.world
        changed = [world.entry(product) for product in np.flatnonzero(world.opens == day).tolist()]
        changed += [
            {**world.entry(product), "available_until": iso(BEGIN + day * DAY)}
            for product in np.flatnonzero(world.closes == day).tolist()
        ]
        if changed:
            await self._feed.stock(changed, [])

    async def _browse(self, day: int) -> list[tuple[int, list[int]]]:
        seen = self.shoppers.views(day)
        at = BEGIN + day * DAY + BROWSING
        touchpoints = [
            {
                "id": f"view-{day}-{customer}-{product}",
                "type": "product_viewed",
                "channel": "web",
                "customer_id": customer_id(customer),
                "occurred_at": iso(at + place * SECOND),
                "properties": {"product_id": product_id(product)},
            }
            for place, (customer, products) in enumerate(seen)
            for product in products
        ]
        await self._feed.post_touchpoints(touchpoints)
        self._last = max(self._last, at + len(seen) * SECOND)
        return seen

    async def _offer(self, day: int, seen: list[tuple[int, list[int]]]) -> None:
        at = BEGIN + day * DAY + OFFERING
        asked = [
            {
                "placement": PLACEMENT,
                "customer_id": customer_id(customer),
                "channel": "web",
                "at": iso(at + place * SECOND),
                "after": self._feed.position,
                "wait_ms": 1_000,
                "decision_id": f"d{self.world.seed}-{day}-{customer}",
                # Every other visitor is on the page of what he looks at.
                "context": {"product_id": product_id(products[0])} if (customer + day) % 2 else {},
            }
            for place, (customer, products) in enumerate(seen)
        ]
        answers: list[dict[str, Any]] = []
        for first in range(0, len(asked), CHUNK):
            answers += await self.calls.recommend(asked[first : first + CHUNK])
        self.pulse.recommendations += len(asked)
        slates = [
            Slate(answer["decision_id"], customer, answer["group"], answer["offers"])
            for (customer, _), answer in zip(seen, answers, strict=True)
        ]
        self.not_fresh += sum(not answer["fresh"] for answer in answers)
        self.groups.update((slate.customer, slate.group) for slate in slates)
        worth = self.shoppers.worth(day)
        # Everybody is shown at once: a generator a day says who looks where.
        showings = showings_of(slates)
        reaction = self.shoppers.show(day, showings)
        for group in ("treatment", "baseline"):
            self.days.append(self._noted(day, group, slates, showings, reaction, worth))
        self.decision_ids += [slate.decision_id for slate in slates if slate.group == "treatment"]
        await self._tell(slates, reaction, at + len(seen) * SECOND)

    def _noted(
        self,
        day: int,
        group: str,
        slates: list[Slate],
        showings: Showings,
        reaction: Reaction,
        worth: Floats,
    ) -> DayOfTrade:
        rows = [(offer, slate.group == group) for slate in slates for offer in slate.offers]
        chosen = np.array([mine for _, mine in rows], dtype=np.bool_)
        mine = [offer for offer, of in rows if of]
        asked = [slate for slate in slates if slate.group == group]
        kept = showings.where(chosen)
        best, even = possible(worth, self.world.sold(day), [slate.customer for slate in asked])
        return DayOfTrade(
            day=day,
            group=group,
            decisions=len(asked),
            showings=kept,
            reaction=Reaction(*(column[chosen] for column in reaction)),
            kinds=np.array([KINDS.index(offer["kind"]) for offer in mine], dtype=np.int64),
            scores=np.array([offer["score"] for offer in mine]),
            propensities=np.array([offer["propensity"] for offer in mine]),
            worth=worth[kept.customer, kept.product] * EXAMINED[kept.slot],
            best=best,
            even=even,
        )

    async def _tell(self, slates: list[Slate], reaction: Reaction, at: Millis) -> None:
        """Report what was looked at, and what was clicked."""
        offers = [offer for slate in slates for offer in slate.offers]
        outcomes = [
            {"token": offer["token"], "outcome": word, "occurred_at": iso(at + later)}
            for word, happened, later in (
                ("shown", reaction.examined, 0),
                ("clicked", reaction.clicked, 60 * SECOND),
            )
            for offer, yes in zip(offers, happened.tolist(), strict=True)
            if yes
        ]
        await self._feed.post_outcomes(outcomes)
        self._last = max(self._last, at + 60 * SECOND)

    async def _buy(self, day: int) -> None:
        bought, back = self.shoppers.orders(day), self.shoppers.returns(day)
        at, later = BEGIN + day * DAY + BUYING, BEGIN + day * DAY + RETURNING
        await self._feed.post_touchpoints(self._orders_of(day, bought, "order_completed", at), len(bought))
        await self._feed.post_touchpoints(self._orders_of(day, back, "order_returned", later))
        self.pulse.events = self._feed.events
        self._last = max(self._last, (later if back else at) + SECOND)

    def _orders_of(
        self, day: int, lines: list[tuple[int, list[int]]], what: str, at: Millis
    ) -> list[dict[str, Any]]:
        price = self.world.price
        return [
            {
                "id": f"{what}-{day}-{customer}",
                "type": what,
                "channel": "web",
                "customer_id": customer_id(customer),
                "occurred_at": iso(at),
                "properties": {
                    "order_id": f"order-{day}-{customer}",
                    **({"currency": CURRENCY} if what == "order_completed" else {}),
                    "products": [
                        {"product_id": product_id(product), "quantity": 1, "price": float(price[product])}
                        for product in products
                    ],
                },
            }
            for customer, products in lines
        ]


def placement() -> dict[str, Any]:
    """Where the market shows its offers; more ghosts than usual, because it does not last long."""
    return {
        "placement_id": PLACEMENT,
        "limit": SLOTS,
        "kinds": list(PRODUCT_KINDS),
        "objective": "uplift",
        "exploration": 0.02,
        "ghosts": 0.05,
        "window": WINDOW_DAYS * 86_400,
    }


def showings_of(slates: Iterable[Slate]) -> Showings:
    """The rows of slates, slot by slot."""
    rows = [
        (slate.customer, product_of(offer["product_id"]), slot)
        for slate in slates
        for slot, offer in enumerate(slate.offers)
    ]
    customer, product, slot = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return Showings(customer, product, slot)


def possible(worth: Floats, sold: np.ndarray[Any, Any], customers: list[int]) -> tuple[float, float]:
    """What the best slates for ``customers`` would have caused, and slates drawn evenly from what is sold."""
    rows = worth[customers][:, sold]
    top = -np.sort(-rows, axis=1)[:, :SLOTS]
    return float((top * EXAMINED).sum()), float(rows.mean(axis=1).sum() * EXAMINED.sum())
