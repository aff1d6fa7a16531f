"""*Pipes*: does everything arrive, and where does it wait?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.local.dashboards.panels import RATE, Limits, Query, columns, figure, graph, page, row

LAG, GROWS, LETTERS, FILLS = (
    "Lag grows",
    "A spool grows",
    "Dead letters fill",
    "The disk of a spool fills",
)
ENDS = (
    ("accepted", "Accepted", "Answered 202, repeats included, since the beginning."),
    ("applied", "Applied", "Counted in a model."),
    ("duplicate", "Duplicates", "Posted before under the same id: counted once."),
    ("rejected", "Rejected", "Refused by a rule after they were accepted."),
    ("erased", "Erased", "Of customers who asked to be forgotten."),
)


def pipes() -> dashboard.Dashboard:
    """The dashboard."""
    found = page(
        "closedloop-pipes",
        "Pipes",
        "accepted = applied + duplicate + rejected + dead-lettered + erased + in flight, and what waits.",
    )
    return _refused_items(_refused(_room(_published(_told(_waiting(_ledger(found)))))))


def _ledger(found: dashboard.Dashboard) -> dashboard.Dashboard:
    found = found.with_row(row("Ledger")).with_panel(
        figure(
            "Ledger",
            "The same figures as /v1/ledger; `closedloop verify` shows them hop by hop.",
            "short",
            "min(closedloop_analyzer_ledger_balanced)",
            words={1: ("balances", "green"), 0: ("does not balance", "red")},
            runbook="The ledger does not balance",
        )
    )
    for end, title, description in ENDS:
        found = found.with_panel(
            figure(title, description, "short", f'closedloop:ledger_records:max{{end="{end}"}}')
        )
    return (
        found.with_panel(
            figure(
                "Dead letters",
                "Could not be processed; kept, and replayable.",
                "short",
                'closedloop:ledger_records:max{end="dead_lettered"}',
                limits=Limits(1, 1_000),
                runbook=LETTERS,
            )
        )
        .with_panel(
            figure(
                "In flight",
                "Accepted and without a fate yet: some after a burst, none after a pause.",
                "short",
                'closedloop:ledger_records:max{end="in_flight"}',
                limits=Limits(1_000, 100_000),
                runbook=LAG,
            )
        )
        .with_panel(
            columns(
                "Ledger by source",
                "The row of a source adds up: accepted is the sum of all other columns.",
                "short",
                "source",
                "end",
                Query(
                    "max by (source, end) (closedloop_analyzer_ledger_source_records)", "{{source}} {{end}}"
                ),
                width=12,
            )
        )
        .with_panel(
            graph(
                "Records by fate",
                "What became of records as the analyzer worked them off; ticks and echoes are internal.",
                "cps",
                Query(f"sum by (fate) (rate(closedloop_analyzer_records_total[{RATE}]))", "{{fate}}"),
                stacked=True,
                width=12,
            )
        )
    )


def _waiting(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("Where things wait"))
        .with_panel(
            graph(
                "Spool depth",
                "Records of any kind on disk and not applied yet. A row leaves only when it is applied.",
                "short",
                Query("closedloop:spool_records:sum", "{{job}}"),
                runbook=GROWS,
            )
        )
        .with_panel(
            graph(
                "Unshipped",
                "Of these, what the broker has not acknowledged. If that lasts, it is the trouble.",
                "short",
                Query("closedloop:spool_unshipped_records:sum", "{{job}}"),
                runbook=GROWS,
            )
        )
        .with_panel(
            graph(
                "Spool age",
                "How long the oldest record that is not applied has waited.",
                "s",
                Query("closedloop:spool_age_seconds:max", "{{job}}"),
                limits=Limits(30, 300),
                runbook=GROWS,
            )
        )
    )


def _told(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_panel(
            graph(
                "Lag",
                "Event time that the slowest partition of each analyzer is behind the clock.",
                "s",
                Query("max by (instance) (closedloop_analyzer_lag_seconds)", "{{instance}}"),
                limits=Limits(30, 300),
                runbook=LAG,
            )
        )
        .with_panel(
            graph(
                "Progress",
                "Age of the slowest partition's progress as each service reads it; a dead analyzer shows.",
                "s",
                Query("closedloop:progress_age_seconds:max", "{{job}}"),
                limits=Limits(30, 60),
                runbook="Progress stands still",
            )
        )
        .with_panel(
            graph(
                "Bus silence",
                "Since the broker answered each service last; it is asked once a second.",
                "s",
                Query("closedloop:bus_silence_seconds:max", "{{job}}"),
                limits=Limits(5, 15),
                runbook="The broker is gone",
            )
        )
    )


def _room(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("Room and repairs"))
        .with_panel(
            graph(
                "Spool fill",
                "What the spools hold, as a share of their quota. At 1 new events are refused with 503.",
                "percentunit",
                Query("closedloop:spool_fill:ratio", "{{job}} {{instance}}"),
                limits=Limits(0.5, 0.8),
                runbook=FILLS,
                width=6,
            )
        )
        .with_panel(
            graph(
                "Disk room",
                "Free bytes as a multiple of those that must stay free. Below 1 new events are refused.",
                "short",
                Query("closedloop:disk_room:ratio", "{{job}} {{instance}}"),
                limits=Limits(4, 2, falling=True),
                runbook=FILLS,
                width=6,
            )
        )
        .with_panel(
            graph(
                "Sent again",
                "Records sent to the broker again: after its loss or a lost answer. Repairs: it had "
                "acknowledged records and lost them.",
                "cps",
                Query("closedloop:spool_resent:rate5m", "{{job}} sent again"),
                Query("closedloop:spool_repairs:increase10m", "{{job}} repairs in 10 min"),
                limits=Limits(1, 1_000),
                runbook="The broker loses records",
                width=6,
            )
        )
        .with_panel(
            graph(
                "Erasures",
                "Keys erased, and keys that are still to be told of it.",
                "short",
                Query("sum(increase(closedloop_analyzer_erasures_total[$__range]))", "erased in this range"),
                Query("max(closedloop_analyzer_erasure_notices_records)", "still to be told"),
                runbook="An erasure does not end",
                width=6,
            )
        )
    )


def _published(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_panel(
            graph(
                "Models waiting",
                "Changed models that the broker has not taken yet.",
                "short",
                Query("sum(closedloop_analyzer_models_waiting_records)", "models"),
                limits=Limits(5_000, 50_000),
                runbook=LAG,
            )
        )
        .with_panel(
            graph(
                "Models not in view",
                "Published models that the recommender has not read yet.",
                "short",
                Query("sum(closedloop_recommender_view_missing_records)", "models"),
                limits=Limits(1_000, 10_000),
                runbook="Views are stale",
            )
        )
        .with_panel(
            graph(
                "Learner behind",
                "Journal time that the learner has yet to learn from; it waits for the slowest partition.",
                "s",
                Query("closedloop:learner_behind_seconds", "learner"),
                limits=Limits(10, 60),
                runbook="The learner is behind",
            )
        )
    )


def _refused(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("Refused, repeated, undecidable"))
        .with_panel(
            graph(
                "Refused",
                "Requests answered 503. The sender keeps them and comes back.",
                "reqps",
                Query("closedloop:refused:rate1m", "{{job}}"),
                limits=Limits(0.01, 1),
                runbook="Events are refused with 503",
            )
        )
        .with_panel(
            graph(
                "Dead letters by reason",
                "Records that cannot be processed. A burst of one reason is one sender or one version.",
                "cps",
                Query(f"sum by (code) (rate(closedloop_analyzer_dead_letters_total[{RATE}]))", "{{code}}"),
                limits=Limits(0.01, 1),
                runbook=LETTERS,
            )
        )
        .with_panel(
            graph(
                "Duplicates",
                "Events posted again under a known id, counted once. Senders that retry make some.",
                "cps",
                Query(
                    f'sum(rate(closedloop_analyzer_records_total{{fate="duplicate"}}[{RATE}]))', "duplicates"
                ),
                width=8,
            )
        )
    )


def _refused_items(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_panel(
            graph(
                "Items refused at the door",
                "Items of batches that were answered with a reason, by its code.",
                "cps",
                Query(f"sum by (code) (rate(closedloop_collector_items_rejected_total[{RATE}]))", "{{code}}"),
            )
        )
        .with_panel(
            graph(
                "Outcomes refused at the door",
                "By code. token_invalid in numbers is somebody who tries tokens.",
                "cps",
                Query(
                    f"sum by (code) (rate(closedloop_feedback_outcomes_rejected_total[{RATE}]))", "{{code}}"
                ),
            )
        )
        .with_panel(
            graph(
                "Delivered again, missing, unmatched",
                "redelivered is normal after a broker was lost. gaps are numbers of a spool that have not "
                "come: it ships again. unmatched outcomes name no known decision.",
                "cps",
                Query(f"sum by (note) (rate(closedloop_analyzer_notes_total[{RATE}]))", "{{note}}"),
                runbook="The ledger does not balance",
            )
        )
    )
