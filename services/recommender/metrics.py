"""What the recommender counts."""

from __future__ import annotations

from libs.common.contracts.topics import CATALOGUE, CUSTOMER_MODELS, LEARNED_MODELS
from libs.common.telemetry import Metrics

AGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0, 15.0, 60.0, 300.0)
"""Buckets of ages in seconds: the bar of loop closure is 0.15, an answer is fresh below 2, stale over 300."""

VIEWS = (CATALOGUE, LEARNED_MODELS, CUSTOMER_MODELS)


class RecommenderMetrics:
    """The closed set of this service's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self.decisions = metrics.counter(
            "decisions_total",
            "Decisions made, dry runs left out",
            {"group": ("treatment", "baseline", "none")},
        )
        self.dry_runs = metrics.counter("dry_runs_total", "Decisions made that left no record")
        self.forgotten = metrics.counter(
            "forgotten_customers_total",
            "Customers whose decisions were deleted as their models were withdrawn",
        )
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
        self.unreadable = metrics.counter(
            "unreadable_decisions_total",
            "Decisions asked for that an older version kept, which cannot be read any more",
        )
        self._measure(metrics)
        self._measure_honesty(metrics)

    def _measure(self, metrics: Metrics) -> None:
        """What is measured beside what is counted."""
        self.seconds = metrics.histogram(
            "decision_seconds",
            "Time to make a decision, waiting left out",
            buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1),
        )
        self.freshness = metrics.histogram(
            "freshness_seconds",
            "How far what an answer was based on lay behind the clock: age of the newest journal time in it",
            buckets=AGES,
        )
        self.closure = metrics.histogram(
            "closure_seconds",
            "From the acceptance of an event until the model that knows it is in the view",
            buckets=AGES,
        )
        self.missing = metrics.gauge("view_missing_records", "Published models that are not in the view yet")
        self.caught_up = metrics.gauge(
            "view_caught_up", "1 where a view has been read to its end since the start", {"topic": VIEWS}
        )
        self.view_lag = metrics.gauge(
            "view_lag_seconds", "Since when a view is not known to hold all of its topic", {"topic": VIEWS}
        )
        self.view_outstanding = metrics.gauge(
            "view_outstanding_partitions",
            "Partitions that are still being published anew after the loss of a broker",
            {"topic": VIEWS},
        )
        self.view_swept = metrics.gauge(
            "view_swept_records", "Entries dropped since the start, not published again", {"topic": VIEWS}
        )
        self.view_losses = metrics.gauge(
            "view_losses_changes",
            "Times since the start that a topic was lost and read anew",
            {"topic": VIEWS},
        )
        self.learned = metrics.gauge(
            "learned_journal_timestamp_seconds", "Journal time up to which the models in use have learned"
        )
        self.products = metrics.gauge("catalogue_rows", "Products in the catalogue in memory")
        self.flagged = metrics.gauge(
            "catalogue_flagged_rows",
            "Entries of the catalogue that lack something or look like a mistake",
            {"flag": ("margin_assumed", "price_zero", "category_missing", "product_missing")},
        )
        self.published = metrics.counter("published_entries_total", "Catalogue entries published")
        self.kept = metrics.counter("kept_decisions_total", "Decision pools stored in the database")
        self.broken = metrics.counter("unreadable_records_total", "Records of views that could not be read")

    def _measure_honesty(self, metrics: Metrics) -> None:
        """What `handlers.honesty.PolicyHonesty` sees of the draws."""
        self.draws = metrics.counter("policy_draws_total", "Draws for slots, ghosts among them")
        self.uniform_weight = metrics.counter(
            "policy_uniform_weight_total",
            "Sum over the draws of what an even choice weighs, (1/|A|)/p: as many as draws, where p is true",
        )
        self.uniform_weight_squares = metrics.counter(
            "policy_uniform_weight_squares_total", "Sum of the squares of these weights"
        )
        self.explored = metrics.counter(
            "policy_explored_total", "Expected number of the draws that exploration made, not belief"
        )
        self.standing = metrics.gauge(
            "policy_standing_rows", "Offers that competed in a hundred decisions of late that were looked at"
        )
        self.starved = metrics.gauge(
            "policy_starved_rows", "Those of them that belief would choose in fewer than one of a thousand"
        )
