"""``python -m tests.benchmarks.cost``: what an event costs with few customers and with many.

The mixed journal of the analyzer's row, evenly spread over customers so that most models are loaded, changed
and written once for few events: the dearest case. CPU and bytes are counted, not times, so that other work
on the machine moves them little.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import uvloop

from tests.benchmarks.analyzer import applied, mixed, records, send
from tests.benchmarks.rig import Rig, platform

EVENTS = 100_000
SIZES = (10_000, 100_000)

BYTES = """
    SELECT
        (SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
            WHERE nspname = 'analyzer' AND relkind = 'r' AND relname LIKE 'events\\_20%')::bigint AS events,
        pg_total_relation_size('analyzer.event_ids') AS ids,
        pg_total_relation_size('analyzer.models') AS models,
        pg_total_relation_size('analyzer.lessons') AS lessons,
        (SELECT sum(length(body)) FROM analyzer.models)::bigint AS bodies,
        (SELECT count(*) FROM analyzer.models) AS rows"""


@dataclass(frozen=True)
class Cost:
    """Microseconds of CPU an event, bytes an event and bytes a customer."""

    customers: int
    analyzer: float
    postgres: float
    journal: float
    events: float
    ids: float
    wal: float
    published: float
    model: float
    table: float
    view: float


def measure(rig: Rig, customers: int) -> Cost:
    """One journal through the analyzer of a platform that has never seen another."""
    noted = json.loads((rig.data_dir / "platform.json").read_text())
    journal = records(mixed(EVENTS, int(time.time() * 1000), customers))
    size = sum(len(r.value or b"") + len(r.key) for rows in journal.values() for r in rows)
    before = _now(rig, noted["postgres"])
    uvloop.run(send(noted["kafka"], journal))
    while applied(rig) < EVENTS:
        time.sleep(0.5)
    time.sleep(3.0)
    after = _now(rig, noted["postgres"])
    stored = asyncio.run(_row(noted["postgres"], BYTES))
    views = sum(
        file.stat().st_blocks * 512
        for file in rig.data_dir.rglob("data.mdb")
        if "customer-models" in str(file)
    )
    return Cost(
        customers,
        analyzer=1e6 * (after[0] - before[0]) / EVENTS,
        postgres=1e6 * (after[1] - before[1]) / EVENTS,
        journal=size / EVENTS,
        events=stored["events"] / EVENTS,
        ids=stored["ids"] / EVENTS,
        wal=(after[2] - before[2]) / EVENTS,
        published=(after[3] - before[3]) / EVENTS,
        model=stored["bodies"] / customers,
        table=stored["models"] / customers,
        view=views / customers,
    )


def _now(rig: Rig, postgres: str) -> tuple[float, float, int, float]:
    """CPU seconds of the analyzer and of PostgreSQL, bytes of WAL, models published."""
    wal = asyncio.run(_row(postgres, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS bytes"))["bytes"]
    return rig.cpu_seconds("analyzer"), _family(rig.pids["postgres"]), int(wal), _published(rig)


def _published(rig: Rig) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{rig.port('analyzer')}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("closedloop_analyzer_models_published_total "):
                return float(line.split()[1])
    return 0.0


def _family(pid: int) -> float:
    """CPU seconds of a process, its children and those it has buried."""
    tick = os.sysconf("SC_CLK_TCK")
    own = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    seconds = sum(map(int, own[11:15])) / tick
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            stat = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            # It has just ended; its time is among those buried from now on.
            continue
        seconds += (int(stat[11]) + int(stat[12])) / tick
    return seconds


async def _row(postgres: str, statement: str) -> asyncpg.Record:
    connection = await asyncpg.connect(postgres)
    try:
        return await connection.fetchrow(statement)
    finally:
        await connection.close()


LINES = (
    ("analyzer, µs CPU an event", "analyzer"),
    ("PostgreSQL, µs CPU an event", "postgres"),
    ("journal, bytes an event before compression", "journal"),
    ("`events` with indexes, bytes an event", "events"),
    ("`event_ids` with indexes, bytes an event (30 days)", "ids"),
    ("WAL, bytes an event", "wal"),
    ("models published an event", "published"),
    ("both models, bytes a customer", "model"),
    ("`models` with index and free room, bytes a customer", "table"),
    ("a view of models, bytes a customer", "view"),
)


def main() -> None:
    """Measure each size on a fresh platform and print the table."""
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    costs = []
    for size in sizes:
        with platform("--no-holdout") as rig:
            costs.append(measure(rig, size))
    print(f"| {EVENTS:,} events | " + " | ".join(f"{cost.customers:,} customers" for cost in costs) + " |")
    print("|---|" + "---|" * len(costs))
    for text, name in LINES:
        print(f"| {text} | " + " | ".join(f"{getattr(cost, name):,.1f}" for cost in costs) + " |")


if __name__ == "__main__":
    main()
