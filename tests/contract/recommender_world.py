"""A recommender with everything around it in memory, for contract tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from libs.common.bus.memory import MemoryBus
from libs.common.clock import DAY, JournalClock, ManualClock
from libs.common.contracts.catalogue import Placement, Product
from libs.common.contracts.customer_event import Decision
from libs.common.contracts.customer_model import Decayed, Item, Items, Profile, encode_model, model_key
from libs.common.contracts.learned_model import MANIFEST_KEY
from libs.common.contracts.progress import Progress
from libs.common.contracts.topics import CUSTOMER_MODELS, LEARNED_MODELS, TOPICS
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.secrets import make_private_folder
from libs.common.spool.memory import MemoryJournal
from libs.common.view import MemoryView, OnBatch
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.fold import Fold, Place
from services.analyzer.learner.parts import Publications, Solved, content_of
from services.analyzer.model.lessons import OrderLesson, TrialLesson
from services.recommender.app import create_service
from services.recommender.memory import MemoryCatalogueStore, MemoryDecisionStore
from services.recommender.settings import RecommenderSettings

NOW = 1_800_000_000_000
URL = "/v1/recommendations"
DEV = "development-key-development-key"
SPOOL = "00000000000000bb"
SHELF = {
    "coffee": ("drinks/coffee", 4.0),
    "espresso": ("drinks/coffee", 6.0),
    "milk": ("dairy", 1.0),
    "bread": ("bakery", 2.0),
    "jam": ("spreads", 3.0),
    "tea": ("drinks/tea", 3.0),
    "honey": ("spreads/honey", 7.0),
}


class Stores:
    """The database in memory; it outlives a restart of the service."""

    def __init__(self) -> None:
        self.catalogue = MemoryCatalogueStore()
        self.decisions = MemoryDecisionStore()

    async def compact(self) -> list[str]:
        return []

    async def close(self) -> None:
        return None


class World:
    """A recommender with everything around it in memory, and keys to call it with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bus = MemoryBus()
        self.clock: JournalClock = ManualClock(NOW)
        self.board = ProgressBoard()
        self.journal = MemoryJournal()
        self.stores = Stores()
        self.views: dict[str, MemoryView] = {}
        self.settings: dict[str, Any] = {}
        # Trap: made at random it would mean other ghosts and groups at each run, sometimes none at all.
        make_private_folder(folder / "secrets")
        (folder / "secrets" / "salt.key").write_bytes(b"the same salt at every test run.")

    def view(self, topic: str, on_batch: OnBatch | None) -> MemoryView:
        self.views[topic] = MemoryView(self.bus, topic, on_batch)
        return self.views[topic]

    async def stock(self, **more: Placement) -> None:
        """Put the shelf, and placements, into the catalogue."""
        products = [
            (name, Product(product_id=name, name=name, category=category, price=price, currency="EUR"))
            for name, (category, price) in SHELF.items()
        ]
        await self.stores.catalogue.put("product", products)
        await self.stores.catalogue.put("placement", list(more.items()))

    @asynccontextmanager
    async def up(self, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        """The service running; requests carry the development key."""
        options = {"holdout": (0, 0)} | settings
        made = RecommenderSettings(data_dir=self.folder, dev_key=DEV, **options)
        service = create_service(
            made,
            bus=self.bus,
            stores=self.stores,
            make_view=self.view,
            journal=self.journal,
            board=self.board,
            clock=self.clock,
        )
        transport = httpx.ASGITransport(service.app)
        headers = {"authorization": f"Bearer {DEV}"}
        async with (
            running(service),
            httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client,
        ):
            wanted = len(self.stores.catalogue._bodies)
            await until(lambda: len(list(self.views["catalogue"].scan())) == wanted)
            await asyncio.sleep(0)
            yield client

    def knows(self, key: str, *bought: str, **profile: Any) -> None:
        """Let there be a model of a customer."""
        item = Item(orders=4, bought=Decayed(3.0, NOW - DAY), last_bought_at=NOW - DAY, cycle=7.0 * DAY)
        items = Items(customer=key, items=dict.fromkeys(bought, item))
        view = self.views[CUSTOMER_MODELS]
        view.put(model_key(key, "items"), encode_model(items))
        view.put(model_key(key, "profile"), encode_model(Profile(customer=key, **profile)))

    def progress(self, behind: int = 0, applied: int = 0, only: int | None = None) -> None:
        """Say how far the analyzer is, ``behind`` ms in all partitions."""
        for partition in range(12) if only is None else (only,):
            self.board.put(
                Progress(
                    partition=partition,
                    cluster="memory-1",
                    epoch=1,
                    applied={SPOOL: applied},
                    journal_time=self.clock.now() - behind,
                    models_offset=0,
                )
            )

    def learns(
        self, lessons: Iterable[TrialLesson | OrderLesson], catalogue: Catalogue | None = None
    ) -> None:
        """Let the learner have folded ``lessons``, and published."""
        fold, view = Fold(catalogue=catalogue), self.views[LEARNED_MODELS]
        for number, lesson in enumerate(lessons):
            fold.settle(lesson.at)
            fold.learn_one(Place(0, 0, number), lesson)
        records, manifest = Publications().records(content_of(fold, self.clock.now(), Solved()), 1)
        for key, value, _ in records:
            view.put(key, value)
        view.put(MANIFEST_KEY, manifest)

    @property
    def decisions(self) -> list[Decision]:
        return [event for event in self.journal.events if isinstance(event, Decision)]


async def until(holds: Callable[[], bool], seconds: float = 2.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


async def stocked(folder: Path) -> World:
    """A world with a shelf of seven products and three placements."""
    made = World(folder)
    await made.bus.ensure_topics(TOPICS)
    await made.stock(
        sure=Placement(placement_id="sure", exploration=0.0, objective="acceptance"),
        lucky=Placement(placement_id="lucky", exploration=0.5, limit=3),
        costly=Placement(placement_id="costly", exploration=0.0, contact_cost=100.0),
    )
    return made


async def ask(client: httpx.AsyncClient, status: int = 200, **body: Any) -> dict[str, Any]:
    response = await client.post(URL, json={"placement": "sure"} | body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def products(answer: dict[str, Any]) -> list[str]:
    return [offer["product_id"] for offer in answer["offers"]]


def repeats(answer: dict[str, Any]) -> set[str]:
    return {offer["product_id"] for offer in answer["offers"] if offer["kind"] == "repeat"}
