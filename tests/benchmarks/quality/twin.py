"""The pipeline's twin in one process: the same folds and decisions, without broker, database and waiting.

Orders go through the analyzer's fold and the learner's, models and learned parts as records into views in
memory, and the recommender answers as the application it is, called without a socket.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from deploy.local.demo.data import CURRENCY, Basket
from libs.common.bus.memory import MemoryBus
from libs.common.clock import JournalClock
from libs.common.contracts.customer_model import ITEMS, PROFILE, encode_model, model_key
from libs.common.contracts.topics import CATALOGUE, CUSTOMER_MODELS, LEARNED_MODELS, TOPICS
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.spool.memory import MemoryJournal
from libs.common.view import MemoryView, OnBatch
from services.recommender.app import create_service
from services.recommender.settings import RecommenderSettings
from tests.benchmarks.quality.loop import Request, calls_of, products_of
from tests.benchmarks.quality.shadow import Shadow
from tests.contract.recommender_world import Stores

KEY = "twin-key-0123456789-0123456789"
PEOPLE = 5_000


class Twin:
    """Implements `Loop` in process; see `twin`."""

    def __init__(
        self, client: httpx.AsyncClient, views: dict[str, MemoryView], clock: JournalClock, shadow: Shadow
    ) -> None:
        self._client = client
        self._views = views
        self._clock = clock
        self._shadow = shadow

    async def stock(self, products: Sequence[dict[str, Any]], placements: Sequence[dict[str, Any]]) -> None:
        for first in range(0, len(products), 1_000):
            await self._post("/v1/products", products[first : first + 1_000])
        await self._post("/v1/placements", list(placements))
        while sum(1 for _ in self._views[CATALOGUE].scan()) < len(products) + len(placements):
            await asyncio.sleep(0.05)

    async def learn(self, baskets: Sequence[Basket]) -> None:
        customers, records = self._shadow.hear(baskets)
        for customer in customers:
            models = self._shadow.of(customer)
            for name, part in ((PROFILE, models.profile), (ITEMS, models.items)):
                self._views[CUSTOMER_MODELS].put(model_key(customer, name), encode_model(part))
        for key, value, version in records:
            self._views[LEARNED_MODELS].put(key, value, version)
        self._clock.advance(self._shadow.now)

    async def ask(self, requests: Sequence[Request]) -> list[list[str]]:
        found: list[list[str]] = []
        for some in calls_of(requests):
            answers = (await self._post("/v1/recommendations/batch", {"requests": some}))["answers"]
            found += map(products_of, answers)
        return found

    async def _post(self, path: str, body: Any) -> Any:
        response = await self._client.post(path, content=msgspec.json.encode(body))
        response.raise_for_status()
        answer = msgspec.json.decode(response.content)
        assert not answer.get("rejected"), answer
        return answer


@asynccontextmanager
async def twin(shadow: Shadow) -> AsyncIterator[Twin]:
    """A twin that learns in ``shadow``, running until the block ends."""
    bus, clock, views = MemoryBus(), JournalClock(), {}
    await bus.ensure_topics(TOPICS)

    def make_view(topic: str, on_batch: OnBatch | None) -> MemoryView:
        views[topic] = MemoryView(bus, topic, on_batch)
        return views[topic]

    with tempfile.TemporaryDirectory(prefix="closedloop-twin-") as folder:
        settings = RecommenderSettings(
            data_dir=Path(folder),
            dev_key=KEY,
            clock="journal",
            currency=CURRENCY,
            holdout=(0, 0),
            people=PEOPLE,
        )
        ages = itertools.count()
        service = create_service(
            settings,
            bus=bus,
            stores=Stores(),
            make_view=make_view,
            journal=MemoryJournal(),
            board=ProgressBoard(),
            clock=clock,
            # Each look at the clock is a minute later, so that tables are never rested but made anew.
            monotonic=lambda: 60.0 * next(ages),
        )
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        async with (
            running(service),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(service.app),
                base_url="http://twin",
                headers=headers,
                timeout=600,
            ) as client,
        ):
            yield Twin(client, views, clock, shadow)
