"""``python -m tests.survival``: trials until the time is up; prints and writes the table."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tests.survival.catalogue import ROUND
from tests.survival.digests import prove
from tests.survival.learned import LONG, prove_learned
from tests.survival.table import survival_table
from tests.survival.trial import Outcome, Trial, run
from tests.survival.world import forget_template


def main() -> int:
    """Exit status 1 where anything failed, 130 where somebody interrupted; the table comes in any case."""
    options = _options()
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes: list[Outcome] = []
    digests: list[str] = []
    status = 0
    try:
        if options.touchpoints:
            status = _prove(
                digests, "customer models", lambda say: prove(options.touchpoints, options.seed, say)
            )
        if options.learned:
            status |= _prove(
                digests, "learned models", lambda say: prove_learned(LONG, options.seed, options.learned, say)
            )
        for trial, seed in _schedule(options):
            outcome = run(trial, seed)
            outcomes.append(outcome)
            print(outcome.describe(), flush=True)
            _write(options.report, outcomes, digests)
    except KeyboardInterrupt:
        status = 130
    finally:
        forget_template()
    print("\n" + _write(options.report, outcomes, digests))
    print(f"written to {options.report}")
    return status or int(any(outcome.failed for outcome in outcomes) or not (outcomes or digests))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.survival", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="no trial begins after this")
    parser.add_argument("--touchpoints", type=int, default=0, help="prove equal digests over so many first")
    parser.add_argument("--learned", type=int, default=0, help="prove equal learned models, killing so often")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--once", action="store_true", help="one round, however long it takes")
    parser.add_argument("--exactly", default="", help="the trial of this name alone")
    parser.add_argument("--only", default="", help="trials whose name contains this")
    parser.add_argument("--report", type=Path, default=Path("build/survival.md"))
    return parser.parse_args()


def _schedule(options: argparse.Namespace):  # type: ignore[no-untyped-def]
    chosen: list[Trial] = [
        trial for trial in ROUND if options.only in trial.name and options.exactly in ("", trial.name)
    ]
    if not chosen:
        return
    if options.once:
        yield from ((trial, options.seed) for trial in chosen)
        return
    end = time.monotonic() + options.minutes * 60
    for turn in count():
        for trial in chosen:
            if time.monotonic() > end:
                return
            yield trial, options.seed + turn


def _prove(said: list[str], what: str, proof: Callable[[Callable[[str], None]], list[str]]) -> int:
    """Several runs over the same journey; 1 where their models differ or they could not be made."""

    def say(line: str) -> None:
        said.append(f"- {line}")
        print(line, flush=True)

    try:
        wrong = proof(say)
    except Exception:
        wrong = [traceback.format_exc(limit=4)]
    say(f"one digest of all {what}" if not wrong else "FAILED: " + "; ".join(wrong))
    return int(bool(wrong))


def _write(report: Path, outcomes: list[Outcome], digests: list[str]) -> str:
    table = survival_table(outcomes) if outcomes else ""
    if digests:
        table += "\nThe same models, whoever folds and whatever dies:\n\n" + "\n".join(digests) + "\n"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(table)
    return table


if __name__ == "__main__":
    sys.exit(main())
