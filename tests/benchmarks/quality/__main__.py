"""`make bench-quality`: how good the answers are on real baskets, in the running pipeline or its twin."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from deploy.local.demo.data import load
from tests.benchmarks.quality import alone, subjects, upsell
from tests.benchmarks.quality.alone import ZeroOutcomes
from tests.benchmarks.quality.exam import Exam, Subject
from tests.benchmarks.quality.pipeline import pipeline
from tests.benchmarks.quality.shadow import Shadow
from tests.benchmarks.quality.table import judge, keep, table, write_page
from tests.benchmarks.quality.twin import twin

CLAIMS = (*subjects.CLAIMS, alone.CLAIM, *upsell.CLAIMS)
MOST_UP_SELLS = 150
"""Households asked about dearer products: their catalogue is four times as large."""
WEEKS = (1, 52)
QUICK = argparse.Namespace(households=200, asked=60, weeks=(1, 46))


def main() -> None:
    """Examine, print, keep; ends with 1 where something that is promised does not hold and is to."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.quality", description=__doc__)
    parser.add_argument("--twin", action="store_true", help="in one process, without broker and database")
    parser.add_argument("--broker", choices=("embedded", "apache"), default="embedded")
    parser.add_argument("--households", type=int, default=600, help="that are learned from")
    parser.add_argument("--asked", type=int, default=600, help="that are asked about, of those")
    parser.add_argument("--quick", action="store_true", help="200 and 60, up to week 46")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--assert", dest="check", action="store_true", help="end with 1 where a bar is missed"
    )
    chosen = parser.parse_args(namespace=argparse.Namespace(weeks=WEEKS))
    if chosen.quick:
        vars(chosen).update(vars(QUICK))
    run, examined = asyncio.run(examine(chosen))
    examined += asyncio.run(examine_up_sells(chosen))
    verdicts = judge(CLAIMS, examined)
    print(f"\n{run}\n\n{table(verdicts)}")
    if not chosen.twin and not chosen.quick:
        keep(verdicts, run)
        write_page(verdicts, run)
    sys.exit(chosen.check and any(verdict.holds is False for verdict in verdicts))


async def examine(chosen: argparse.Namespace) -> tuple[str, list[Subject]]:
    """All subjects after the examination, and what was examined in a few words."""
    journey = load(chosen.households, chosen.weeks, chosen.seed, chosen.asked)
    together = subjects.Together([product["product_id"] for product in journey.products])
    shadow = Shadow(journey.products)
    examined: list[Subject] = [
        *subjects.subjects(together, chosen.seed),
        ZeroOutcomes(journey.products, shadow),
    ]
    began = time.monotonic()
    async with twin(shadow) if chosen.twin else pipeline(chosen.broker) as loop:
        hear = [together] if chosen.twin else [together, shadow]
        exam = Exam(loop, journey, examined, hear)
        await exam.run()
    what = "twin" if chosen.twin else f"pipeline, {chosen.broker} broker"
    asked = len(journey.scored)
    seconds = time.monotonic() - began
    run = (
        f"{what}, {chosen.households} households learned, {asked} asked, weeks 40 to {chosen.weeks[1]}, "
        f"seed {chosen.seed}: {exam.asked:,} requests in {exam.asking_seconds:.0f} of {seconds:.0f} s"
    )
    return run, examined


async def examine_up_sells(chosen: argparse.Namespace) -> list[Subject]:
    """What is examined on a catalogue of goods as they lie on the shelf."""
    asked = min(chosen.asked, MOST_UP_SELLS)
    journey = upsell.journey(chosen.households, chosen.seed, asked, chosen.weeks[1])
    examined = upsell.up_sells(journey.products)
    async with twin(Shadow(journey.products)) if chosen.twin else pipeline(chosen.broker) as loop:
        await Exam(loop, journey, examined, examined).run()
    return list(examined)


if __name__ == "__main__":
    main()
