"""Feeding a platform: baskets as a till would post them, and the wait until they are counted and learned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deploy.local.demo.calls import Calls
from deploy.local.demo.data import CURRENCY, Basket
from libs.common.clock import SECOND, Millis
from libs.common.errors import ClosedloopError

CHANNEL = "store"
CHUNK = 800
MOST_IN_FLIGHT = 4_000
LEARNER_PATIENCE = 120.0
LOOK_SECONDS = 0.02
"""Between two looks whether what was posted is counted or learned: a replay of days waits for it each day."""


class Feed:
    """Posts orders and outcomes, and knows how much of it has been counted and learned from.

    Parameters
    ----------
    on_counted:
        Called with how many of the posted events have been counted, whenever that was asked.

    Attributes
    ----------
    events, orders:
        How many were posted, of any kind and with goods.
    position:
        Of the last orders posted: an answer ``after`` it knows all of them.
    """

    def __init__(self, calls: Calls, on_counted: Callable[[int], None] = lambda _: None) -> None:
        self._calls = calls
        self._on_counted = on_counted
        self.events = 0
        self.orders = 0
        self.position = ""

    async def stock(self, products: Sequence[Any], placements: Sequence[dict[str, Any]]) -> None:
        """Put a catalogue into the recommender."""
        for first in range(0, len(products), 1_000):
            await self._calls.post("recommender", "/v1/products", products[first : first + 1_000])
        for placement in placements:
            await self._calls.put("recommender", f"/v1/placements/{placement['placement_id']}", placement)

    async def history(self, baskets: Sequence[Basket]) -> None:
        """Post much in time order, no faster than it is counted, and wait until all of it is learned."""
        for first in range(0, len(baskets), CHUNK):
            await self.post_orders(baskets[first : first + CHUNK])
            await self.counted(MOST_IN_FLIGHT)
        await self.counted()
        if baskets:
            await self.learned(baskets[-1].at)

    async def post_orders(self, baskets: Sequence[Basket]) -> None:
        """Baskets in time order, in one request each `CHUNK`.

        Trap: not side by side. The ticks of a faster request would let the others' orders come late, and
        the learner would meet them in another order at each run.
        """
        await self.post_touchpoints([order(basket) for basket in baskets], len(baskets))

    async def post_touchpoints(self, touchpoints: Sequence[dict[str, Any]], orders: int = 0) -> None:
        """Touchpoints in time order, ``orders`` of which are orders; one request after the other."""
        for first in range(0, len(touchpoints), CHUNK):
            chunk = touchpoints[first : first + CHUNK]
            self.position = (await self._calls.post("collector", "/v1/touchpoints", chunk))["position"]
            self.events += len(chunk)
        self.orders += orders

    async def post_outcomes(self, outcomes: Sequence[dict[str, Any]]) -> None:
        """Post what came of offers."""
        for first in range(0, len(outcomes), 1_000):
            await self._calls.post("feedback", "/v1/outcomes", outcomes[first : first + 1_000])
        self.events += len(outcomes)

    async def counted(self, but: int = 0) -> None:
        """Wait until all posted events but so many were counted by the analyzer.

        The ledger's own figure of what is in flight lags by up to a second: services report what they
        accepted that often.
        """
        while True:
            ledger = await self._calls.get("analyzer", "/v1/ledger")
            if ledger["rejected"] or ledger["dead_lettered"]:
                raise ClosedloopError(f"events were not counted: {ledger}")
            done = ledger["applied"] + ledger["duplicate"]
            self._on_counted(done)
            if self.events - done <= but:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def learned(self, at: Millis) -> int:
        """Wait until the learner has passed the second of ``at`` and every order so far; its version.

        On a slow machine that may take long; it gives up where nothing has moved for `LEARNER_PATIENCE`.
        """
        second = at // SECOND * SECOND
        before, deadline = None, 0.0
        while True:
            learned = (await self._calls.get("analyzer", "/v1/models"))["learned"]
            if learned["journal_time"] >= second and learned["orders"] >= self.orders:
                return int(learned["version"])
            if learned != before:
                before, deadline = learned, time.monotonic() + LEARNER_PATIENCE
            if time.monotonic() > deadline:
                raise ClosedloopError(
                    f"the learner stands at {learned}, short of {self.orders} orders: see its log"
                )
            await asyncio.sleep(LOOK_SECONDS)


def iso(at: Millis) -> str:
    """Milliseconds as RFC 3339 in UTC."""
    return f"{np.datetime64(at, 'ms')}Z"


def order(basket: Basket) -> dict[str, Any]:
    """A basket as the touchpoint a till would send."""
    lines = [
        {"product_id": product, "quantity": quantity, "price": price}
        for product, quantity, price in zip(basket.products, basket.quantities, basket.prices, strict=True)
    ]
    return {
        "id": basket.order_id,
        "type": "order_completed",
        "channel": CHANNEL,
        "customer_id": basket.customer,
        "occurred_at": iso(basket.at),
        "properties": {"order_id": basket.order_id, "currency": CURRENCY, "products": lines},
    }
