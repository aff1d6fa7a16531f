"""One dashboard per process: rate, errors, duration, saturation, and what only this one does."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.local.dashboards.own import DURATIONS, WORK
from deploy.local.dashboards.panels import (
    RATE,
    Limits,
    PanelBuilder,
    Query,
    choice,
    graph,
    here,
    page,
    quantiles,
    row,
)

STATUS_OF_ERRORS = 'status!~"2..|3.."'
SATURATED = "A process is saturated"


def service(name: str, about: str) -> dashboard.Dashboard:
    """The dashboard of process ``name``."""
    found = page(
        f"closedloop-{name}",
        name.capitalize(),
        about,
        [choice("instance", "Instance", f'label_values(up{{job="{name}"}}, instance)')],
    )
    found = found.with_row(row("Rate, errors, duration"))
    for panel in (*_requests(name), *DURATIONS.get(name, lambda: ())()):
        found = found.with_panel(panel)
    found = found.with_row(row("Saturation"))
    for panel in _saturation(name):
        found = found.with_panel(panel)
    found = found.with_row(row("Its own work"))
    for panel in WORK[name]():
        found = found.with_panel(panel)
    return found


def _requests(name: str) -> tuple[PanelBuilder, ...]:
    requests = f"closedloop_{name}_http_requests_total"
    failed = f"{requests}{{{here(name, STATUS_OF_ERRORS)}}}"
    return (
        graph(
            "Requests",
            "Answered requests by route.",
            "reqps",
            Query(f"sum by (route) (rate({requests}{{{here(name)}}}[{RATE}]))", "{{route}}"),
            stacked=True,
        ),
        graph(
            "Errors",
            "Answers other than success, by status. 4xx are the caller's, 503 is waiting, 500 is ours.",
            "reqps",
            Query(
                f"sum by (status) (rate({failed}[{RATE}])) or vector(0)",
                "{{status}}",
            ),
            limits=Limits(0.1, 10),
            runbook="Requests fail",
        ),
        graph(
            "Duration",
            "Time to answer, by route.",
            "s",
            *quantiles(f"closedloop_{name}_http_request_seconds", here(name), "route"),
        ),
    )


def _saturation(name: str) -> tuple[PanelBuilder, ...]:
    by = "sum by (instance)"
    return (
        graph(
            "CPU",
            "Cores in use. A process has one event loop: at 1 it is full, start another.",
            "short",
            Query(f"{by} (rate(process_cpu_seconds_total{{{here(name)}}}[{RATE}]))", "{{instance}}"),
            limits=Limits(0.8, 0.95),
            runbook=SATURATED,
            width=6,
        ),
        graph(
            "Event loop lag",
            "How late the event loop wakes a task: every request waits that long on top.",
            "s",
            *quantiles(f"closedloop_{name}_loop_lag_seconds", here(name), "instance"),
            limits=Limits(0.025, 0.25),
            runbook=SATURATED,
            width=6,
        ),
        graph(
            "Memory",
            "Resident memory.",
            "bytes",
            Query(f"{by} (process_resident_memory_bytes{{{here(name)}}})", "{{instance}}"),
            width=6,
        ),
        graph(
            "File descriptors",
            "Share of the allowed number that is open.",
            "percentunit",
            Query(
                f"max by (instance) (process_open_fds{{{here(name)}}} / process_max_fds{{{here(name)}}})",
                "{{instance}}",
            ),
            limits=Limits(0.6, 0.8),
            runbook=SATURATED,
            width=6,
        ),
    )


SERVICES = {
    "collector": "Takes events in: is the door open, and does everything leave the spool?",
    "analyzer": "Works events off, one transaction per slice: does it keep up?",
    "learner": "Learns from everybody: is one elected, and is it up to date?",
    "recommender": "Answers which offer to make: quickly, and on fresh models?",
    "feedback": "Takes in what came of offers.",
}
"""Processes, and the question that the dashboard of each answers."""
