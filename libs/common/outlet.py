"""What every service that publishes stands on: the platform's clock, the progress board and its journal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from libs.common.bus.ports import Bus
from libs.common.bus.topic_keeper import TopicKeeper
from libs.common.clock import Clock, JournalClock, WallClock
from libs.common.contracts.topics import TOPICS
from libs.common.errors import Transient
from libs.common.http.compaction import Compacted
from libs.common.http.health import Lifecycle
from libs.common.journal import LocalJournal
from libs.common.keys import KeyRing
from libs.common.progress import ProgressBoard
from libs.common.settings import PublishingSettings
from libs.common.spool.journal import SpoolJournal, open_journal
from libs.common.spool.metrics import SpoolMetrics
from libs.common.spool.room import RoomLimits
from libs.common.telemetry import Metrics

Task = Callable[[], Awaitable[None]]

RELEASED_WITHIN = 10.0


class RunningJournal(LocalJournal, Protocol):
    """A journal with a life of its own."""

    async def start(self) -> None:
        """Begin to commit and ship."""
        ...

    async def stop(self) -> None:
        """Commit what is in line, and end."""
        ...


@dataclass
class Outlet:
    """The parts a publishing service shares with its like, and their common life.

    Parameters
    ----------
    clock:
        The platform's time.
    journal_clock:
        The same, where the platform lives on a journal clock; else None.
    lifecycle, keys, background:
        For `create_http` and `Service`; a service adds its own.
    """

    service: str
    bus: Bus
    clock: Clock
    journal_clock: JournalClock | None
    board: ProgressBoard
    journal: RunningJournal
    lifecycle: Lifecycle
    keys: KeyRing
    background: list[Task] = field(default_factory=list)
    spool: SpoolJournal | None = None

    def measure(self, metrics: Metrics) -> None:
        """Show at each scrape what waits in the spool, its room, and how far bus and analyzer are away."""
        held = metrics.gauge("spool_records", "Records of any kind in the spool, not applied yet")
        unshipped = metrics.gauge("spool_unshipped_records", "Of these, not acknowledged by the bus yet")
        age = metrics.gauge("spool_age_seconds", "How long the oldest record not applied has waited")
        used = metrics.gauge("spool_bytes", "What the records in the spools take")
        quota = metrics.gauge("spool_quota_bytes", "Above this new events are refused")
        free = metrics.gauge("disk_free_bytes", "What the disk of the spool has left for it")
        least = metrics.gauge("disk_least_free_bytes", "Below this new events are refused")
        silence = metrics.gauge("bus_silence_seconds", "Since the bus answered last")
        behind = metrics.gauge(
            "progress_age_seconds", "How far the slowest partition's journal time is behind the clock"
        )

        async def look() -> None:
            if self.spool is not None:
                held.set(self.spool.unapplied())
                unshipped.set(self.spool.backlog())
                with suppress(Transient):
                    age.set(max(0.0, await self.spool.age() / 1000))
                if (room := self.spool.room()) is not None:
                    used.set(room.used)
                    quota.set(room.limits.quota)
                    free.set(room.free)
                    least.set(room.limits.least_free)
            silence.set(self.board.silence())
            behind.set(max(0.0, self.board.behind(self.clock.now()) / 1000))

        metrics.before_scrape(look)

    def trouble(self) -> str | None:
        """What keeps the spool from taking events, for ``/readyz``."""
        if self.spool is not None and (trouble := self.spool.trouble()) is not None:
            return trouble
        try:
            self.journal.append([])
        except Transient as error:
            return error.reason
        return None

    async def compact(self) -> list[Compacted]:
        """Write the spools anew, so that nothing of what they hold now is left in them.

        Raises `Transient` where that is not applied within ten seconds, or a file cannot be written.
        """
        if self.spool is None:
            return []
        if not await self.spool.released(RELEASED_WITHIN):
            raise Transient("records in the spool are not applied yet, and would stay in its file")
        await self.spool.compact()
        return [Compacted(f"spool of {self.service}")]

    async def start(self) -> None:
        """Begin; does not wait for a broker."""
        await self.board.start()
        await self.journal.start()

    async def stop(self) -> None:
        """End within the bounds of the parts; call it last."""
        await self.journal.stop()
        await self.board.stop()
        await self.bus.close()


def open_outlet(
    settings: PublishingSettings,
    service: str,
    bus: Bus,
    metrics: Metrics,
    *,
    journal: RunningJournal | None = None,
    board: ProgressBoard | None = None,
    clock: Clock | None = None,
) -> Outlet:
    """Open ``service``'s spool and what goes with it, measured in ``metrics``; parts that are given are used
    instead of the real ones.

    On a journal clock the greatest journal time in all progress is now. Raises `Misconfigured` where the
    data directory cannot be used.
    """
    if clock is None:
        clock = JournalClock() if settings.clock == "journal" else WallClock()
    journal_clock = clock if isinstance(clock, JournalClock) and settings.clock == "journal" else None
    board = board or ProgressBoard(bus)
    lifecycle = Lifecycle()
    background: list[Task] = [board.watch, TopicKeeper(bus, TOPICS).run]
    spool: SpoolJournal | None = None
    if journal is None:
        journal = spool = opened = open_journal(
            settings.data_dir,
            service,
            bus,
            board,
            clock,
            limits=RoomLimits(settings.spool_bytes, settings.spool_free_bytes),
            metrics=SpoolMetrics(metrics),
        )
        background.append(spool.watch)
        lifecycle.note("bus", lambda: f"{opened.backlog()} records are not acknowledged yet")
    if journal_clock is not None:
        board.subscribe(_mover(journal_clock))
    dev_key = settings.dev_key.get_secret_value() if settings.dev_key else None
    keys = KeyRing(settings.data_dir, dev_key)
    outlet = Outlet(service, bus, clock, journal_clock, board, journal, lifecycle, keys, background, spool)
    outlet.measure(metrics)
    return outlet


def _mover(clock: JournalClock) -> Callable[[ProgressBoard], None]:
    return lambda board: clock.advance(board.journal_time())
