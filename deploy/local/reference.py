"""The generated reference: settings, metrics, topics and HTTP as the code declares them (`make docs`)."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local import touchpoints
from libs.common.contracts.schemas import breaking_changes, schemas
from libs.common.contracts.topics import TOPICS
from libs.common.runtime import Service
from libs.common.settings import CommonSettings, list_declared
from services.analyzer import app as analyzer
from services.analyzer.learner import app as learner
from services.analyzer.learner.settings import LearnerSettings
from services.analyzer.settings import AnalyzerSettings
from services.collector import app as collector
from services.collector.settings import CollectorSettings
from services.feedback import app as feedback
from services.feedback.settings import FeedbackSettings
from services.recommender import app as recommender
from services.recommender.settings import RecommenderSettings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
GOLDEN = ROOT / "tests" / "contract" / "schemas"
NOTE = "<!-- Written by `make docs`; do not edit. -->\n\n"

ALL_PROCESSES = """Every process also shows `process_cpu_seconds_total`, `process_resident_memory_bytes`,
`process_virtual_memory_bytes`, `process_open_fds`, `process_max_fds` and `process_start_time_seconds`. How to
watch them: [monitoring](../monitoring.md).

"""


@dataclass(frozen=True)
class Process:
    """A process of the platform as the reference sees it."""

    name: str
    settings: type[CommonSettings]
    create: Callable[[Any], Service]


PROCESSES = (
    Process("collector", CollectorSettings, collector.create),
    Process("analyzer", AnalyzerSettings, analyzer.create),
    Process("recommender", RecommenderSettings, recommender.create),
    Process("feedback", FeedbackSettings, feedback.create),
    Process("learner", LearnerSettings, learner.create),
)


def pages() -> dict[str, str]:
    """Every page of the reference by file name, as it should be now."""
    with tempfile.TemporaryDirectory() as folder:
        services = {
            process.name: process.create(process.settings(data_dir=Path(folder) / process.name))
            for process in PROCESSES
        }
        found = {f"openapi-{name}.json": _json(service.app.openapi()) for name, service in services.items()}
        for service in services.values():
            # Metrics of requests are declared with the routes, when the application is put together.
            service.app.build_middleware_stack()
        found["metrics.md"] = _metrics(services)
    found["settings.md"] = _settings()
    found["topics.md"] = _topics()
    found["../touchpoints.md"] = touchpoints.page()
    return found


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    return line(head) + line(("---",) * len(head)) + "".join(line(row) for row in rows) + "\n"


def _settings() -> str:
    """Settings of all processes; those all have in common are told once."""
    common = {line.variable for line in list_declared(CommonSettings)}
    text = "# Settings\n\n" + NOTE + "Read from the environment, frozen at start. Any may come from a file: "
    text += "`CLOSEDLOOP_X_FILE` names the file that holds `CLOSEDLOOP_X`.\n\n## All processes\n\n"
    head = ("variable", "default", "what it is")
    shared = [
        line for line in list_declared(CommonSettings) if not line.variable.startswith("CLOSEDLOOP_COMMON_")
    ]
    text += _table(head, [(f"`{s.variable}`", f"`{s.default}`", s.description) for s in shared])
    for process in PROCESSES:
        own = [line for line in list_declared(process.settings) if line.variable not in common]
        text += f"## {process.name}\n\n"
        text += _table(head, [(f"`{s.variable}`", f"`{s.default}`", s.description) for s in own])
    return text


def _metrics(services: dict[str, Service]) -> str:
    """Metrics of all processes: a closed set, every label with its values."""
    text = "# Metrics\n\n" + NOTE + ALL_PROCESSES
    for name, service in services.items():
        rows = [
            (
                f"`{metric.name}`",
                metric.kind,
                "; ".join(f"{label}: {', '.join(values)}" for label, values in metric.labels.items()) or "–",
                metric.help,
            )
            for metric in service.app.metrics.declared
        ]
        text += f"## {name}\n\n" + _table(("metric", "kind", "labels", "what it says"), rows)
    return text


def _topics() -> str:
    """Topics with the settings they get where the broker takes them."""
    rows = [
        (f"`{t.name}`", str(t.partitions), ", ".join(f"{k}={v}" for k, v in sorted(t.config.items())))
        for t in TOPICS
    ]
    text = "# Topics\n\n" + NOTE + _table(("topic", "partitions", "settings"), rows)
    return text + "Record schemas: `tests/contract/schemas/`.\n"


def write_schemas() -> list[str]:
    """Record compatible additions in the golden schemas; returns what is breaking and was not written."""
    broken: list[str] = []
    for name, schema in schemas().items():
        path = GOLDEN / f"{name}.json"
        current = json.loads(json.dumps(schema))
        old = json.loads(path.read_text()) if path.exists() else current
        found = breaking_changes(old, current)
        broken += [f"{name}: {change}" for change in found]
        if not found:
            path.write_text(_json(current))
    return broken


def main() -> int:
    """Write everything; exit status 1 where a message changed in a way its readers cannot take."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)
    broken = write_schemas()
    for line in broken:
        print(f"breaking change, needs a new schema version: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
