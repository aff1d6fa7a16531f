"""Puts feedback together; the only room that knows all the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Bus
from libs.common.bus.topic_keeper import TopicKeeper
from libs.common.clock import SECOND, Clock, JournalClock, WallClock
from libs.common.contracts.topics import TOPICS
from libs.common.errors import Transient
from libs.common.http.factory import create_http
from libs.common.http.health import Lifecycle
from libs.common.intake import JournalIntake, WallIntake
from libs.common.journal import Journal
from libs.common.keys import KeyRing
from libs.common.progress import ProgressBoard
from libs.common.runtime import Service
from libs.common.secrets import Secrets
from libs.common.spool.journal import open_journal
from libs.common.telemetry import Metrics
from libs.common.tokens import TokenSealer
from services.feedback.api import add_routes
from services.feedback.handlers import Feedback
from services.feedback.metrics import FeedbackMetrics
from services.feedback.ports import Intake
from services.feedback.settings import FeedbackSettings


class RunningJournal(Journal, Protocol):
    """A journal with a life of its own."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def create(settings: FeedbackSettings) -> Service:
    """Feedback as a process: on Kafka, with a spool on disk."""
    return create_service(settings, bus=KafkaBus(settings.kafka, client_id="feedback"))


def create_service(
    settings: FeedbackSettings,
    *,
    bus: Bus,
    journal: RunningJournal | None = None,
    board: ProgressBoard | None = None,
    clock: Clock | None = None,
    wall: Clock | None = None,
) -> Service:
    """Feedback, put together from parts; those not given are the real ones.

    ``clock`` is the platform's time: a `JournalClock` where ``settings.clock`` is ``journal``.
    """
    wall = wall or WallClock()
    if clock is None:
        clock = JournalClock() if settings.clock == "journal" else wall
    board = board or ProgressBoard(bus)
    background: list[Callable[[], Awaitable[None]]] = [board.watch, TopicKeeper(bus, TOPICS).run]
    lifecycle = Lifecycle()
    if journal is None:
        journal = spool = open_journal(settings.data_dir, "feedback", bus, board, clock)
        background.append(spool.watch)
        lifecycle.note("bus", lambda: f"{spool.backlog()} records are not acknowledged yet")
    lifecycle.check("spool", _trouble(journal))
    intake: Intake = WallIntake(clock)
    if isinstance(clock, JournalClock) and settings.clock == "journal":
        intake = JournalIntake(clock, wall)
        board.subscribe(_mover(clock))
    sealer = TokenSealer(Secrets(settings.data_dir).token_key())
    feedback = Feedback(journal, intake, sealer, clock, settings.token_seconds * SECOND)
    metrics = FeedbackMetrics(Metrics("feedback"))
    dev_key = settings.dev_key.get_secret_value() if settings.dev_key else None
    keys = KeyRing(settings.data_dir, dev_key)
    app = create_http("feedback", keys=keys, metrics=metrics.registry, lifecycle=lifecycle)
    add_routes(app, feedback, metrics)
    start, stop = _life(bus, board, journal)
    return Service("feedback", app, start, stop, background)


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


def _trouble(journal: Journal) -> Callable[[], str | None]:
    """What keeps the spool from taking events, for ``/readyz``."""

    def check() -> str | None:
        try:
            journal.append([])
        except Transient as error:
            return error.reason
        return None

    return check


def _mover(clock: JournalClock) -> Callable[[ProgressBoard], None]:
    """The greatest journal time in all progress is now."""
    return lambda board: clock.advance(board.journal_time())
