"""`make bench-quality`: how good the answers are on real baskets, in the running pipeline or its twin."""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import AbstractAsyncContextManager

from deploy.local.demo.data import load
from tests.benchmarks.quality.exam import Exam, Subject
from tests.benchmarks.quality.loop import Loop
from tests.benchmarks.quality.pipeline import pipeline
from tests.benchmarks.quality.subjects import subjects
from tests.benchmarks.quality.twin import twin

WEEKS = (1, 52)


def main() -> None:
    """Examine, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.quality", description=__doc__)
    parser.add_argument("--twin", action="store_true", help="in one process, without broker and database")
    parser.add_argument("--broker", choices=("embedded", "apache"), default="embedded")
    parser.add_argument("--quick", action="store_true", help="200 households learned, 60 asked")
    parser.add_argument("--households", type=int, default=600)
    parser.add_argument("--asked", type=int, default=600)
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.households, chosen.asked = 200, 60
    made = twin() if chosen.twin else pipeline(chosen.broker)
    examined = asyncio.run(examine(made, chosen.households, chosen.asked, chosen.seed))
    for subject in examined:
        board = subject.board
        print(f"{subject.name}, {len(board)} baskets of {len(set(board.customers))} households")
        for name in board.rows:
            print(f"  {name:18} {board.mean(name, 'ndcg'):.4f}")


async def examine(
    made: AbstractAsyncContextManager[Loop], households: int, asked: int, seed: int
) -> list[Subject]:
    """All subjects, after the examination of ``made``."""
    journey = load(households, WEEKS, seed, asked)
    examined = subjects([product["product_id"] for product in journey.products], seed)
    began = time.monotonic()
    async with made as loop:
        exam = Exam(loop, journey, examined)
        await exam.run()
    seconds = time.monotonic() - began
    print(f"{exam.asked:,} requests in {exam.asking_seconds:.0f} of {seconds:.0f} s")
    return list(examined)


if __name__ == "__main__":
    main()
