"""``python -m tests.survival``: trials until the time is up; prints and writes the table."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from itertools import count
from pathlib import Path

from tests.survival.catalogue import ROUND
from tests.survival.table import survival_table
from tests.survival.trial import Outcome, Trial, run
from tests.survival.world import forget_template


def main() -> int:
    """Exit status 1 where anything failed, 130 where somebody interrupted; the table comes in any case."""
    options = _options()
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes: list[Outcome] = []
    status = 0
    try:
        for trial, seed in _schedule(options):
            outcome = run(trial, seed)
            outcomes.append(outcome)
            print(outcome.describe(), flush=True)
            _write(options.report, outcomes)
    except KeyboardInterrupt:
        status = 130
    finally:
        forget_template()
    print("\n" + _write(options.report, outcomes))
    print(f"written to {options.report}")
    return status or int(any(outcome.failed for outcome in outcomes) or not outcomes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.survival", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="no trial begins after this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="trials whose name contains this")
    parser.add_argument("--report", type=Path, default=Path("build/survival.md"))
    return parser.parse_args()


def _schedule(options: argparse.Namespace):  # type: ignore[no-untyped-def]
    chosen: list[Trial] = [trial for trial in ROUND if options.only in trial.name]
    end = time.monotonic() + options.minutes * 60
    for turn in count():
        for trial in chosen:
            if time.monotonic() > end:
                return
            yield trial, options.seed + turn


def _write(report: Path, outcomes: list[Outcome]) -> str:
    table = survival_table(outcomes)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(table)
    return table


if __name__ == "__main__":
    sys.exit(main())
