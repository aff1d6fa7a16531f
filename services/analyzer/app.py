"""Puts the analyzer together; the only room that knows all the others."""

from __future__ import annotations

import os
from random import Random
from typing import Protocol

from libs.common.bus.consume import ConsumeLoop
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Bus
from libs.common.bus.topic_keeper import TopicKeeper
from libs.common.clock import Clock, JournalClock, WallClock
from libs.common.contracts.topics import CUSTOMER_EVENTS, TOPICS
from libs.common.db import Database
from libs.common.http.factory import create_http
from libs.common.http.health import Lifecycle
from libs.common.keys import KeyRing
from libs.common.runtime import Service
from libs.common.telemetry import Metrics
from services.analyzer.api import add_routes
from services.analyzer.consumer import AnalyzerProcessor
from services.analyzer.handlers.queries import Queries
from services.analyzer.handlers.watching import LedgerGauges
from services.analyzer.metrics import AnalyzerMetrics
from services.analyzer.ports import ReadStore, SliceStore
from services.analyzer.publisher import BusPublisher
from services.analyzer.settings import AnalyzerSettings
from services.analyzer.store.postgres import PostgresAnalyzerStore
from services.analyzer.store.reading import PostgresReadStore

GROUP = "analyzer"


class AnalyzerStore(SliceStore, ReadStore, Protocol):
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
    database: Database | None = None
    tables: PostgresAnalyzerStore | None = None
    slices: SliceStore
    reading: ReadStore
    if store is not None:
        slices = reading = store
    else:
        database = Database(settings.postgres.get_secret_value(), size=8)
        slices = tables = PostgresAnalyzerStore(database)
        reading = PostgresReadStore(database)
    metrics = AnalyzerMetrics(Metrics("analyzer"))
    lifecycle = Lifecycle()
    publisher = BusPublisher(bus, slices, random, metrics)
    processor = AnalyzerProcessor(
        slices,
        publisher,
        metrics,
        clock,
        random,
        cache_bytes=settings.cache_bytes,
        dead_letter_share=settings.dead_letter_share,
    )
    loop = ConsumeLoop(
        bus.consumer(CUSTOMER_EVENTS, GROUP),
        processor,
        random=random,
        max_records=settings.slice_records,
        concurrency=settings.concurrency,
    )
    dev_key = settings.dev_key.get_secret_value() if settings.dev_key else None
    keys = KeyRing(settings.data_dir, dev_key)
    app = create_http("analyzer", keys=keys, metrics=metrics.registry, lifecycle=lifecycle)
    queries = Queries(reading)
    add_routes(app, queries)
    _measure(metrics, processor, publisher, queries)
    lifecycle.note("partitions", lambda: f"{len(loop.owned)} owned")

    async def start() -> None:
        if tables is not None:
            await tables.prepare()

    async def stop() -> None:
        await publisher.stop()
        await bus.close()
        if database is not None:
            await database.close()

    return Service("analyzer", app, start, stop, [TopicKeeper(bus, TOPICS).run, loop.run, publisher.run])


def _measure(
    metrics: AnalyzerMetrics, processor: AnalyzerProcessor, publisher: BusPublisher, queries: Queries
) -> None:
    def look() -> None:
        metrics.lag.set(processor.lag() / 1000)
        metrics.waiting.set(publisher.waiting())

    metrics.registry.before_scrape(look)
    metrics.registry.before_scrape(LedgerGauges(queries, metrics).look)
