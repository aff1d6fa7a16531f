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
from deploy.local.demo.feed import order
from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Message
from libs.common.clock import SECOND, JournalClock, Millis
from libs.common.contracts.customer_event import Touchpoint
from libs.common.contracts.customer_model import ITEMS, PROFILE, encode_model, model_key
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.learned_model import MANIFEST_KEY
from libs.common.contracts.topics import CATALOGUE, CUSTOMER_MODELS, LEARNED_MODELS, TOPICS
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.spool.memory import MemoryJournal
from libs.common.view import MemoryView, OnBatch
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.fold import Fold, Place
from services.analyzer.learner.parts import Publications, Solved, content_of
from services.analyzer.model.fold import Models, fold
from services.analyzer.model.lessons import encode_lesson, journal_second
from services.recommender.app import create_service
from services.recommender.memory import MemoryCatalogueStore, MemoryDecisionStore
from services.recommender.settings import RecommenderSettings
from tests.benchmarks.quality.loop import Request, calls_of, products_of

KEY = "twin-key-0123456789-0123456789"
PEOPLE = 5_000


class Stores:
    """The recommender's database in memory."""

    def __init__(self) -> None:
        self.catalogue = MemoryCatalogueStore()
        self.decisions = MemoryDecisionStore()

    async def compact(self) -> list[str]:
        return []

    async def close(self) -> None:
        return None


class Analyzer:
    """Folds orders as the slices of twelve partitions do; keeps models and numbers lessons."""

    def __init__(self) -> None:
        self._models: dict[str, Models] = {}
        self._times: list[Millis] = [0] * PARTITIONS
        self._numbers = [itertools.count(1) for _ in range(PARTITIONS)]

    def fold(self, event: Touchpoint) -> tuple[Models, tuple[Place, bytes] | None]:
        """The customer's models after ``event``, and what is to be learned from it."""
        partition = partition_of(event.customer)
        now = self._times[partition] = max(self._times[partition], event.recorded_at)
        before = self._models.get(event.customer) or Models.new(event.customer)
        step = fold(before, event, now)
        self._models[event.customer] = step.models
        if not step.lessons:
            return step.models, None
        place = Place(journal_second(now), partition, next(self._numbers[partition]))
        return step.models, (place, encode_lesson(step.lessons[0]))


class Learner:
    """The learner's fold, and what it publishes of it."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.fold = Fold(catalogue=self.catalogue)
        self._publications = Publications()
        self._solved = Solved()
        self._version = 0

    def learn(self, rows: list[tuple[Place, bytes]], until: Millis) -> None:
        """Fold lessons, in canonical order."""
        self.fold.learn_many(sorted(rows))
        self.fold.settle(until)

    def records(self, until: Millis) -> list[tuple[bytes, bytes, int]]:
        """Records (key, value, version) of a new version, the manifest last."""
        self._version += 1
        content = content_of(self.fold, until, self._solved)
        missing, manifest = self._publications.records(content, self._version)
        return [*missing, (MANIFEST_KEY, manifest, self._version)]


class Twin:
    """Implements `Loop` in process; see `twin`."""

    def __init__(self, client: httpx.AsyncClient, views: dict[str, MemoryView], clock: JournalClock) -> None:
        self._client = client
        self._views = views
        self._clock = clock
        self._analyzer = Analyzer()
        self._learner = Learner()

    async def stock(self, products: Sequence[dict[str, Any]], placements: Sequence[dict[str, Any]]) -> None:
        for first in range(0, len(products), 1_000):
            await self._post("/v1/products", products[first : first + 1_000])
        await self._post("/v1/placements", list(placements))
        while sum(1 for _ in self._views[CATALOGUE].scan()) < len(products) + len(placements):
            await asyncio.sleep(0.05)
        entries = self._views[CATALOGUE].scan()
        self._learner.catalogue.on_batch(
            [Message(CATALOGUE, 0, at, key, value, (), 0) for at, (key, value) in enumerate(entries)]
        )

    async def learn(self, baskets: Sequence[Basket]) -> None:
        if not baskets:
            return
        customers: dict[str, Models] = {}
        rows = []
        for basket in baskets:
            models, lesson = self._analyzer.fold(_event(basket))
            customers[basket.customer] = models
            if lesson is not None:
                rows.append(lesson)
        for customer, models in customers.items():
            for name, part in ((PROFILE, models.profile), (ITEMS, models.items)):
                self._views[CUSTOMER_MODELS].put(model_key(customer, name), encode_model(part))
        # As the closing tick of a collector that hears nothing more.
        until = baskets[-1].at + SECOND
        self._clock.advance(until)
        self._learner.learn(rows, until)
        for key, value, version in self._learner.records(until):
            self._views[LEARNED_MODELS].put(key, value, version)

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
async def twin() -> AsyncIterator[Twin]:
    """A twin, running until the block ends."""
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
            yield Twin(client, views, clock)


def _event(basket: Basket) -> Touchpoint:
    """A basket as the collector journals it."""
    body = order(basket)
    return Touchpoint(
        id=body["id"],
        source="twin",
        customer=basket.customer,
        occurred_at=basket.at,
        recorded_at=basket.at,
        type=body["type"],
        channel=body["channel"],
        properties=body["properties"],
        customer_id=basket.customer,
    )
