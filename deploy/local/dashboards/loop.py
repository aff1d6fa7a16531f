"""*The loop*: is it turning, how fast, and what comes of it?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.local.dashboards.panels import (
    RATE,
    Limits,
    Query,
    bars,
    choice,
    figure,
    graph,
    page,
    row,
)

SLOW = "The loop is slow"
LAST = "closedloop_collector_last_accepted_timestamp_seconds"
OUTCOMES = "closedloop_feedback_outcomes_accepted_total"
EVENTS = 'closedloop_collector_events_total{source=~"$source"}'


def loop() -> dashboard.Dashboard:
    """The dashboard."""
    found = page(
        "closedloop-loop",
        "The loop",
        "Events come in, models change, recommendations go out, outcomes come back. Start here.",
        [choice("source", "Source", "label_values(closedloop_collector_events_total, source)")],
    )
    return _learning(_ages(_outcomes(_decisions(_events(_glance_at_ages(_at_a_glance(found)))))))


def _at_a_glance(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("At a glance"))
        .with_panel(
            figure(
                "Processes down",
                "Processes of closedloop that Prometheus gets no answer from.",
                "short",
                'count(up{job=~"collector|analyzer|recommender|feedback|learner"} == 0) or vector(0)',
                limits=Limits(1, 1),
                runbook="A process is down",
            )
        )
        .with_panel(
            figure(
                "Ledger",
                "Whether accepted = applied + duplicate + rejected + dead-lettered + erased + in flight.",
                "short",
                "min(closedloop_analyzer_ledger_balanced)",
                words={1: ("balances", "green"), 0: ("does not balance", "red")},
                runbook="The ledger does not balance",
            )
        )
        .with_panel(figure("Events in", "Accepted from all sources.", "cps", f"sum(rate({EVENTS}[{RATE}]))"))
        .with_panel(
            figure(
                "Decisions",
                "Recommendations that were recorded, control groups included.",
                "cps",
                f"sum(rate(closedloop_recommender_decisions_total[{RATE}]))",
            )
        )
        .with_panel(
            figure(
                "Outcomes",
                "Reported outcomes of all kinds, repeats included.",
                "cps",
                f"sum(rate(closedloop_feedback_outcomes_accepted_total[{RATE}]))",
            )
        )
    )


def _glance_at_ages(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_panel(
            figure(
                "Freshness p50",
                "Half of all answers were based on data not older than this.",
                "s",
                "closedloop:freshness_seconds:p50_5m",
                limits=Limits(2, 300),
                runbook="Views are stale",
            )
        )
        .with_panel(
            figure(
                "Freshness p99",
                "99 % of all answers were based on data not older than this. Fresh is below 2 s; above 5 min "
                "offers are not personal any more.",
                "s",
                "closedloop:freshness_seconds:p99_5m",
                limits=Limits(2, 300),
                runbook="Views are stale",
            )
        )
        .with_panel(
            figure(
                "Loop closure p99",
                "From the acceptance of an event until the next recommendation knows it.",
                "s",
                "closedloop:closure_seconds:p99_5m",
                limits=Limits(0.15, 1),
                runbook=SLOW,
            )
        )
    )


def _events(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("Events in"))
        .with_panel(
            graph(
                "Events by source",
                "A source is the name of a key. One that stops is an outage of its sender: see Silence.",
                "cps",
                Query(f"sum by (source) (rate({EVENTS}[{RATE}]))", "{{source}}"),
                stacked=True,
                runbook="A source is silent",
            )
        )
        .with_panel(
            graph(
                "Events by channel",
                "Touchpoints by channel; links and consents have none, channels of your own are other.",
                "cps",
                Query(f"sum by (channel) (rate({EVENTS}[{RATE}])) > 0 or vector(0)", "{{channel}}"),
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Silence",
                "How long each source has not posted. The alert compares with three times its usual silence.",
                "s",
                Query(
                    f'time() - max by (source) ({LAST}{{source=~"$source"}})',
                    "{{source}}",
                ),
                runbook="A source is silent",
            )
        )
    )


def _decisions(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("Decisions and outcomes"))
        .with_panel(
            graph(
                "Decisions by group",
                "treatment gets what the models choose; baseline and none are the control groups of lift.",
                "cps",
                Query(f"sum by (group) (rate(closedloop_recommender_decisions_total[{RATE}]))", "{{group}}"),
                stacked=True,
                width=6,
            )
        )
        .with_panel(
            graph(
                "Degraded answers",
                "stale: progress was over five minutes old, offers were not personal. unrecorded: the "
                "spool took no decision, tokens are missing.",
                "cps",
                Query(
                    f"sum by (reason) (rate(closedloop_recommender_degraded_answers_total[{RATE}]))",
                    "{{reason}}",
                ),
                limits=Limits(0.01, 1),
                runbook="Views are stale",
                width=6,
            )
        )
    )


def _outcomes(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return found.with_panel(
        graph(
            "Outcomes by word",
            "What was reported about offers. Conversions are also found by the system, in orders.",
            "cps",
            Query(f"sum by (outcome) (rate({OUTCOMES}[{RATE}]))", "{{outcome}}"),
            stacked=True,
            width=6,
        )
    ).with_panel(
        bars(
            "From decision to acceptance",
            "Counts of the chosen time range: a step nearly empty is a report that does not arrive.",
            "short",
            Query("sum(increase(closedloop_recommender_decisions_total[$__range]))", "decisions"),
            Query(f'sum(increase({OUTCOMES}{{outcome="shown"}}[$__range]))', "shown"),
            Query(f'sum(increase({OUTCOMES}{{outcome="clicked"}}[$__range]))', "clicked"),
            Query(f'sum(increase({OUTCOMES}{{outcome="accepted"}}[$__range]))', "accepted"),
            Query(f'sum(increase({OUTCOMES}{{outcome="declined"}}[$__range]))', "declined"),
            width=6,
        )
    )


def _ages(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("How fast it turns"))
        .with_panel(
            graph(
                "Freshness",
                "Age of the newest journal time that answers were based on. It moves once a second.",
                "s",
                Query("closedloop:freshness_seconds:p50_5m", "p50"),
                Query("closedloop:freshness_seconds:p99_5m", "p99"),
                limits=Limits(2, 300),
                runbook="Views are stale",
            )
        )
        .with_panel(
            graph(
                "Loop closure",
                "From the acceptance of an event until its customer's model is in the recommender's view. "
                "The bar is 0.15 s.",
                "s",
                Query("closedloop:closure_seconds:p50_5m", "p50"),
                Query("closedloop:closure_seconds:p99_5m", "p99"),
                limits=Limits(0.15, 1),
                runbook=SLOW,
            )
        )
        .with_panel(
            graph(
                "Lag",
                "Event time that the analyzer has yet to work through, and the learner behind it.",
                "s",
                Query("max(closedloop_analyzer_lag_seconds)", "analyzer"),
                Query("closedloop:learner_behind_seconds", "learner"),
                limits=Limits(30, 300),
                runbook="Lag grows",
            )
        )
    )


def _learning(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("What is learned"))
        .with_panel(
            graph(
                "Lessons",
                "Orders and judged trials that the learner took in.",
                "cps",
                Query(f"sum(rate(closedloop_learner_lessons_total[{RATE}]))", "lessons"),
            )
        )
        .with_panel(
            graph(
                "Learned from",
                "Orders so far, and the products and pairs of products that they are about.",
                "short",
                Query("max(closedloop_learner_orders_folded_rows)", "orders"),
                Query("max(closedloop_learner_products_known_rows)", "products"),
                Query("max(closedloop_learner_pairs_known_rows)", "pairs"),
            )
        )
        .with_panel(
            graph(
                "Catalogue",
                "Products the recommender can offer: without any, answers are empty.",
                "short",
                Query("max(closedloop_recommender_catalogue_rows)", "products"),
                limits=Limits(1, 1, falling=True),
            )
        )
    )
