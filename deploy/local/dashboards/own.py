"""What each process does that no other does: the last rows of its dashboard."""

from __future__ import annotations

from collections.abc import Callable

from deploy.local.dashboards.panels import RATE, Limits, PanelBuilder, Query, graph, here, quantiles

SATURATED, SLOW = "A process is saturated", "The loop is slow"


def rate(metric: str, name: str, by: str = "instance", legend: str = "") -> Query:
    """Counts per second of counter ``metric`` of process ``name``, for each value of label ``by``."""
    counter = f"closedloop_{name}_{metric}_total{{{here(name)}}}"
    return Query(f"sum by ({by}) (rate({counter}[{RATE}]))", legend or f"{{{{{by}}}}}")


def gauge(metric: str, name: str, how: str = "max", legend: str = "{{instance}}") -> Query:
    """Gauge ``metric`` of each chosen instance of process ``name``."""
    return Query(f"{how} by (instance) (closedloop_{name}_{metric}{{{here(name)}}})", legend)


def _spool(name: str) -> tuple[PanelBuilder, ...]:
    return (
        graph(
            "Spool depth",
            "Records on disk that are not applied yet, and of these those not on the bus.",
            "short",
            gauge("spool_records", name, "sum"),
            gauge("spool_unshipped_records", name, "sum", legend="{{instance}} unshipped"),
            runbook="A spool grows",
        ),
        graph(
            "Spool age",
            "How long the oldest record that is not applied has waited.",
            "s",
            gauge("spool_age_seconds", name),
            limits=Limits(30, 300),
            runbook="A spool grows",
        ),
    )


def _shipping(name: str) -> tuple[PanelBuilder, ...]:
    return (
        graph(
            "Commit",
            "Time of one commit with its fsync: every 202 waits for one.",
            "s",
            *quantiles(f"closedloop_{name}_spool_commit_seconds", here(name)),
            limits=Limits(0.02, 0.2),
            runbook="Events are refused with 503",
        ),
        graph(
            "Appends refused",
            "full: quota or disk; busy: commits are too slow; failed: the disk gave an error.",
            "cps",
            rate("spool_refused", name, "reason"),
            limits=Limits(0.01, 1),
            runbook="Events are refused with 503",
        ),
        graph(
            "Shipping",
            "Records that the bus acknowledged, and those it got again.",
            "cps",
            rate("spool_shipped_records", name, "job", "shipped"),
            rate("spool_resent_records", name, "job", "sent again"),
            rate("spool_probes", name, "job", "probes"),
            runbook="The broker loses records",
        ),
        graph(
            "Shipper's mishaps",
            "Spools taken over from processes that are gone, producers thrown away, partitions sent again.",
            "cps",
            rate("spool_adopted", name, "job", "adopted"),
            rate("spool_producers_replaced", name, "job", "producers replaced"),
            rate("spool_repairs", name, "job", "repairs"),
            runbook="The broker loses records",
        ),
    )


def _collector() -> tuple[PanelBuilder, ...]:
    return (
        graph(
            "Items accepted",
            "Touchpoints, links and consents that were answered with 202.",
            "cps",
            rate("items_accepted", "collector", "kind"),
            stacked=True,
        ),
        graph(
            "Items refused",
            "Items that were answered with a reason, by its code.",
            "cps",
            rate("items_rejected", "collector", "code"),
        ),
        graph(
            "Ticks",
            "Time written into every partition, once a second; withheld while the broker is away.",
            "cps",
            rate("ticks", "collector", "job", "ticks"),
            rate("ticks_withheld", "collector", "job", "withheld"),
            runbook="The broker is gone",
        ),
        *_spool("collector"),
        *_shipping("collector"),
    )


def _analyzer_duration() -> tuple[PanelBuilder, ...]:
    return (
        graph(
            "Slice",
            "From a slice's arrival to its commit: mostly PostgreSQL.",
            "s",
            *quantiles("closedloop_analyzer_slice_seconds", here("analyzer")),
            limits=Limits(0.5, 2),
            runbook="Lag grows",
        ),
        graph(
            "Records",
            "Records worked off, by what became of them.",
            "cps",
            Query(
                f"sum by (fate) (rate(closedloop_analyzer_records_total{{{here('analyzer')}}}[{RATE}]))",
                "{{fate}}",
            ),
            stacked=True,
        ),
        graph(
            "Lag",
            "Event time that the slowest owned partition is behind the clock.",
            "s",
            gauge("lag_seconds", "analyzer"),
            limits=Limits(30, 300),
            runbook="Lag grows",
        ),
    )


def _analyzer() -> tuple[PanelBuilder, ...]:
    return (
        graph(
            "Partitions",
            "Partitions owned by each analyzer; together twelve.",
            "short",
            gauge("owned_partitions", "analyzer"),
            stacked=True,
            runbook="Progress stands still",
        ),
        graph(
            "Slices",
            "Transactions of the analyzer.",
            "cps",
            rate("slices", "analyzer"),
        ),
        graph(
            "Models",
            "Model records put on the bus.",
            "cps",
            rate("models_published", "analyzer"),
        ),
        graph(
            "Models waiting",
            "Models that the broker has not taken yet.",
            "short",
            gauge("models_waiting_records", "analyzer", "sum"),
            limits=Limits(5_000, 50_000),
            runbook="Lag grows",
        ),
        graph(
            "Database",
            "1 where PostgreSQL answered the last look.",
            "short",
            gauge("database_answers", "analyzer"),
            limits=Limits(1, 1, falling=True),
            runbook="PostgreSQL is gone",
        ),
    )


def _partitions() -> tuple[PanelBuilder, ...]:
    return (
        graph(
            "Lag by partition",
            "Event time that each partition is behind; one alone: a customer with very many events.",
            "s",
            Query(
                f"max by (partition) (closedloop_analyzer_partition_lag_seconds{{{here('analyzer')}}})",
                "{{partition}}",
            ),
            limits=Limits(30, 300),
            runbook="Lag grows",
        ),
        graph(
            "Claims",
            "Partitions claimed, and lost to another analyzer: many of both is a group that finds no rest.",
            "cps",
            rate("claims", "analyzer", "result"),
            runbook="Progress stands still",
        ),
        graph(
            "Slices put off",
            "Tried again later: the database is away, or models of the partition are still being published.",
            "cps",
            rate("slice_retries", "analyzer", "reason"),
            runbook="PostgreSQL is gone",
        ),
        graph(
            "Dead letters replayed",
            "left: they were processed; again: they are dead letters as before.",
            "cps",
            rate("dead_letters_replayed", "analyzer", "result"),
            runbook="Dead letters fill",
        ),
    )


def _learner() -> tuple[PanelBuilder, ...]:
    selector = here("learner")
    return (
        graph(
            "Lessons",
            "Lessons folded, orders and judged trials; and those that taught a model nothing, by why.",
            "cps",
            rate("lessons", "learner"),
            rate("lessons_refused", "learner", "reason", "refused: {{reason}}"),
        ),
        graph(
            "Behind",
            "Journal time that is yet to be learned from.",
            "s",
            Query("closedloop:learner_behind_seconds", "learner"),
            limits=Limits(10, 60),
            runbook="The learner is behind",
        ),
        graph(
            "Elected",
            "1 in the process that learns; together exactly 1.",
            "short",
            gauge("elected_learners", "learner"),
            runbook="The learner is behind",
        ),
        graph(
            "Publications",
            "Versions published, and those that failed and were tried again.",
            "cps",
            rate("publications", "learner", "job", "published"),
            rate("publications_failed", "learner", "job", "failed"),
            limits=Limits(0.1, 1),
            runbook="The learner is behind",
        ),
        graph(
            "Published bytes",
            "Size of what was published.",
            "Bps",
            rate("publication_bytes", "learner", "job", "bytes"),
        ),
        graph(
            "Solves",
            "Share of the time spent to solve complements: near 1, products are too many for this machine.",
            "percentunit",
            Query(f"sum(rate(closedloop_learner_solve_seconds_sum{{{selector}}}[{RATE}]))", "solving"),
            limits=Limits(0.5, 0.9),
            runbook="The learner is behind",
        ),
        graph(
            "Learned from",
            "Orders, products and pairs of products so far.",
            "short",
            Query(f"max(closedloop_learner_orders_folded_rows{{{selector}}})", "orders"),
            Query(f"max(closedloop_learner_products_known_rows{{{selector}}})", "products"),
            Query(f"max(closedloop_learner_pairs_known_rows{{{selector}}})", "pairs"),
        ),
    )


def _recommender_duration() -> tuple[PanelBuilder, ...]:
    return (
        graph(
            "Decision",
            "Time to make a decision, waiting for models left out.",
            "s",
            *quantiles("closedloop_recommender_decision_seconds", here("recommender")),
            limits=Limits(0.01, 0.1),
            runbook=SATURATED,
        ),
        graph(
            "Freshness",
            "Age of the newest journal time that answers were based on.",
            "s",
            *quantiles("closedloop_recommender_freshness_seconds", here("recommender")),
            limits=Limits(2, 300),
            runbook="Views are stale",
        ),
        graph(
            "Loop closure",
            "From the acceptance of an event until its model is in this process's view.",
            "s",
            *quantiles("closedloop_recommender_closure_seconds", here("recommender")),
            limits=Limits(0.15, 1),
            runbook=SLOW,
        ),
    )


def _recommender() -> tuple[PanelBuilder, ...]:
    selector = here("recommender")

    return (
        graph(
            "Decisions",
            "Recorded decisions by group.",
            "cps",
            rate("decisions", "recommender", "group"),
            stacked=True,
        ),
        graph(
            "Answers of other kinds",
            "Dry runs leave no record; repeated answers are those of a known decision id; unknown "
            "placements work with defaults: add them to the catalogue.",
            "cps",
            rate("dry_runs", "recommender", "job", "dry runs"),
            rate("repeated_answers", "recommender", "job", "repeated"),
            rate("unknown_placements", "recommender", "job", "unknown placements"),
            rate("failed_requests", "recommender", "job", "failed in a batch"),
        ),
        graph(
            "Degraded answers",
            "stale: offers were not personal. unrecorded: the spool took no decision.",
            "cps",
            rate("degraded_answers", "recommender", "reason"),
            limits=Limits(0.01, 1),
            runbook="Views are stale",
        ),
        graph(
            "Views",
            "1 where a view has been read to its end since the start.",
            "short",
            Query(f"min by (topic) (closedloop_recommender_view_caught_up{{{selector}}})", "{{topic}}"),
            limits=Limits(1, 1, falling=True),
            runbook="Views are stale",
        ),
        graph(
            "Age of what is learned",
            "How far the learned models in use are behind the clock.",
            "s",
            Query(
                f"time() - max(closedloop_recommender_learned_journal_timestamp_seconds{{{selector}}} > 0)",
                "learned",
            ),
            limits=Limits(30, 300),
            runbook="The learner is behind",
        ),
        graph(
            "Catalogue and pools",
            "Entries published, decision pools stored in the database, records that could not be read.",
            "cps",
            rate("published_entries", "recommender", "job", "entries published"),
            rate("kept_decisions", "recommender", "job", "pools stored"),
            rate("unreadable_records", "recommender", "job", "unreadable"),
            rate("forgotten_customers", "recommender", "job", "customers forgotten"),
        ),
        *_spool("recommender"),
        *_shipping("recommender"),
    )


def _feedback() -> tuple[PanelBuilder, ...]:
    return (
        graph(
            "Outcomes",
            "Outcomes answered with 202, by word.",
            "cps",
            rate("outcomes_accepted", "feedback", "outcome"),
            stacked=True,
        ),
        graph(
            "Outcomes refused",
            "By code. token_expired grows when mails are opened after the tokens' life.",
            "cps",
            rate("outcomes_rejected", "feedback", "code"),
        ),
        *_spool("feedback"),
        *_shipping("feedback"),
    )


WORK: dict[str, Callable[[], tuple[PanelBuilder, ...]]] = {
    "collector": _collector,
    "analyzer": lambda: (*_analyzer(), *_partitions()),
    "learner": _learner,
    "recommender": _recommender,
    "feedback": _feedback,
}
DURATIONS: dict[str, Callable[[], tuple[PanelBuilder, ...]]] = {
    "analyzer": _analyzer_duration,
    "recommender": _recommender_duration,
}
