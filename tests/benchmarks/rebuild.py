"""A rebuild of all customer models against the live analyzer that made them, in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import uvloop

from tests.benchmarks.analyzer import applied, mixed, records, send
from tests.benchmarks.rig import Rig
from tests.benchmarks.rows import Row

EVENTS = 300_000
CUSTOMERS = 9_973
"""Prime, or the kinds of events would go round in step with the customers: each would see but one kind."""


def rebuild(rig: Rig) -> Row:
    """The live analyzer alone on one core; then a rebuild with both, from its start to its end."""
    noted = json.loads((rig.data_dir / "platform.json").read_text())
    rig.alone("analyzer")
    journal = records(mixed(EVENTS, int(time.time() * 1000), CUSTOMERS))
    began = time.perf_counter()
    uvloop.run(send(noted["kafka"], journal))
    while applied(rig) < EVENTS:
        if time.perf_counter() - began > 300:
            raise RuntimeError(f"the analyzer took {applied(rig)} of {EVENTS} events in 300 s")
        time.sleep(0.1)
    live = EVENTS / (time.perf_counter() - began)
    rig.everywhere()
    began = time.perf_counter()
    done = subprocess.run(
        # Trap: the benchmark keeps to one core, and children inherit that.
        ["taskset", "-c", "0,1", sys.executable, "-m", "services.analyzer.rebuild"],
        env={
            **os.environ,
            "CLOSEDLOOP_DATA_DIR": str(rig.data_dir),
            "CLOSEDLOOP_KAFKA": noted["kafka"],
            "CLOSEDLOOP_POSTGRES": noted["postgres"],
        },
        stdout=subprocess.PIPE,
        check=True,
    )
    anew = EVENTS / (time.perf_counter() - began)
    told = json.loads(done.stdout)
    same = told["live"] == told["rebuilt"]
    return Row(
        f"rebuild from `analyzer.events`, {EVENTS:,} events, {CUSTOMERS:,} customers, both cores",
        f"{anew:,.0f} events/s{'' if same else ', MODELS DIFFER'}",
        f"live analyzer {live:,.0f} events/s",
        anew / live,
        "≥ 3 ×",
        anew >= 3 * live and same,
    )
