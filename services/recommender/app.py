"""Puts the recommender together; the only room that knows all the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Bus, Message
from libs.common.clock import Clock, Millis, WallClock
from libs.common.contracts.topics import CATALOGUE, CUSTOMER_MODELS, LEARNED_MODELS
from libs.common.db import Database, rewrite
from libs.common.errors import Transient
from libs.common.http.admission import Rates
from libs.common.http.compaction import Compact, Compacted, add_compaction
from libs.common.http.factory import create_http
from libs.common.intake import LEAP
from libs.common.lookup import Followed
from libs.common.outlet import Outlet, RunningJournal, Task, open_outlet
from libs.common.progress import ProgressBoard
from libs.common.runtime import Service
from libs.common.secrets import Secrets
from libs.common.telemetry import Metrics
from libs.common.tokens import TokenSealer
from libs.common.view import OnBatch, View
from services.recommender.api import add_routes
from services.recommender.closure import ClosureWatch
from services.recommender.consumer import CatalogueReader, LearnedReader
from services.recommender.forgetting import Forgetting, Withdrawals
from services.recommender.handlers.catalogue import CatalogueKeeper
from services.recommender.handlers.decide import Decider, Holdout
from services.recommender.handlers.recommend import Recommender
from services.recommender.metrics import VIEWS, RecommenderMetrics
from services.recommender.model.assortment import Assortment
from services.recommender.model.consent import Policy
from services.recommender.model.tables import TableMaker
from services.recommender.people import ViewPeople
from services.recommender.pools import PoolKeeper
from services.recommender.ports import CatalogueStore, DecisionStore
from services.recommender.publisher import CataloguePublisher
from services.recommender.settings import RecommenderSettings
from services.recommender.store import SCHEMA, PostgresCatalogueStore, PostgresDecisionStore, Schema

FORGOTTEN_WITHIN = 10.0


class RunningView(Followed, Withdrawals, Protocol):
    """A view with a life of its own."""

    swept: int
    losses: int

    def state(self) -> str: ...

    def outstanding(self) -> int: ...

    async def start(self) -> None: ...

    async def watch(self) -> None: ...

    async def stop(self) -> None: ...

    async def compact(self) -> None: ...


MakeView = Callable[[str, OnBatch | None], RunningView]
"""Makes the view of a topic."""


class Stores(Protocol):
    """What is kept in the database, and how to let go of it."""

    catalogue: CatalogueStore
    decisions: DecisionStore

    async def compact(self) -> list[str]:
        """Write the tables anew; answers what could not be cleared."""
        ...

    async def close(self) -> None: ...


class PostgresStores:
    """The stores on PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        schema = Schema(self._database)
        self.catalogue: CatalogueStore = PostgresCatalogueStore(schema)
        self.decisions: DecisionStore = PostgresDecisionStore(schema)

    async def compact(self) -> list[str]:
        return await rewrite(self._database, SCHEMA)

    async def close(self) -> None:
        await self._database.close()


def create(settings: RecommenderSettings) -> Service:
    """The recommender as a process: on Kafka and PostgreSQL, with spool and views on disk."""
    bus = KafkaBus(settings.kafka, client_id="recommender", replication=settings.kafka_replication)
    return create_service(settings, bus=bus, stores=PostgresStores(settings.postgres.get_secret_value()))


def create_service(
    settings: RecommenderSettings,
    *,
    bus: Bus,
    stores: Stores,
    make_view: MakeView | None = None,
    journal: RunningJournal | None = None,
    board: ProgressBoard | None = None,
    clock: Clock | None = None,
    random: Random | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Service:
    """The recommender, put together from parts; those not given are the real ones.

    ``clock`` is the platform's time: a `JournalClock` where ``settings.clock`` is ``journal``.
    """
    registry = Metrics("recommender")
    metrics = RecommenderMetrics(registry)
    outlet = open_outlet(settings, "recommender", bus, registry, journal=journal, board=board, clock=clock)
    # A note and no check: it answers without a spool too, only that nothing can be reported on its offers.
    outlet.lifecycle.note("spool", lambda: outlet.trouble() or "ok")
    random = random or Random(int.from_bytes(os.urandom(32), "big"))
    assortment = Assortment()
    closure = ClosureWatch(outlet.board, outlet.clock, metrics)
    forgetting = Forgetting(lambda: models.customers, stores.decisions, metrics)
    on_models = _both(closure.on_models, forgetting.on_batch)
    models = _Models(make_view or _on_disk(settings, bus), assortment, metrics, on_models)
    closure.follow(models.customers)
    registry.before_scrape(lambda: models.measure(metrics, closure))
    for view, topic in zip(models.views, VIEWS, strict=True):
        outlet.lifecycle.note(topic, view.state)
    publisher = CataloguePublisher(bus, stores.catalogue, metrics, random, assortment.reached)
    pools = PoolKeeper(outlet.journal, stores.decisions, metrics, random, settings.decision_days, forgetting)
    background = [*outlet.background, *(view.watch for view in models.views), publisher.run, pools.run]
    decider = _decider(settings, assortment, models.learned, metrics, monotonic)
    registry.before_scrape(decider.honesty.show)
    recommender = Recommender(
        decider,
        ViewPeople(models.customers, metrics, settings.people),
        outlet.board,
        outlet.journal,
        stores.decisions,
        outlet.clock,
        metrics,
        wall=settings.clock == "wall",
        latest_start=_latest_start,
        new_id=lambda: f"{random.getrandbits(128):032x}",
        remembered=settings.answers,
        monotonic=monotonic,
    )
    forgetting.drop = recommender.forget
    rates = Rates.of(settings)
    app = create_http(
        "recommender", keys=outlet.keys, metrics=registry, lifecycle=outlet.lifecycle, rates=rates
    )
    keeper = CatalogueKeeper(stores.catalogue, outlet.clock, settings.currency, publisher.wake)
    add_routes(app, recommender, keeper, metrics)
    add_compaction(app, "recommender", _compactor(outlet, models, stores, pools))
    start, stop = _life(outlet, models, stores)
    return Service("recommender", app, start, stop, background)


def _both(first: OnBatch, second: OnBatch) -> OnBatch:
    def hear(messages: Sequence[Message]) -> None:
        first(messages)
        second(messages)

    return hear


class _Models:
    """The three views, and what is read out of two of them into memory."""

    def __init__(
        self, make_view: MakeView, assortment: Assortment, metrics: RecommenderMetrics, on_models: OnBatch
    ) -> None:
        self._catalogue_reader = CatalogueReader(assortment, metrics)
        self.learned = LearnedReader(metrics)
        self._catalogue = make_view(CATALOGUE, self._catalogue_reader.on_batch)
        self._learned = make_view(LEARNED_MODELS, self.learned.on_batch)
        self.customers = make_view(CUSTOMER_MODELS, on_models)

    @property
    def views(self) -> tuple[RunningView, ...]:
        return (self._catalogue, self._learned, self.customers)

    def measure(self, metrics: RecommenderMetrics, closure: ClosureWatch) -> None:
        """Show how far the views are."""
        metrics.missing.set(closure.missing())
        self._catalogue_reader.measure()
        for view, name in zip(self.views, VIEWS, strict=True):
            metrics.view_lag.set(view.lag_seconds(), name)
            metrics.view_outstanding.set(view.outstanding(), name)
            metrics.view_swept.set(view.swept, name)
            metrics.view_losses.set(view.losses, name)
        metrics.learned.set(self.learned.assembler.models.journal_time / 1000)
        for topic, view in zip(VIEWS, self.views, strict=True):
            metrics.caught_up.set(view.caught_up, topic)

    async def start(self) -> None:
        for view in self.views:
            await view.start()
        self._catalogue_reader.load(self._catalogue.scan())
        self.learned.load(self._learned.scan())

    async def stop(self) -> None:
        for view in self.views:
            await view.stop()


def _decider(
    settings: RecommenderSettings,
    assortment: Assortment,
    learned: LearnedReader,
    metrics: RecommenderMetrics,
    monotonic: Callable[[], float],
) -> Decider:
    secrets = Secrets(settings.data_dir, settings.installation_secret)
    return Decider(
        assortment,
        TableMaker(assortment, lambda: learned.assembler.models, monotonic),
        TokenSealer(secrets.token_key()).seal,
        Holdout(secrets.holdout_salt(), *settings.holdout),
        Policy(settings.unknown_consent, frozenset(settings.existing_customer)),
        metrics,
        settings.people,
    )


def _life(outlet: Outlet, models: _Models, stores: Stores) -> tuple[Task, Task]:
    """How the parts begin and end; none waits for broker or database."""

    async def start() -> None:
        await outlet.start()
        await models.start()

    async def stop() -> None:
        await models.stop()
        await stores.close()
        await outlet.stop()

    return start, stop


def _compactor(outlet: Outlet, models: _Models, stores: Stores, pools: PoolKeeper) -> Compact:
    async def compact() -> list[Compacted]:
        done: list[Compacted] = []
        if not await pools.passed(FORGOTTEN_WITHIN):
            raise Transient("decisions wait for the database, and would only be deleted later")
        for view in models.views:
            await view.compact()
        done.append(Compacted("views of the recommender"))
        done.append(Compacted("tables of the recommender", await stores.compact()))
        return [*await outlet.compact(), *done]

    return compact


def _on_disk(settings: RecommenderSettings, bus: Bus) -> MakeView:
    folder = settings.data_dir / "recommender" / "views"
    return lambda topic, on_batch: View(bus, topic, folder / topic, on_batch)


def _latest_start() -> Millis:
    """As far ahead of the machine's clock as the first event of a journal may lie, see `JournalIntake`."""
    return WallClock().now() + LEAP
