"""What the recommender counts."""

from __future__ import annotations

from libs.common.telemetry import Metrics


class RecommenderMetrics:
    """The closed set of this service's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self.decisions = metrics.counter(
            "decisions_total",
            "Decisions made, dry runs left out",
            {"group": ("treatment", "baseline", "none")},
        )
        self.dry_runs = metrics.counter("dry_runs_total", "Decisions made that left no record")
        self.repeated = metrics.counter(
            "repeated_answers_total", "Answers given again for a known decision id"
        )
        self.failed = metrics.counter("failed_requests_total", "Requests of a batch answered by a problem")
        self.unknown_placements = metrics.counter(
            "unknown_placements_total", "Decisions for placements that are not in the catalogue"
        )
        self.degraded = metrics.counter(
            "degraded_answers_total", "Answers that say what they lacked", {"reason": ("stale", "unrecorded")}
        )
        self.seconds = metrics.histogram(
            "decision_seconds",
            "Time to make a decision, waiting left out",
            buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1),
        )
        self.products = metrics.gauge("catalogue_rows", "Products in the catalogue in memory")
        self.published = metrics.counter("published_entries_total", "Catalogue entries published")
        self.kept = metrics.counter("kept_decisions_total", "Decision pools stored in the database")
        self.broken = metrics.counter("unreadable_records_total", "Records of views that could not be read")
