"""Puts the learner together; the only room that knows all the others."""

from __future__ import annotations

import os
from random import Random

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Bus
from libs.common.bus.topic_keeper import TopicKeeper
from libs.common.contracts.topics import CATALOGUE, TOPICS
from libs.common.db import Database
from libs.common.http.factory import create_http
from libs.common.http.health import Lifecycle
from libs.common.keys import KeyRing
from libs.common.runtime import Service
from libs.common.telemetry import Metrics
from libs.common.view import MemoryView
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.fold import Parameters
from services.analyzer.learner.loop import Learner
from services.analyzer.learner.metrics import LearnerMetrics
from services.analyzer.learner.ports import LearnerStore
from services.analyzer.learner.settings import LearnerSettings
from services.analyzer.learner.store import PostgresLearnerStore


def create(settings: LearnerSettings) -> Service:
    """The learner as a process: on Kafka and PostgreSQL."""
    return create_service(
        settings, bus=KafkaBus(settings.kafka, client_id="learner", replication=settings.kafka_replication)
    )


def create_service(
    settings: LearnerSettings,
    *,
    bus: Bus,
    store: LearnerStore | None = None,
    random: Random | None = None,
    parameters: Parameters | None = None,
) -> Service:
    """The learner, put together from parts; those not given are the real ones.

    It needs no clock: what it does is decided by journal time, and its pauses by the machine's.
    """
    database: Database | None = None
    if store is None:
        database = Database(settings.postgres.get_secret_value(), size=4)
        store = PostgresLearnerStore(database)
    metrics = LearnerMetrics(Metrics("learner"))
    catalogue = Catalogue()
    view = MemoryView(bus, CATALOGUE, catalogue.on_batch)
    learner = Learner(
        store,
        bus,
        metrics,
        random or Random(int.from_bytes(os.urandom(32), "big")),
        catalogue=catalogue,
        whole=lambda: view.caught_up,
        parameters=parameters or Parameters.forgetting(settings.half_life_days),
        poll_seconds=_pause(settings, settings.poll_seconds, 0.05, 0.02),
        publish_seconds=_pause(settings, settings.publish_seconds, 1.0, 0.1),
        in_bursts=settings.clock == "journal",
        checkpoint_seconds=settings.checkpoint_seconds,
    )
    lifecycle = Lifecycle()
    lifecycle.check("learner", lambda: learner.trouble)
    lifecycle.note("election", lambda: "elected" if learner.elected else "waiting to be elected")
    lifecycle.note(CATALOGUE, view.state)
    dev_key = settings.dev_key.get_secret_value() if settings.dev_key else None
    keys = KeyRing(settings.data_dir, dev_key)
    app = create_http("learner", keys=keys, metrics=metrics.registry, lifecycle=lifecycle)
    prepared = store

    def look() -> None:
        metrics.passed.set(learner.passed / 1000)
        metrics.elected.set(learner.elected)

    metrics.registry.before_scrape(look)

    async def start() -> None:
        await prepared.prepare()
        await view.start()

    async def stop() -> None:
        # Trap: the loop is ended before the pools are closed, so that it can leave a checkpoint.
        await learner.stop()
        await view.stop()
        await bus.close()
        if database is not None:
            await database.close()

    return Service("learner", app, start, stop, [TopicKeeper(bus, TOPICS).run, view.watch, learner.run])


def _pause(settings: LearnerSettings, told: float | None, wall: float, journal: float) -> float:
    """The pause ``told``, or the clock's: by a journal clock a day takes moments, and replays wait for it."""
    if told is not None:
        return told
    return journal if settings.clock == "journal" else wall
