"""Puts the collector together; the only room that knows all the others."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Bus
from libs.common.bus.topic_keeper import TopicKeeper
from libs.common.clock import Clock, JournalClock, WallClock
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.topics import TOPICS
from libs.common.errors import Transient
from libs.common.http.factory import create_http
from libs.common.http.health import Lifecycle
from libs.common.intake import JournalIntake, WallIntake
from libs.common.journal import Durability, Journal
from libs.common.keys import KeyRing
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.runtime import Service
from libs.common.spool.journal import open_journal
from libs.common.telemetry import Metrics
from services.collector.api import add_routes
from services.collector.handlers import Collector, JournalTicker, WallTicker
from services.collector.metrics import CollectorMetrics
from services.collector.settings import CollectorSettings


class RunningJournal(Journal, Protocol):
    """A journal with a life of its own."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Ticker(Protocol):
    """Says when time has passed."""

    pause: float

    def step(self) -> Position | None: ...


def create(settings: CollectorSettings) -> Service:
    """The collector as a process: on Kafka, with a spool on disk."""
    return create_service(settings, bus=KafkaBus(settings.kafka, client_id="collector"))


def create_service(
    settings: CollectorSettings,
    *,
    bus: Bus,
    journal: RunningJournal | None = None,
    board: ProgressBoard | None = None,
    clock: Clock | None = None,
    wall: Clock | None = None,
    random: Random | None = None,
) -> Service:
    """The collector, put together from parts; those not given are the real ones.

    ``clock`` is the platform's time: a `JournalClock` where ``settings.clock`` is ``journal``.
    """
    wall = wall or WallClock()
    if clock is None:
        clock = JournalClock() if settings.clock == "journal" else wall
    board = board or ProgressBoard(bus)
    background: list[Callable[[], Awaitable[None]]] = [board.watch, TopicKeeper(bus, TOPICS).run]
    metrics = CollectorMetrics(Metrics("collector"))
    lifecycle = Lifecycle()
    if journal is None:
        journal = spool = open_journal(settings.data_dir, "collector", bus, board, clock)
        background.append(spool.watch)
        lifecycle.note("bus", lambda: f"{spool.backlog()} records are not acknowledged yet")
    new_id = _ids(random or Random(int.from_bytes(os.urandom(32), "big")))
    ticker: Ticker
    if isinstance(clock, JournalClock) and settings.clock == "journal":
        intake = JournalIntake(clock, wall)
        ticker = JournalTicker(journal, intake, clock, wall)
        board.subscribe(_mover(clock))
        collector = Collector(journal, intake, new_id, settings.currency)
    else:
        ticker = WallTicker(journal, clock)
        collector = Collector(journal, WallIntake(clock), new_id, settings.currency)
    ticking = Ticking(ticker, journal, metrics)
    background.append(ticking.run)
    lifecycle.check("spool", ticking.trouble)
    dev_key = settings.dev_key.get_secret_value() if settings.dev_key else None
    keys = KeyRing(settings.data_dir, dev_key)
    app = create_http("collector", keys=keys, metrics=metrics.registry, lifecycle=lifecycle)
    add_routes(app, collector, metrics, trust_browser_orders=settings.trust_browser_orders)
    start, stop = _life(bus, board, journal)
    return Service("collector", app, start, stop, background)


def _life(
    bus: Bus, board: ProgressBoard, journal: RunningJournal
) -> tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]:
    """How the parts begin and end; neither waits for a broker."""

    async def start() -> None:
        await board.start()
        await journal.start()

    async def stop() -> None:
        await journal.stop()
        await board.stop()
        await bus.close()

    return start, stop


def _ids(random: Random) -> Callable[[], str]:
    """Ids of 128 random bits."""
    return lambda: f"{random.getrandbits(128):032x}"


def _mover(clock: JournalClock) -> Callable[[ProgressBoard], None]:
    """The greatest journal time in all progress is now."""
    return lambda board: clock.advance(board.journal_time())


class Ticking:
    """Ticks for ever; while a tick has not reached the bus no further one is written."""

    def __init__(self, ticker: Ticker, journal: Journal, metrics: CollectorMetrics) -> None:
        self._ticker = ticker
        self._journal = journal
        self._metrics = metrics
        self._sent: Position | None = None
        self._trouble: str | None = None

    def trouble(self) -> str | None:
        """What keeps the spool from taking events, for ``/readyz``."""
        try:
            self._journal.append([])
        except Transient as error:
            return error.reason
        return self._trouble

    async def run(self) -> None:
        """Give the ticker its turn, again and again."""
        due = time.monotonic()
        while True:
            await self.turn()
            due = max(due + self._ticker.pause, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def turn(self) -> None:
        """Write the tick that is due, unless the one before it is still on its way."""
        try:
            # Trap: without this a night without broker would fill the spool with a million ticks.
            if self._sent and await self._journal.durable(self._sent, Durability.BUS) is Durability.SPOOL:
                self._metrics.ticks_withheld.add()
            elif written := self._ticker.step():
                self._metrics.ticks.add(PARTITIONS)
                self._sent = written
            self._trouble = None
        except Transient as error:
            # A tick whose commit failed was never written: there is nothing to wait for.
            self._sent = None
            self._trouble = error.reason
            self._metrics.ticks_withheld.add()
