"""Attack a platform: ``python -m tests.hostile [--cases 5000] [--seed N] [--memory]``; 1 where it gave way.

The platform is its own `closedloop up`, or with ``--memory`` the four services in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.e2e.rig import Up
from tests.hostile import bad_inputs, beside
from tests.hostile.fuzz import SERVICES, Told, by_bytes, by_document, processes, restarted, stands
from tests.hostile.stage import Stage, staged

PATIENCE = 240.0
"""Seconds until the platform must be ready, on a machine that does much else."""
OPERATIONS = {"collector": 27, "analyzer": 15, "recommender": 21, "feedback": 7}
"""About so many, to share the cases among the services."""


def main() -> int:
    """Everything in turn, a table each."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("--cases", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if options.memory:
        with tempfile.TemporaryDirectory() as folder, staged(Path(folder)) as stage:
            return report(attack(stage, options.cases, options.seed))
    up = Up("--ephemeral", "--no-holdout")
    try:
        up.wait_ready(PATIENCE)
        pids = processes(up)
        return report(attack(up, options.cases, options.seed) + restarted(up, pids))
    finally:
        up.close()


def report(wrong: list[str]) -> int:
    """Print what gave way; 1 where something did."""
    print("\n".join(wrong) if wrong else "\nnothing gave way")
    return int(bool(wrong))


def attack(up: Up | Stage, cases: int, seed: int) -> list[str]:
    """Attack ``up``; what gave way."""
    rows = [(bad, bad_inputs.post(up, bad)) for bad in bad_inputs.BAD]
    print(bad_inputs.table(rows))
    wrong = [f"{bad.name}: {heard}" for bad, heard in rows if not bad_inputs.as_agreed(bad, heard)]

    each = max(1, cases // (2 * sum(OPERATIONS.values())))
    told = [by_document(up, service, each, seed) for service in SERVICES]
    rest = max(cases // 4, cases - sum(one.cases for one in told))
    by_hand = by_bytes(up, rest)
    print("\n| service | by | cases | 2xx | 4xx | 5xx |\n|---|---|---|---|---|---|")
    for name, group in (("schemathesis", told), ("Hypothesis", list(by_hand.values()))):
        for one in group:
            print(line(one, name))
            wrong += one.failures + [f"{one.service}: 5xx"] * bool(one.server_errors)
    total = sum(one.cases for one in (*told, *by_hand.values()))
    print(f"\n{total} cases, {sum(one.server_errors for one in (*told, *by_hand.values()))} answered 5xx\n")

    bearer = up.client.headers["authorization"]
    found = asyncio.run(beside.measure(up.url("collector"), bearer, slow=200, huge=8, seconds=5.0, rounds=4))
    print(beside.table(found))
    ends = asyncio.run(beside.cut_off(up.url("collector"), bearer))
    print("; ".join(f"{name}: {end} after {seconds:.1f} s" for name, (end, seconds) in ends.items()))
    wrong += [f"well-behaved: {found.statuses}"] * (set(found.statuses) != {202})
    return wrong + stands(up)


def line(told: Told, name: str) -> str:
    """A row of the table."""
    classes = [
        sum(n for status, n in told.statuses.items() if status // 100 == hundred) for hundred in (2, 4, 5)
    ]
    return f"| {told.service} | {name} | {told.cases} | {' | '.join(map(str, classes))} |"


sys.exit(main())
