"""Appends for ever and prints the id of each event once it is durable; killed by test_spool."""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from libs.common.bus.memory import MemoryBus
from libs.common.clock import WallClock
from libs.common.contracts.customer_event import Touchpoint
from libs.common.journal import Durability
from libs.common.progress import ProgressBoard
from libs.common.spool.journal import SpoolJournal, open_journal


async def post(journal: SpoolJournal, name: str) -> None:
    for number in count():
        event = Touchpoint(
            id=f"{name}-{number}",
            source="shop",
            customer=f"c{number % 50}",
            occurred_at=number,
            recorded_at=number,
            type="product_viewed",
            channel="web",
        )
        await journal.durable(journal.append([event]), Durability.SPOOL)
        sys.stdout.write(event.id + "\n")
        sys.stdout.flush()


async def main() -> None:
    bus = MemoryBus()
    bus.go_away()
    journal = open_journal(Path(sys.argv[1]), "collector", bus, ProgressBoard(), WallClock())
    await journal.start()
    await asyncio.gather(*(post(journal, f"w{number}") for number in range(8)))


asyncio.run(main())
