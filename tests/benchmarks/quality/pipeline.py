"""The pipeline itself: a platform of its own on a journal clock, spoken to over HTTP only."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from deploy.local.demo.calls import Calls
from deploy.local.demo.data import CURRENCY, Basket
from deploy.local.demo.feed import Feed
from deploy.local.platform import Options, Platform
from deploy.local.up import quiet_libraries
from libs.common.errors import ClosedloopError
from tests.benchmarks.quality.loop import Request, calls_of, products_of
from tests.benchmarks.rig import free_port_base

MUCH = 800
"""More baskets than this are a history, posted no faster than it is counted."""
PATIENCE = 30.0
STOCKED = 2.0
PROBE = "quality-probe"


class Pipeline:
    """Implements `Loop` over HTTP; see `pipeline`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._feed = Feed(calls)
        self._probes = itertools.count()

    async def stock(self, products: Sequence[dict[str, Any]], placements: Sequence[dict[str, Any]]) -> None:
        await self._feed.stock(products, placements)
        # What is learned about choices depends on the catalogue, which every view has within a second.
        await asyncio.sleep(STOCKED)

    async def learn(self, baskets: Sequence[Basket]) -> None:
        if not baskets:
            return
        if len(baskets) > MUCH:
            await self._feed.history(baskets)
        else:
            await self._feed.post_orders(baskets)
        await self._serves(await self._feed.learned(baskets[-1].at))

    async def ask(self, requests: Sequence[Request]) -> list[list[str]]:
        found: list[list[str]] = []
        after = {"after": self._feed.position, "wait_ms": 1_000} if self._feed.position else {}
        for some in calls_of(requests):
            answers = await self._calls.recommend([{**request, **after} for request in some])
            if not all(answer["fresh"] for answer in answers):
                raise ClosedloopError("a model did not come within a second")
            found += [products_of(answer) for answer in answers]
        return found

    async def _serves(self, version: int) -> None:
        """Wait until decisions are made with ``version`` of what was learned.

        A decision is asked, because only it says which version it was made with: the recommender may have
        a version and not have made its tables yet.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            probe = f"{PROBE}-{next(self._probes)}"
            await self._calls.post(
                "recommender", "/v1/recommendations", {"placement": PROBE, "decision_id": probe}
            )
            versions = (await self._calls.get("recommender", f"/v1/decisions/{probe}"))["versions"]
            if versions["model"] >= version:
                return
            if time.monotonic() > deadline:
                raise ClosedloopError(f"decisions are made with {versions}, not with version {version}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def pipeline(broker: str) -> AsyncIterator[Pipeline]:
    """A pipeline on an ``embedded`` or ``apache`` broker, stopped and removed when the block ends."""
    quiet_libraries()
    platform = Platform(
        Options(
            data_dir=None,
            port_base=free_port_base(),
            clock="journal",
            holdout="0,0",
            currency=CURRENCY,
            broker=broker,
        ),
        lambda _: None,
    )
    try:
        await platform.start()
        async with Calls(platform.urls, platform.key) as calls:
            yield Pipeline(calls)
    finally:
        await platform.stop()
