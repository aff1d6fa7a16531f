"""Steps of the machine's clock: time neither runs back nor stands still, and nothing waits on it."""

from __future__ import annotations

import asyncio
from itertools import count, pairwise
from pathlib import Path

from libs.common.bus.memory import MemoryBus
from libs.common.clock import DAY, HOUR, SECOND, WallClock
from libs.common.contracts.customer_event import SpoolReported, Tick, Touchpoint, decode_event
from libs.common.contracts.progress import Progress
from libs.common.contracts.topics import CUSTOMER_EVENTS, TOPICS
from libs.common.progress import ProgressBoard
from libs.common.spool.journal import SpoolJournal, open_journal
from libs.common.spool.memory import MemoryJournal
from services.collector.handlers import WallTicker

START = 1_790_000_000_000


class Machine:
    """A machine's two clocks, turned by hand, in milliseconds."""

    def __init__(self) -> None:
        self.wall = START
        self.monotonic = 5_000
        self.clock = self.boot()

    def boot(self) -> WallClock:
        return WallClock(lambda: self.wall * 1_000_000, lambda: self.monotonic * 1_000_000)

    def run(self, milliseconds: int) -> int:
        self.wall += milliseconds
        self.monotonic += milliseconds
        return self.clock.now()


def test_clock_follows_the_machine_and_its_jumps_ahead() -> None:
    machine = Machine()
    assert machine.clock.now() == START
    assert machine.run(700) == START + 700
    machine.wall += HOUR
    assert machine.run(1) == START + HOUR + 701


def test_time_goes_on_at_half_its_pace_until_the_machine_has_caught_up() -> None:
    machine = Machine()
    machine.run(1_000)
    machine.wall -= HOUR
    assert machine.run(0) == START + SECOND
    assert machine.run(10 * SECOND) == START + 6 * SECOND
    # However often one looks.
    for _ in range(1_000):
        machine.run(1)
    assert machine.clock.now() == START + 6 * SECOND + 500
    machine.run(3 * HOUR)
    assert machine.clock.now() == machine.wall


def test_clock_goes_on_where_the_process_before_was_but_not_from_next_year() -> None:
    machine = Machine()
    later = machine.boot()
    later.advance(START + HOUR)
    assert later.now() == START + HOUR
    misled = machine.boot()
    misled.advance(START + 2 * DAY)
    assert misled.now() == START


def test_ticks_go_on_moving_time_after_the_machine_was_set_back() -> None:
    machine = Machine()
    journal = MemoryJournal()
    ticker = WallTicker(journal, machine.clock)
    for step in (0, -HOUR, 0, 2 * HOUR, -3 * HOUR, 0):
        machine.wall += step
        machine.run(SECOND)
        ticker.step()
    told = [event.recorded_at for event in journal.events if isinstance(event, Tick) and not event.partition]
    assert len(told) == 6
    assert all(later > earlier for earlier, later in pairwise(told))


class Leaping:
    """Ahead and back by a day and more at each look."""

    def __init__(self) -> None:
        self._turn = count()

    def now(self) -> int:
        turn = next(self._turn)
        return START + (turn % 2) * 3 * DAY - (turn % 3) * 2 * DAY


async def test_no_shipping_report_or_release_waits_on_a_clock_that_leaps(tmp_path: Path) -> None:
    bus, board = MemoryBus(), ProgressBoard()
    await bus.ensure_topics(TOPICS)
    journal: SpoolJournal = open_journal(tmp_path, "collector", bus, board, Leaping(), pace=0.005)
    await journal.start()
    for number in range(30):
        event = Touchpoint(
            id=f"e{number}",
            source="shop",
            customer=f"c{number}",
            occurred_at=1,
            recorded_at=1,
            type="t",
            channel="web",
        )
        journal.append([event])
        await asyncio.sleep(0.001)
    async with asyncio.timeout(10):
        while journal.unapplied() or journal._store.floor != journal._store.committed:
            for partition, seq in journal.shipped().items():
                board.put(
                    Progress(
                        partition=partition,
                        cluster="memory-1",
                        epoch=1,
                        applied={journal.spool: seq},
                        journal_time=1,
                        models_offset=0,
                    )
                )
            await asyncio.sleep(0.005)
    events = [decode_event(message.value or b"") for message in bus.records(CUSTOMER_EVENTS)]
    assert max(e.accepted.get("shop", 0) for e in events if isinstance(e, SpoolReported)) == 30
    await journal.stop()
