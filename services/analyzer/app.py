"""Puts the analyzer together; the only room that knows all the others."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple, Protocol

from libs.common.bus.consume import ConsumeLoop
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Bus
from libs.common.bus.topic_keeper import TopicKeeper
from libs.common.clock import Clock, JournalClock, WallClock
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.topics import CUSTOMER_EVENTS, TOPICS
from libs.common.db import Database, rewrite
from libs.common.http.admission import Rates
from libs.common.http.compaction import Compact, Compacted, add_compaction
from libs.common.http.factory import create_http
from libs.common.http.health import Lifecycle
from libs.common.keys import KeyRing
from libs.common.runtime import Service
from libs.common.secrets import Secrets
from libs.common.telemetry import Metrics
from services.analyzer.api import add_routes
from services.analyzer.catalogue import CatalogueFollower
from services.analyzer.consumer import AnalyzerProcessor
from services.analyzer.errands import Errands
from services.analyzer.handlers.insights import FactStore, Insights
from services.analyzer.handlers.queries import Queries
from services.analyzer.handlers.watching import LedgerGauges, LiftGauges
from services.analyzer.intake import Intake
from services.analyzer.letters import LetterPublisher, LetterStore
from services.analyzer.metrics import AnalyzerMetrics
from services.analyzer.model.erased import KeyHasher
from services.analyzer.model.panel import Panel
from services.analyzer.ports import ErasedKeys, ErrandStore, ReadStore, SliceStore
from services.analyzer.publisher import BusPublisher
from services.analyzer.restoring import Restoring
from services.analyzer.settings import AnalyzerSettings
from services.analyzer.store.erased_file import ErasedFile
from services.analyzer.store.erasing import PostgresErasureStore
from services.analyzer.store.memory import MemoryErasedKeys
from services.analyzer.store.postgres import SCHEMA, PostgresAnalyzerStore
from services.analyzer.store.reading import PostgresReadStore
from services.analyzer.store.rebuilding import clear_scratch

GROUP = "analyzer"


class AnalyzerStore(SliceStore, ReadStore, FactStore, ErrandStore, LetterStore, Protocol):
    """Everything the service stores, as one part: what tests hand in."""


def create(settings: AnalyzerSettings) -> Service:
    """The analyzer as a process: on Kafka and PostgreSQL."""
    return create_service(
        settings, bus=KafkaBus(settings.kafka, client_id="analyzer", replication=settings.kafka_replication)
    )


def create_service(
    settings: AnalyzerSettings,
    *,
    bus: Bus,
    store: AnalyzerStore | None = None,
    clock: Clock | None = None,
    random: Random | None = None,
) -> Service:
    """The analyzer, put together from parts; those not given are the real ones."""
    if clock is None:
        clock = JournalClock() if settings.clock == "journal" else WallClock()
    random = random or Random(int.from_bytes(os.urandom(32), "big"))
    hasher = KeyHasher(Secrets(settings.data_dir, settings.installation_secret).erasure_key())
    storage = _storage(settings, store, hasher)
    metrics = AnalyzerMetrics(Metrics("analyzer"))
    lifecycle = Lifecycle()
    publisher = BusPublisher(bus, storage.slices, random, metrics)
    processor = AnalyzerProcessor(
        storage.slices,
        publisher,
        metrics,
        clock,
        random,
        hasher=hasher,
        cache_bytes=settings.cache_bytes,
        dead_letter_share=settings.dead_letter_share,
        panel=Panel(settings.panel_share),
    )
    loop = ConsumeLoop(
        bus.consumer(CUSTOMER_EVENTS, GROUP),
        processor,
        random=random,
        max_records=settings.slice_records,
        concurrency=settings.concurrency,
    )
    letters = LetterPublisher(bus, storage.letters, processor.standing, random)
    errands = Errands(processor, storage.errands, publisher, bus, random, metrics, storage.file)
    dev_key = settings.dev_key.get_secret_value() if settings.dev_key else None
    keys = KeyRing(settings.data_dir, dev_key)
    app = create_http(
        "analyzer", keys=keys, metrics=metrics.registry, lifecycle=lifecycle, rates=Rates.of(settings)
    )
    queries = Queries(storage.reading)
    catalogue = CatalogueFollower(bus)
    insights = Insights(storage.facts, catalogue.margins)
    add_routes(app, queries, insights)
    add_compaction(app, "analyzer", storage.compact)
    _measure(metrics, processor, publisher, queries)
    lifecycle.note("partitions", lambda: f"{len(loop.owned)} owned")

    intake = Intake(storage.prepare, loop, random)
    lifecycle.check("journal", intake.trouble)

    start, stop = _life(intake, catalogue, publisher, bus, storage)
    lift = LiftGauges(insights, catalogue.placements, metrics, lambda: intake.trouble() is None)
    tasks = [intake.run, publisher.run, errands.run, letters.run, catalogue.watch, lift.run]
    return Service("analyzer", app, start, stop, [TopicKeeper(bus, TOPICS).run, *tasks])


class _Storage(NamedTuple):
    """What is stored, by who asks for it, and how that begins and ends."""

    slices: SliceStore
    reading: ReadStore
    facts: FactStore
    errands: ErrandStore
    letters: LetterStore
    file: ErasedKeys
    prepare: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]
    compact: Compact


def _life(
    intake: Intake, catalogue: CatalogueFollower, publisher: BusPublisher, bus: Bus, storage: _Storage
) -> tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]:
    """How the parts begin and end."""

    async def start() -> None:
        await catalogue.start()
        await intake.start()

    async def stop() -> None:
        await catalogue.stop()
        await publisher.stop()
        await bus.close()
        await storage.close()

    return start, stop


def _storage(settings: AnalyzerSettings, store: AnalyzerStore | None, hasher: KeyHasher) -> _Storage:
    if store is not None:
        return _Storage(store, store, store, store, store, MemoryErasedKeys(), _nothing, _nothing, _no_files)
    database = Database(settings.postgres.get_secret_value(), size=8)
    tables = PostgresAnalyzerStore(database)
    reading, errands = PostgresReadStore(database), PostgresErasureStore(database, SCHEMA)
    file = ErasedFile(settings.data_dir / "analyzer" / "erased.jsonl")

    async def prepare() -> None:
        await tables.prepare()
        await Restoring(tables, file, hasher).apply()

    async def compact() -> list[Compacted]:
        left = await clear_scratch(database)
        return [Compacted("tables of the analyzer", left + await rewrite(database, SCHEMA))]

    return _Storage(tables, reading, reading, errands, reading, file, prepare, database.close, compact)


async def _nothing() -> None:
    pass


async def _no_files() -> list[Compacted]:
    return []


def _measure(
    metrics: AnalyzerMetrics, processor: AnalyzerProcessor, publisher: BusPublisher, queries: Queries
) -> None:
    def look() -> None:
        metrics.lag.set(processor.lag() / 1000)
        lags = processor.lags()
        for partition in range(PARTITIONS):
            metrics.partition_lag.set(lags.get(partition, 0) / 1000, str(partition))
        metrics.waiting.set(publisher.waiting())

    metrics.registry.before_scrape(look)
    metrics.registry.before_scrape(LedgerGauges(queries, metrics).look)
