"""Puts feedback together; the only room that knows all the others."""

from __future__ import annotations

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Bus
from libs.common.clock import SECOND, Clock, WallClock
from libs.common.http.admission import Rates
from libs.common.http.compaction import add_compaction
from libs.common.http.factory import create_http
from libs.common.intake import JournalIntake, WallIntake
from libs.common.outlet import RunningJournal, open_outlet
from libs.common.progress import ProgressBoard
from libs.common.runtime import Service
from libs.common.secrets import Secrets
from libs.common.telemetry import Metrics
from libs.common.tokens import TokenSealer
from services.feedback.api import add_routes
from services.feedback.handlers import Feedback
from services.feedback.metrics import FeedbackMetrics
from services.feedback.ports import Intake
from services.feedback.settings import FeedbackSettings
from services.feedback.unsubscribe import add_unsubscribe


def create(settings: FeedbackSettings) -> Service:
    """Feedback as a process: on Kafka, with a spool on disk."""
    return create_service(
        settings, bus=KafkaBus(settings.kafka, client_id="feedback", replication=settings.kafka_replication)
    )


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
    metrics = FeedbackMetrics(Metrics("feedback"))
    outlet = open_outlet(
        settings, "feedback", bus, metrics.registry, journal=journal, board=board, clock=clock
    )
    outlet.lifecycle.check("spool", outlet.trouble)
    intake: Intake = WallIntake(outlet.clock)
    if outlet.journal_clock is not None:
        intake = JournalIntake(outlet.journal_clock, wall)
    sealer = TokenSealer(Secrets(settings.data_dir, settings.installation_secret).token_key())
    feedback = Feedback(outlet.journal, intake, sealer, outlet.clock, settings.token_seconds * SECOND)
    app = create_http(
        "feedback",
        keys=outlet.keys,
        metrics=metrics.registry,
        lifecycle=outlet.lifecycle,
        rates=Rates.of(settings),
    )
    add_routes(app, feedback, metrics)
    add_unsubscribe(app, feedback, metrics)
    add_compaction(app, "feedback", outlet.compact)
    return Service("feedback", app, outlet.start, outlet.stop, outlet.background)
