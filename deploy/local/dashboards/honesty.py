"""*Model honesty*: does what the models say come true, are the draws what they claim, and does it earn?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.local.dashboards.panels import RATE, Limits, Query, choice, figure, graph, page, row

DRIFT = "The world has drifted"
WORSE = "The learner is worse than its prior"
WRONG = "Propensities are not what is drawn"
GAIN = "closedloop_learner_log_loss_gain_ratio"
DRIFTS = "closedloop_learner_drift_alarms_total"
LEARNED = "closedloop_recommender_learned_journal_timestamp_seconds"
EVEN = "closedloop:uniform_weight:mean6h"
EFFECTIVE = "closedloop:effective_sample:ratio6h"
EXPLORED = "closedloop:explored:ratio6h"
LIFT = 'closedloop_analyzer_lift_margin_amount{placement=~"$placement"}'
GROUPS = "closedloop_analyzer_lift_group_customers"
CUSTOMERS = GROUPS + '{placement=~"$placement"}'


def honesty() -> dashboard.Dashboard:
    """The dashboard."""
    found = page(
        "closedloop-honesty",
        "Model honesty",
        "What the models said before they knew, and what came; how they draw, and what it earns.",
        [choice("placement", "Placement", f"label_values({GROUPS}, placement)")],
    )
    return _models(_earned(_drawn(_came(_said(_at_a_glance(found))))))


def _at_a_glance(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("At a glance"))
        .with_panel(
            figure(
                "Worst gain over the prior",
                "Share of the log loss that learning took away, of the model where that is least. Below 0 it "
                "would be better not to learn.",
                "percentunit",
                f"min({GAIN})",
                limits=Limits(0, -0.02, falling=True),
                runbook=WORSE,
                width=6,
            )
        )
        .with_panel(
            figure(
                "Weight of the uniform policy",
                "Mean over the draws of six hours; 1 where propensities are what is really drawn.",
                "short",
                EVEN,
                runbook=WRONG,
                width=6,
            )
        )
        .with_panel(
            figure(
                "Effective sample size",
                "Share of the draws that they are worth where an even policy is judged by them.",
                "percentunit",
                EFFECTIVE,
                width=6,
            )
        )
        .with_panel(
            figure(
                "Drift alarms of a day",
                "Times that losses rose for good. An alarm changes nothing by itself.",
                "short",
                f"sum(increase({DRIFTS}[1d]))",
                limits=Limits(1, 5),
                runbook=DRIFT,
                width=6,
            )
        )
    )


def _said(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("What was said, and what came"))
        .with_panel(
            graph(
                "Log loss",
                "Running means of -log P(what came), said before it was learned: choice per order, response "
                "per trial. Lower is better; rare outcomes lose little.",
                "short",
                Query("max(closedloop_learner_choice_log_loss)", "choice"),
                Query("max by (head) (closedloop_learner_response_log_loss)", "{{head}}"),
                runbook=WORSE,
            )
        )
        .with_panel(
            graph(
                "Gain over the prior",
                "Share of the log loss of what was believed before any learning that learning took away.",
                "percentunit",
                Query(f"max by (model) ({GAIN})", "{{model}}"),
                limits=Limits(0, -0.02, falling=True),
                runbook=WORSE,
                negative=True,
            )
        )
        .with_panel(
            graph(
                "Order",
                "AUC: how often a trial whose product was bought was given more than one whose was not; and "
                "NDCG@10 of the next order. Coin and dice have 0.5 and about 0.",
                "percentunit",
                Query("max by (model) (closedloop_learner_auc_ratio)", "AUC {{model}}"),
                Query("max(closedloop_learner_choice_ndcg_ratio)", "NDCG@10 choice"),
            )
        )
    )


def _came(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_panel(
            graph(
                "Calibration",
                "Conversions that came over those foretold, by kind of offer, of a day. 1 is honest; "
                "above it the model is too modest.",
                "short",
                Query("closedloop:calibration:ratio1d", "{{kind}}"),
            )
        )
        .with_panel(
            graph(
                "Conversions",
                "Foretold and come, of all kinds.",
                "cps",
                Query(f"sum(rate(closedloop_learner_conversions_expected_total[{RATE}]))", "foretold"),
                Query(f"sum(rate(closedloop_learner_conversions_seen_total[{RATE}]))", "come"),
            )
        )
        .with_panel(
            graph(
                "Caused",
                "κ by kind, learned from ghosts: the share of conversions that showing causes. The rest "
                "would have bought anyway.",
                "percentunit",
                Query("max by (kind) (closedloop_learner_caused_ratio)", "{{kind}}"),
            )
        )
    )


def _drawn(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("How it draws"))
        .with_panel(
            graph(
                "Propensity weights",
                "Mean weight of an even policy over the draws, which is 1 where propensities are true, and "
                "the effective share of the sample. Of six hours.",
                "short",
                Query(EVEN, "mean weight"),
                Query(EFFECTIVE, "effective sample"),
                runbook=WRONG,
            )
        )
        .with_panel(
            graph(
                "Exploration",
                "Share of the draws that exploration made, not belief: near the placements' `exploration`.",
                "percentunit",
                Query(EXPLORED, "explored"),
            )
        )
        .with_panel(
            graph(
                "Starved offers",
                "Offers that compete, and those of them that the model would choose in fewer than one of a "
                "thousand decisions: only exploration shows them.",
                "short",
                Query("max(closedloop_recommender_policy_standing_rows)", "compete"),
                Query("max(closedloop_recommender_policy_starved_rows)", "starved"),
            )
        )
    )


def _earned(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("What it earns"))
        .with_panel(
            graph(
                "Lift",
                "Margin per customer of treatment over the group held out, with its 95 % interval; nothing "
                "while a group is small.",
                "short",
                Query(f"max by (placement, against, bound) ({LIFT})", "{{placement}} {{against}} {{bound}}"),
                width=12,
                negative=True,
            )
        )
        .with_panel(
            graph(
                "Group shares",
                "Customers who were decided for, by group; mixed are those whose keys are in several.",
                "percentunit",
                Query(
                    f"sum by (group) ({CUSTOMERS}) / ignoring (group) group_left sum({CUSTOMERS})",
                    "{{group}}",
                ),
                stacked=True,
                width=12,
            )
        )
    )


def _models(found: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        found.with_row(row("Which models are in use"))
        .with_panel(
            graph(
                "Model age",
                "Journal time since the last that the models in use have learned, per recommender.",
                "s",
                Query(f"clamp_min(time() - ({LEARNED} > 0), 0)", "{{instance}}"),
                limits=Limits(60, 600),
                runbook="The learner is behind",
                width=12,
            )
        )
        .with_panel(
            graph(
                "Drift alarms",
                "Times that losses rose for good, of an hour.",
                "short",
                Query(f"sum by (model) (increase({DRIFTS}[1h]))", "{{model}}"),
                limits=Limits(1, 5),
                runbook=DRIFT,
                width=12,
            )
        )
    )
