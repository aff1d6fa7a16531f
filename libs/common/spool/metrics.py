"""What every service with a spool counts about it."""

from __future__ import annotations

from libs.common.telemetry import Metrics

REFUSALS = ("full", "busy", "failed")


class SpoolMetrics:
    """Counters of all spools of one process; without a registry they are counted for nobody."""

    def __init__(self, registry: Metrics | None = None) -> None:
        registry = registry or Metrics("nobody")
        self.commit_seconds = registry.histogram(
            "spool_commit_seconds",
            "Time of one commit with its fsync",
            buckets=(0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5),
        )
        self.refused = registry.counter(
            "spool_refused_total", "Appends that the spool did not take, by reason", {"reason": REFUSALS}
        )
        self.shipped = registry.counter(
            "spool_shipped_records_total",
            "Records that the bus acknowledged to this process first",
        )
        self.resent = registry.counter(
            "spool_resent_records_total", "Records that the bus, or one before it, acknowledged again"
        )
        self.probes = registry.counter(
            "spool_probes_total", "Records sent again because the analyzer stood still before them"
        )
        self.repairs = registry.counter(
            "spool_repairs_total",
            "Times that a partition was sent again because the bus had lost records",
        )
        self.producers = registry.counter(
            "spool_producers_replaced_total", "Producers thrown away after an error nobody expected"
        )
        self.adopted = registry.counter("spool_adopted_total", "Spools of other processes taken over")
