"""Metrics of the learner."""

from __future__ import annotations

from libs.common.contracts.catalogue import KINDS
from libs.common.scoring.response import HEADS
from libs.common.telemetry import Metrics

REFUSALS = ("feature_set", "features", "not_finite", "window")
"""Why: features of other code, none or too few of them, a number that is none or too large, no window."""


class LearnerMetrics:
    """Everything the learner counts, declared in one registry."""

    def __init__(self, registry: Metrics) -> None:
        self.registry = registry
        self.lessons = registry.counter("lessons_total", "Lessons folded")
        self.refused = registry.counter(
            "lessons_refused_total",
            "Lessons that taught a model nothing, because it cannot learn from what they say",
            {"model": ("choice", "response"), "reason": REFUSALS},
        )
        self.publications = registry.counter("publications_total", "Versions published")
        self.publication_bytes = registry.counter("publication_bytes_total", "Bytes of models published")
        self.failed = registry.counter(
            "publications_failed_total", "Publications that the bus or the database did not take"
        )
        self.solve = registry.histogram(
            "solve_seconds", "Time of a solve of the complements", buckets=(0.01, 0.05, 0.2, 1, 2, 5, 10, 30)
        )
        self.passed = registry.gauge(
            "passed_timestamp_seconds",
            "Journal time up to which everything is learned; 0 before anything was",
        )
        self.elected = registry.gauge(
            "elected_learners", "1 in the process that learns, 0 in one that stands by"
        )
        self.orders = registry.gauge("orders_folded_rows", "Orders learned from so far")
        self.choices = registry.gauge("choices_learned_rows", "Orders that the choice model learned from")
        self.choice_loss = registry.gauge(
            "choice_log_loss",
            "Running mean of -log P(what was bought) among the best ten, said before it was learned",
        )
        self.choice_prior_loss = registry.gauge(
            "choice_prior_log_loss", "The same of the weights that were there before any order"
        )
        self.drift = registry.counter(
            "drift_alarms_total",
            "Models found to foresee worse than they did",
            {"model": ("choice", "response")},
        )
        self.choice_ndcg = registry.gauge(
            "choice_ndcg_ratio", "Running mean of NDCG@10 of the next order of the panel, ranked beforehand"
        )
        self.products = registry.gauge("products_known_rows", "Products counted")
        self._measure_honesty(registry)
        self.pairs = registry.gauge("pairs_known_rows", "Pairs of products counted")

    def _measure_honesty(self, registry: Metrics) -> None:
        """What was said before the outcome was learned; of responses, since the process was started."""
        self.response_loss = registry.gauge(
            "response_log_loss",
            "Running mean per trial of -log P(what came of it), said before it was learned",
            {"head": HEADS},
        )
        self.gain = registry.gauge(
            "log_loss_gain_ratio",
            "Share of the log loss of what was believed before any learning that learning took away;"
            " below 0 it made things worse",
            {"model": ("choice", *HEADS)},
        )
        self.auc = registry.gauge(
            "auc_ratio",
            "Of a trial whose product was bought and one whose was not, how often the first was given more",
            {"model": ("response",)},
        )
        self.expected = registry.counter(
            "conversions_expected_total", "Conversions as foretold, by kind of offer", {"kind": KINDS}
        )
        self.seen = registry.counter(
            "conversions_seen_total", "Conversions that came, by kind of offer", {"kind": KINDS}
        )
        self.caused = registry.gauge(
            "caused_ratio", "Share of conversions that showing an offer causes, by kind", {"kind": KINDS}
        )
