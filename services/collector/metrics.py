"""Metrics of the collector."""

from __future__ import annotations

from libs.common.telemetry import Metrics

KINDS = ("touchpoint", "identity", "consent")
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
)


class CollectorMetrics:
    """Everything the collector counts, declared in one registry."""

    def __init__(self, registry: Metrics) -> None:
        self.registry = registry
        self.accepted = registry.counter(
            "items_accepted_total", "Items answered as accepted", {"kind": KINDS}
        )
        self.rejected = registry.counter(
            "items_rejected_total", "Items refused, by reason", {"kind": KINDS, "code": CODES}
        )
        self.ticks = registry.counter("ticks_total", "Ticks written, one per partition")
        self.ticks_withheld = registry.counter(
            "ticks_withheld_total", "Times a tick waited for the one before it to reach the bus"
        )
