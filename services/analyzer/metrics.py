"""Metrics of the analyzer."""

from __future__ import annotations

from libs.common.telemetry import Metrics

FATES = ("applied", "duplicate", "rejected", "dead_lettered", "erased", "internal")
NOTES = ("redelivered", "gaps", "unmatched")


class AnalyzerMetrics:
    """Everything the analyzer counts, declared in one registry."""

    def __init__(self, registry: Metrics) -> None:
        self.registry = registry
        self.records = registry.counter(
            "records_total", "Records of the journal by what became of them", {"fate": FATES}
        )
        self.notes = registry.counter(
            "notes_total",
            "Records delivered again, sequence numbers that are missing, outcomes without decision",
            {"note": NOTES},
        )
        self.slices = registry.counter("slices_total", "Slices committed")
        self.slice_seconds = registry.histogram(
            "slice_seconds",
            "From a slice's arrival to its commit",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0),
        )
        self.lag = registry.gauge(
            "lag_seconds", "How far the latest slice's journal time is behind the clock"
        )
        self.models = registry.counter("models_published_total", "Model records put on the bus")
        self.partitions = registry.gauge("owned_partitions", "Partitions owned at this moment")
