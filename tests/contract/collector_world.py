"""A collector with its bus and its clock in memory, and a caller with a key, for contract tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx

from libs.common.bus.memory import MemoryBus
from libs.common.clock import ManualClock
from libs.common.contracts.customer_event import CustomerEvent, SpoolReported, Tick, Touchpoint
from libs.common.journal import Durability
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.spool.memory import MemoryJournal
from services.collector.app import create_service
from services.collector.settings import CollectorSettings

NOW = 1_760_000_000_000
ISO_NOW = "2025-10-09T08:53:20Z"
VIEW = {"type": "product_viewed", "channel": "web", "customer_id": "c1", "properties": {"product_id": "p1"}}
ORDER = {
    "type": "order_completed",
    "channel": "store",
    "customer_id": "c1",
    "properties": {"order_id": "o1", "products": [{"product_id": "p1", "quantity": 1, "price": 2.5}]},
}


class WatchedJournal(MemoryJournal):
    """Remembers which events were appended together; ``reaches`` is how far the bus lets them come."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions: list[list[CustomerEvent]] = []
        self.reaches = Durability.BUS

    def append(self, events: Sequence[CustomerEvent], local: Sequence[tuple[str, bytes]] = ()) -> Position:
        position = super().append(events, local)
        if any(not isinstance(event, Tick | SpoolReported) for event in events):
            self.transactions.append(list(events))
        return position

    async def durable(self, position: Position, level: Durability) -> Durability:
        await super().durable(position, level)
        return level if level is Durability.SPOOL else self.reaches


class Collector:
    """A collector in this process, and a caller with a key."""

    def __init__(self, http: httpx.AsyncClient, journal: WatchedJournal, clock: ManualClock) -> None:
        self.http = http
        self.journal = journal
        self.clock = clock

    async def post(self, body: Any, path: str = "/v1/touchpoints", **more: Any) -> httpx.Response:
        return await self.http.post(path, json=body, **more)

    @property
    def events(self) -> list[CustomerEvent]:
        return [event for one in self.journal.transactions for event in one]

    @property
    def touchpoints(self) -> list[Touchpoint]:
        return [event for event in self.events if isinstance(event, Touchpoint)]


@asynccontextmanager
async def collecting(data_dir: Path, **settings: Any) -> AsyncIterator[Collector]:
    journal, clock = WatchedJournal(), ManualClock(NOW)
    service = create_service(
        CollectorSettings(data_dir=data_dir, dev_key="dev-key", **settings),
        bus=MemoryBus(),
        journal=journal,
        board=ProgressBoard(),
        clock=clock,
        random=Random(7),
    )
    transport = httpx.ASGITransport(service.app)
    headers = {"authorization": "Bearer dev-key"}
    async with (
        running(service),
        httpx.AsyncClient(transport=transport, base_url="http://collector", headers=headers) as http,
    ):
        yield Collector(http, journal, clock)
