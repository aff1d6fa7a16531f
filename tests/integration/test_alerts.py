"""Every alert fires when it should and keeps silent when it should not, judged by promtool."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.prometheus_tools import ROOT, RULES, rules_without_intervals, tool

PORTS = {"collector": 8001, "analyzer": 8002, "recommender": 8003, "feedback": 8004, "learner": 8005}
STEPS = 120
"""Samples of 15 s: half an hour."""


def series(metric: str, job: str, **labels: str) -> str:
    """A series as a scrape of ``job`` would give it."""
    every = {"job": job, "instance": f"{job}:{PORTS[job]}", **labels}
    return metric + "{" + ", ".join(f'{name}="{value}"' for name, value in every.items()) + "}"


def steady(value: float) -> str:
    return f"{value}x{STEPS}"


def growing(by: float) -> str:
    """By ``by`` every 15 s."""
    return f"0+{by}x{STEPS}"


def answered(job: str, status: str) -> str:
    return series(f"closedloop_{job}_http_requests_total", job, route="/v1/x", status=status)


def bucket(job: str, metric: str, le: str) -> str:
    return series(f"closedloop_{job}_{metric}_bucket", job, le=le)


def healthy() -> dict[str, str]:
    """Half an hour of a platform in order."""
    found = {}
    for job in PORTS:
        found[series("up", job)] = steady(1)
        found[answered(job, "200")] = growing(150)
        found[series("process_open_fds", job)] = steady(60)
        found[series("process_max_fds", job)] = steady(1024)
        for le in ("0.005", "0.05", "0.25", "1.0", "+Inf"):
            found[bucket(job, "loop_lag_seconds", le)] = growing(60)
    for job in ("collector", "recommender", "feedback"):
        found[series(f"closedloop_{job}_bus_silence_seconds", job)] = steady(0.8)
        found[series(f"closedloop_{job}_progress_age_seconds", job)] = steady(1.1)
        found[series(f"closedloop_{job}_spool_age_seconds", job)] = steady(0.2)
        found[series(f"closedloop_{job}_spool_bytes", job)] = steady(1e6)
        found[series(f"closedloop_{job}_spool_quota_bytes", job)] = steady(1e9)
        found[series(f"closedloop_{job}_disk_free_bytes", job)] = steady(9e9)
        found[series(f"closedloop_{job}_disk_least_free_bytes", job)] = steady(1e9)
        found[series(f"closedloop_{job}_spool_repairs_total", job)] = steady(0)
    analyzer = {
        "ledger_balanced": steady(1),
        "database_answers": steady(1),
        "lag_seconds": steady(1),
        "erasure_notices_records": steady(0),
    }
    found |= {series(f"closedloop_analyzer_{name}", "analyzer"): values for name, values in analyzer.items()}
    found[LETTERS] = steady(0)
    found[series("closedloop_analyzer_records_total", "analyzer", fate="applied")] = growing(1500)
    found[series("closedloop_recommender_view_missing_records", "recommender")] = steady(3)
    found[CAUGHT_UP] = steady(1)
    found[VIEW_LAG] = steady(0.5)
    for le in ("0.15", "1.0", "2.0", "+Inf"):
        found[bucket("recommender", "closure_seconds", le)] = growing(300)
    found[PASSED] = f"0+15x{STEPS}"
    found[ELECTED] = steady(1)
    found[LAST] = f"0+15x{STEPS}"
    found |= drawn(1.0)
    for model in ("choice", "response"):
        found[series("closedloop_learner_drift_alarms_total", "learner", model=model)] = steady(0)
    found[GAIN] = steady(0.05)
    return found


def drawn(mean: float) -> dict[str, str]:
    """A hundred draws a second whose even weights have this mean, and squares of mean 20."""
    named = {
        "draws": 1500.0,
        "uniform_weight": 1500.0 * mean,
        "uniform_weight_squares": 30_000.0,
        "explored": 30.0,
    }
    return {
        series(f"closedloop_recommender_policy_{name}_total", "recommender"): growing(by)
        for name, by in named.items()
    }


LETTERS = series("closedloop_analyzer_dead_letters_total", "analyzer", code="undecodable")
CAUGHT_UP = series("closedloop_recommender_view_caught_up", "recommender", topic="customer-models")
VIEW_LAG = series("closedloop_recommender_view_lag_seconds", "recommender", topic="customer-models")
GAIN = series("closedloop_learner_log_loss_gain_ratio", "learner", model="choice")
DRIFTS = series("closedloop_learner_drift_alarms_total", "learner", model="response")
PASSED = series("closedloop_learner_passed_timestamp_seconds", "learner")
ELECTED = series("closedloop_learner_elected_learners", "learner")
LAST = series("closedloop_collector_last_accepted_timestamp_seconds", "collector", source="shop")


def gauge(job: str, name: str, values: str) -> dict[str, str]:
    return {series(f"closedloop_{job}_{name}", job): values}


def everywhere(name: str, values: str) -> dict[str, str]:
    return {
        key: values for job in ("collector", "recommender", "feedback") for key in gauge(job, name, values)
    }


def slow(job: str, metric: str, *buckets: str) -> dict[str, str]:
    """Nothing is as quick as ``buckets`` any more."""
    return {bucket(job, metric, le): steady(0) for le in buckets}


class Case(NamedTuple):
    """What is different from a platform in order, and what fires ``at`` some moment because of it."""

    change: Mapping[str, str]
    fires: frozenset[str]
    at: str = "15m"


def case(change: Mapping[str, str], *fires: str, at: str = "15m") -> Case:
    return Case(change, frozenset(fires), at)


LATE = "1x40 100x80"
"""In order for ten minutes, then not."""

CASES = {
    "a platform in order is silent": case({}, at="25m"),
    "down": case({series("up", "feedback"): "1x40 0x80"}, "TargetDown"),
    "down for a moment": case({series("up", "feedback"): "1x40 0x2 1x78"}, at="11m"),
    "refused": case({answered("collector", "503"): growing(15)}, "EventsRefused"),
    "refused for a moment at a start": case({answered("collector", "503"): "0x40 15x80"}, at="11m15s"),
    "refused by the recommender alone": case({answered("recommender", "503"): growing(15)}),
    "failing": case({answered("recommender", "500"): growing(5)}, "RequestsFail"),
    "failing once in a thousand": case({answered("recommender", "500"): growing(0.15)}),
    "unbalanced": case(gauge("analyzer", "ledger_balanced", "1x40 0x80"), "LedgerUnbalanced"),
    "unbalanced for a moment": case(gauge("analyzer", "ledger_balanced", "1x40 0x4 1x76"), at="11m30s"),
    "lag": case(gauge("analyzer", "lag_seconds", LATE), "AnalyzerLags"),
    "lag below the limit": case(gauge("analyzer", "lag_seconds", steady(29))),
    "stalled": case(everywhere("progress_age_seconds", LATE), "ProgressStalled"),
    "one service alone sees no progress": case(gauge("collector", "progress_age_seconds", LATE)),
    "stale": case(everywhere("progress_age_seconds", "1x40 301x80"), "ProgressStalled", "StaleViews"),
    "models missing": case(gauge("recommender", "view_missing_records", "1x40 20000x80"), "StaleViews"),
    "a view that stands still": case({VIEW_LAG: "1x40 301x80"}, "StaleViews"),
    "never caught up": case({CAUGHT_UP: "0x120"}, "StaleViews"),
    "catching up after a start": case({CAUGHT_UP: "1x40 0x4 1x76"}, at="11m30s"),
    "slow loop": case(slow("recommender", "closure_seconds", "0.15", "1.0"), "LoopSlow", at="20m"),
    "a dead letter": case({LETTERS: "0x40 1x80"}, "DeadLetters"),
    "a dead letter of long ago": case({LETTERS: "0x40 1x80"}, at="25m"),
    "dead letters in a burst": case({LETTERS: growing(100)}, "DeadLetters", "DeadLettersBurst"),
    "learner behind": case({PASSED: "0+15x40 600x80"}, "LearnerBehind", at="18m"),
    "learner a minute behind for a moment": case({PASSED: "0+15x40 600x6 690+15x73"}, at="12m"),
    "nobody learns": case({ELECTED: "1x40 0x80"}, "NoLearner"),
    "silent source": case({LAST: "0+15x60 900x60"}, "SourceSilent", at="25m"),
    "source silent for four minutes": case({LAST: "0+15x60 900x60"}, at="19m"),
    "broker away": case(gauge("collector", "bus_silence_seconds", LATE), "BrokerAway"),
    "broker away for a moment": case(gauge("collector", "bus_silence_seconds", "1x40 20x2 1x78"), at="11m"),
    "database away": case(gauge("analyzer", "database_answers", "1x40 0x80"), "DatabaseAway"),
    "database away for a moment": case(gauge("analyzer", "database_answers", "1x40 0x2 1x78"), at="11m"),
    "old spool": case(gauge("feedback", "spool_age_seconds", "1x40 400x80"), "SpoolAges", at="18m"),
    "spool that waits for four minutes": case(gauge("feedback", "spool_age_seconds", "1x40 240x80")),
    "full spool": case(gauge("collector", "spool_bytes", "0x40 850000000x80"), "SpoolFills", at="18m"),
    "half full spool": case(gauge("collector", "spool_bytes", steady(500000000))),
    "full disk": case(gauge("feedback", "disk_free_bytes", "9e9x40 15e8x80"), "DiskFills", at="18m"),
    "disk with room": case(gauge("feedback", "disk_free_bytes", steady(25e8))),
    "lost by the broker": case(gauge("collector", "spool_repairs_total", "0x40 1x80"), "BrokerLosesRecords"),
    "lost by the broker long ago": case(gauge("collector", "spool_repairs_total", "0x40 1x80"), at="25m"),
    "erasure that waits": case(
        gauge("analyzer", "erasure_notices_records", "0x40 2x80"), "ErasureWaits", at="22m"
    ),
    "erasure under way": case(gauge("analyzer", "erasure_notices_records", "0x40 2x20 0x60"), at="22m"),
    "drift": case({DRIFTS: "0x40 1x80"}, "ModelDrift"),
    "drift long ago": case({DRIFTS: "1x120"}),
    "worse than the prior": case({GAIN: steady(-0.05)}, "LearnerWorseThanPrior", at="25m"),
    "worse than the prior for a quarter": case({GAIN: "0.05x20 -0.05x60 0.05x40"}, at="19m30s"),
    "a little worse than the prior": case({GAIN: steady(-0.01)}, at="25m"),
    "wrong propensities": case(drawn(1.2), "PropensitiesWrong"),
    "propensities as far off as chance explains": case(drawn(1.02)),
    "busy": case(slow("analyzer", "loop_lag_seconds", "0.005", "0.05", "0.25"), "EventLoopBusy"),
    "busy, but not too busy": case(slow("analyzer", "loop_lag_seconds", "0.005", "0.05")),
    "files": case({series("process_open_fds", "collector"): "60x40 900x80"}, "FilesExhausted", at="18m"),
    "files below the limit": case({series("process_open_fds", "collector"): steady(800)}),
}


def scenario(name: str, case: Case) -> dict[str, Any]:
    firing = 'count by (alertname) (ALERTS{alertstate="firing"}) * 0 + 1'
    return {
        "name": name,
        "interval": "15s",
        "input_series": [{"series": s, "values": v} for s, v in {**healthy(), **case.change}.items()],
        "promql_expr_test": [
            {
                "expr": firing,
                "eval_time": case.at,
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(case.fires)
                ],
            }
        ],
    }


RULE_FILES = [str(path) for path in sorted(RULES.glob("*.yml"))]

GROUPS = [
    line.split(":")[1].strip()
    for file in ("recording.yml", "alerts.yml")
    for line in (RULES / file).read_text().splitlines()
    if line.startswith("  - name:")
]


def promtool_test(folder: Path, suite: Mapping[str, Any]) -> str:
    """What promtool found wrong; it prints everything and nothing."""
    file = folder / "tests.yml"
    # Trap: promtool takes groups in any order unless told, and then results differ by an evaluation.
    file.write_text(json.dumps({**suite, "group_eval_order": GROUPS}))
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    print(done.stdout)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    tests = [scenario(name, case) for name, case in CASES.items()]
    suite = {"rule_files": RULE_FILES, "evaluation_interval": "15s", "tests": tests}
    assert promtool_test(tmp_path, suite) == ""


DAY = 24 * 60
OPEN = " ".join(
    f"{start * 60}+60x{16 * 60 - 1} {(start + 16 * 60 - 1) * 60}x{8 * 60 - 1}"
    for start in range(0, 5 * DAY, DAY)
)
"""Five days of a shop that is open for sixteen hours, minute by minute."""

WEEK = {
    "always": f"0+60x{3 * DAY} {3 * DAY * 60}x{3 * DAY}",
    "shop": f"{OPEN} {(4 * DAY + 16 * 60 - 1) * 60}x{DAY}",
}
SILENT = {"71h30m": set(), "73h": {"always"}, "92h": {"always"}, "111h50m": {"always"}, "142h": {"shop"}}
"""By moment: what is silent. A source that always sends is missed within minutes and for days, a shop neither
at night nor when it has opened again, but when it stays closed the next day."""


def test_source_is_silent_only_against_its_own_rhythm(tmp_path: Path) -> None:
    name = LAST.split("{")[0]
    asked = [
        {
            "expr": 'sum by (source) (ALERTS{alertname="SourceSilent", alertstate="firing"})',
            "eval_time": at,
            "exp_samples": [{"labels": f'{{source="{source}"}}', "value": 1} for source in sorted(silent)],
        }
        for at, silent in SILENT.items()
    ]
    given = [
        {"series": series(name, "collector", source=source), "values": values}
        for source, values in WEEK.items()
    ]
    suite = {
        "rule_files": rules_without_intervals(tmp_path),
        "evaluation_interval": "10m",
        "tests": [{"interval": "1m", "input_series": given, "promql_expr_test": asked}],
    }
    assert promtool_test(tmp_path, suite) == ""


def test_no_alert_is_without_a_case_in_which_it_fires() -> None:
    text = (RULES / "alerts.yml").read_text()
    alerts = {line.split(":")[1].strip() for line in text.splitlines() if "- alert:" in line}
    assert alerts == {alert for case in CASES.values() for alert in case.fires}


@pytest.mark.parametrize(
    "arguments",
    [["config", "deploy/prometheus/prometheus.yml"], ["rules", *RULE_FILES]],
)
def test_prometheus_takes_config_and_rules(arguments: list[str]) -> None:
    done = subprocess.run(
        [tool("promtool"), "check", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
