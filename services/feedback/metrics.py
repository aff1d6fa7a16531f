"""Metrics of feedback."""

from __future__ import annotations

from libs.common.contracts.outcome import WORDS
from libs.common.telemetry import Metrics

CODES = (
    "missing",
    "wrong_type",
    "too_large",
    "too_deep",
    "bad_time",
    "not_finite",
    "bad_string",
    "unknown_field",
    "not_supported",
    "token_invalid",
    "token_expired",
    "token_mismatch",
)


class FeedbackMetrics:
    """Everything feedback counts, declared in one registry."""

    def __init__(self, registry: Metrics) -> None:
        self.registry = registry
        self.accepted = registry.counter(
            "outcomes_accepted_total", "Outcomes answered as accepted, repeats included", {"outcome": WORDS}
        )
        self.rejected = registry.counter(
            "outcomes_rejected_total", "Outcomes refused, by reason", {"code": CODES}
        )
