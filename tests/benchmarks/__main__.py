"""`make bench`: run the rows, print the table, write docs/benchmarks.md, add to results.csv."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import rows
from tests.benchmarks.dialects import dialects
from tests.benchmarks.learner import learner
from tests.benchmarks.rebuild import rebuild
from tests.benchmarks.rig import REST, Rig, platform
from tests.benchmarks.rows import Row

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
NOTES = "## What an event and an order cost"
"""From this heading on the page is written by hand, and kept."""
RESULTS = Path(__file__).with_name("results.csv")

INTRO = """# Benchmarks

Written by `make bench`. Every figure is a ratio within one run on one machine of two cores: the measured
service has one core to itself; load generator, broker, PostgreSQL and the other services share the second.
Loop closure, start and rebuild have both cores for everything.
"Bare" is a FastAPI endpoint that parses a JSON body and returns a constant (uvicorn, uvloop, httptools, no
access log). History: `tests/benchmarks/results.csv`.

"""


def measure(chosen: set[str]) -> list[Row]:
    """All rows, or those whose name is in ``chosen``."""

    def wanted(name: str) -> bool:
        return not chosen or name in chosen

    found: list[Row] = []
    shared: list[tuple[str, Callable[[Rig], Row | list[Row]]]] = [
        ("collector", lambda rig: rows.collector_single(rig, 16)),
        ("collector", lambda rig: rows.collector_single(rig, 128)),
        ("batches", rows.collector_batches),
        ("dialects", dialects),
        ("analyzer", rows.analyzer),
        ("recommender", lambda rig: rows.recommender(rig, 500, 10_000)),
        ("recommender-large", lambda rig: rows.recommender(rig, 5_000, 100_000)),
        ("closure", rows.loop_closure),
        ("learner", lambda rig: learner(rig, 500, 10_000)),
        ("learner-large", lambda rig: learner(rig, 5_000, 100_000)),
        ("rebuild", rebuild),
    ]
    for name, row in shared:
        if wanted(name):
            with platform("--no-holdout") as rig:
                made = row(rig)
                for one in made if isinstance(made, list) else [made]:
                    found.append(one)
                    print(line(one), flush=True)
    if wanted("start"):
        found.append(rows.start())
        print(line(found[-1]), flush=True)
    return found


def line(row: Row) -> str:
    """A row of the table in Markdown."""
    ratio = f"{row.ratio:.2f} ×" if row.ratio is not None else "–"
    holds = "holds" if row.holds else "**missed**"
    return f"| {row.what} | {row.measured} | {row.yardstick} | {ratio} | {row.bar} | {holds} |"


def main() -> None:
    """Measure, print, write."""
    os.sched_setaffinity(0, REST)
    measured = measure(set(sys.argv[1:]))
    head = "| what | measured | against | ratio | bar | |\n|---|---|---|---|---|---|\n"
    table = head + "\n".join(line(row) for row in measured) + "\n"
    print("\n" + table)
    if len(sys.argv) > 1:
        return
    _, heading, notes = PAGE.read_text().partition(NOTES)
    PAGE.write_text(f"{INTRO}Last run: {time.strftime('%Y-%m-%d')}.\n\n{table}\n{heading}{notes}")
    fresh = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(["when", "what", "measured", "against", "ratio", "holds"])
        for row in measured:
            writer.writerow(
                [time.strftime("%Y-%m-%dT%H:%M"), row.what, row.measured, row.yardstick, row.ratio, row.holds]
            )


if __name__ == "__main__":
    main()
