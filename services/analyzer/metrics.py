"""Metrics of the analyzer."""

from __future__ import annotations

from libs.common.contracts.identity import PARTITIONS
from libs.common.telemetry import Metrics, Names

FATES = ("applied", "duplicate", "rejected", "dead_lettered", "erased", "internal")
NOTES = ("redelivered", "gaps", "unmatched", "crowded", "automatic", "idle")
ENDS = ("accepted", "applied", "duplicate", "rejected", "dead_lettered", "erased", "in_flight")
"""Columns of the ledger."""

BOUNDS = ("low", "estimate", "high")
"""Of an interval, and what lies between."""

MIXED = "mixed"
CONTROLS = ("none", "baseline")
GROUPS = ("treatment", *CONTROLS, MIXED)
PLACEMENTS = 32
"""Placements of the catalogue that metrics tell apart."""

SOURCES = 32
"""Sources that metrics tell apart: names of keys, which are the operator's, and the platform's own."""

DEAD_LETTER_CODES = (
    "undecodable",
    "wrong_type",
    "wrong_partition",
    "wrong_customer",
    "out_of_range",
    "bad_time",
    "missing",
    "bad_string",
    "id_reuse",
)


class AnalyzerMetrics:
    """Everything the analyzer counts, declared in one registry."""

    def __init__(self, registry: Metrics) -> None:
        self.registry = registry
        self.records = registry.counter(
            "records_total", "Records of the journal by what became of them", {"fate": FATES}
        )
        self.notes = registry.counter(
            "notes_total",
            "Records delivered again, sequence numbers that are missing, outcomes without decision,"
            " decisions forgotten before their time because a customer has so many,"
            " touchpoints too fast for a person, visitors dropped because nobody heard of them for so long",
            {"note": NOTES},
        )
        self.slices = registry.counter("slices_total", "Slices committed")
        self.slice_seconds = registry.histogram(
            "slice_seconds",
            "From a slice's arrival to its commit",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0),
        )
        self.dead_letters = registry.counter(
            "dead_letters_total", "Records that cannot be processed, by reason", {"code": DEAD_LETTER_CODES}
        )
        self.replays = registry.counter(
            "dead_letters_replayed_total",
            "Dead letters taken again: left, or dead again",
            {"result": ("left", "again")},
        )
        self.retries = registry.counter(
            "slice_retries_total",
            "Slices put off: the database is away, models are still being published",
            {"reason": ("database", "publishing")},
        )
        self.claims = registry.counter(
            "claims_total", "Partitions claimed, and lost to another owner", {"result": ("claimed", "lost")}
        )
        self.partition_lag = registry.gauge(
            "partition_lag_seconds",
            "How far an owned partition's journal time is behind the clock; 0 where it is not owned",
            {"partition": tuple(str(partition) for partition in range(PARTITIONS))},
        )
        self.lag = registry.gauge(
            "lag_seconds", "How far the slowest owned partition's journal time is behind the clock"
        )
        self.waiting = registry.gauge("models_waiting_records", "Models that wait for the bus")
        self.sources = Names(SOURCES)
        self.ledger = registry.gauge(
            "ledger_records", "The ledger: what was accepted, and what became of it", {"end": ENDS}
        )
        self.ledger_by_source = registry.gauge(
            "ledger_source_records", "The ledger of each source", {"source": self.sources, "end": ENDS}
        )
        self.balanced = registry.gauge("ledger_balanced", "1 where the ledger balances, 0 where it does not")
        self.database = registry.gauge("database_answers", "1 where the database answered the last look")
        self.erasures = registry.counter("erasures_total", "Customer keys erased, linked visitors included")
        self.notices = registry.gauge(
            "erasure_notices_records", "Keys that are still to be told of an erasure, or withdrawn from views"
        )
        self.models = registry.counter("models_published_total", "Model records put on the bus")
        self.partitions = registry.gauge("owned_partitions", "Partitions owned at this moment")
        self._measure_lift(registry)

    def _measure_lift(self, registry: Metrics) -> None:
        self.lift_failures = registry.counter(
            "lift_counts_failed_total",
            "Counts of the lift that failed, so that its gauges show older figures",
        )
        self.placements = Names(PLACEMENTS)
        self.group_customers = registry.gauge(
            "lift_group_customers",
            "Customers decided for at a placement; mixed: whose keys are in several groups",
            {"placement": self.placements, "group": GROUPS},
        )
        self.lift = registry.gauge(
            "lift_margin_amount",
            "Margin per customer of treatment over a control group: estimate, and ends of the 95 % interval",
            {"placement": self.placements, "against": CONTROLS, "bound": BOUNDS},
        )
