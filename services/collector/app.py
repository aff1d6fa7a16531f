"""Puts the collector together; the only room that knows all the others."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from random import Random
from typing import Protocol

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Bus
from libs.common.clock import Clock, WallClock
from libs.common.contracts.identity import PARTITIONS
from libs.common.errors import Transient
from libs.common.http.admission import Rates
from libs.common.http.compaction import add_compaction
from libs.common.http.factory import create_http
from libs.common.intake import JournalIntake, WallIntake
from libs.common.journal import Durability
from libs.common.outlet import Outlet, RunningJournal, open_outlet
from libs.common.personal import Screen
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.runtime import Service
from libs.common.secrets import Secrets
from libs.common.telemetry import Metrics
from services.collector.api import add_routes
from services.collector.handlers import Collector, JournalTicker, WallTicker
from services.collector.metrics import CollectorMetrics
from services.collector.settings import CollectorSettings
from services.collector.tag import add_tag


class Ticker(Protocol):
    """Says when time has passed."""

    pause: float

    def step(self) -> Position | None: ...


def create(settings: CollectorSettings) -> Service:
    """The collector as a process: on Kafka, with a spool on disk."""
    return create_service(
        settings, bus=KafkaBus(settings.kafka, client_id="collector", replication=settings.kafka_replication)
    )


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
    metrics = CollectorMetrics(Metrics("collector"))
    outlet = open_outlet(
        settings, "collector", bus, metrics.registry, journal=journal, board=board, clock=clock
    )
    new_id = _ids(random or Random(int.from_bytes(os.urandom(32), "big")))
    secrets = Secrets(settings.data_dir, settings.installation_secret)
    screen = Screen(settings.join_keys, secrets.join_key())
    metrics.watch(screen)
    ticker: Ticker
    if outlet.journal_clock is not None:
        intake = JournalIntake(outlet.journal_clock, wall)
        ticker = JournalTicker(outlet.journal, intake, outlet.journal_clock, wall)
        collector = Collector(outlet.journal, intake, new_id, settings.currency, screen)
    else:
        ticker = WallTicker(outlet.journal, outlet.clock)
        collector = Collector(outlet.journal, WallIntake(outlet.clock), new_id, settings.currency, screen)
    ticking = Ticking(ticker, outlet, metrics)
    outlet.lifecycle.check("spool", ticking.trouble)
    app = create_http(
        "collector",
        keys=outlet.keys,
        metrics=metrics.registry,
        lifecycle=outlet.lifecycle,
        rates=Rates.of(settings),
    )
    add_routes(app, collector, metrics, trust_browser_orders=settings.trust_browser_orders)
    add_tag(app)
    add_compaction(app, "collector", outlet.compact)
    return Service("collector", app, outlet.start, outlet.stop, [*outlet.background, ticking.run])


def _ids(random: Random) -> Callable[[], str]:
    """Ids of 128 random bits."""
    return lambda: f"{random.getrandbits(128):032x}"


class Ticking:
    """Ticks for ever; while a tick has not reached the bus no further one is written."""

    def __init__(self, ticker: Ticker, outlet: Outlet, metrics: CollectorMetrics) -> None:
        self._ticker = ticker
        self._outlet = outlet
        self._metrics = metrics
        self._sent: Position | None = None
        self._trouble: str | None = None

    def trouble(self) -> str | None:
        """What keeps the spool from taking events, for ``/readyz``."""
        return self._outlet.trouble() or self._trouble

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
            if (
                self._sent
                and await self._outlet.journal.durable(self._sent, Durability.BUS) is Durability.SPOOL
            ):
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
