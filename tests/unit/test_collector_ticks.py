"""Time passes in every partition: once a second, or as the data says."""

from __future__ import annotations

import pytest

from libs.common.clock import DAY, MINUTE, SECOND, JournalClock, ManualClock
from libs.common.contracts.customer_event import Tick
from libs.common.contracts.identity import PARTITIONS
from libs.common.errors import Transient
from libs.common.intake import JournalIntake
from libs.common.spool.memory import MemoryJournal
from services.collector.handlers import JournalTicker, WallTicker

NOW = 1_500_000_000_000


class Replay:
    """A collector's sense of time on a journal clock, turned by hand."""

    def __init__(self, start: int = 0) -> None:
        self.wall = ManualClock(1_760_000_000_000)
        self.clock = JournalClock(start)
        self.journal = MemoryJournal()
        self.intake = JournalIntake(self.clock, self.wall)
        self.ticker = JournalTicker(self.journal, self.intake, self.clock, self.wall)

    def run(self, millis: int) -> None:
        for _ in range(millis // 50):
            self.wall.tick(50)
            self.ticker.step()

    def ticks(self) -> list[int]:
        """Times of all ticks so far; each must be in every partition."""
        ticks = [event for event in self.journal.events if isinstance(event, Tick)]
        slices = [ticks[n : n + PARTITIONS] for n in range(0, len(ticks), PARTITIONS)]
        for one in slices:
            assert {tick.partition for tick in one} == set(range(PARTITIONS))
            assert len({tick.recorded_at for tick in one}) == 1
        return [one[0].recorded_at for one in slices]


def test_wall_ticker_tells_every_partition_the_time() -> None:
    journal, clock = MemoryJournal(), ManualClock(NOW)
    ticker = WallTicker(journal, clock)
    ticker.step()
    clock.tick(SECOND)
    ticker.step()
    assert [e.recorded_at for e in journal.events if isinstance(e, Tick)] == [NOW] * 12 + [NOW + SECOND] * 12


def test_nothing_ticks_before_the_first_event() -> None:
    replay = Replay()
    replay.run(1_000)
    assert replay.ticks() == []


def test_first_event_ticks_at_once_and_closes_after_100_ms() -> None:
    replay = Replay()
    replay.intake.admit(NOW)
    replay.ticker.step()
    assert replay.ticks() == [NOW]
    replay.run(50)
    assert replay.ticks() == [NOW]
    replay.run(100)
    assert replay.ticks() == [NOW, NOW + SECOND]


def test_closing_tick_does_not_trigger_itself() -> None:
    replay = Replay()
    replay.intake.admit(NOW)
    replay.run(200)
    assert replay.ticks() == [NOW, NOW + SECOND]
    replay.clock.advance(NOW + SECOND)  # progress repeats what we wrote
    replay.run(60_000)
    assert replay.ticks() == [NOW, NOW + SECOND]


def test_partitions_hear_of_every_minute_while_input_flows() -> None:
    replay = Replay()
    for second in range(0, 180, 10):
        replay.intake.admit(NOW + second * SECOND)
        replay.run(50)
    assert replay.ticks() == [NOW, NOW + MINUTE, NOW + 2 * MINUTE]


def test_late_input_is_closed_too() -> None:
    replay = Replay()
    replay.intake.admit(NOW)
    replay.run(500)
    replay.intake.admit(NOW - DAY)
    replay.run(500)
    assert replay.ticks() == [NOW, NOW + SECOND, NOW + 2 * SECOND]


def test_journal_time_moved_by_others_is_told_and_closed() -> None:
    replay = Replay()
    replay.intake.admit(NOW)
    replay.run(500)
    replay.clock.advance(NOW + 10 * SECOND)
    replay.run(500)
    replay.clock.advance(NOW + DAY)
    replay.run(500)
    assert replay.ticks()[2:] == [NOW + 11 * SECOND, NOW + DAY, NOW + DAY + SECOND]


def test_restart_closes_what_the_last_run_may_have_left_open() -> None:
    replay = Replay(NOW)
    replay.run(10_000)
    assert replay.ticks() == [NOW, NOW + SECOND]


def test_leap_moves_no_tick() -> None:
    replay = Replay()
    replay.intake.admit(NOW)
    replay.run(500)
    replay.intake.admit(NOW + 401 * DAY)
    replay.run(500)
    assert replay.ticks() == [NOW, NOW + SECOND, NOW + 2 * SECOND]


def test_tick_that_the_spool_refused_is_written_later() -> None:
    replay = Replay()
    replay.intake.admit(NOW)
    replay.journal.refuse = Transient("full")
    with pytest.raises(Transient):
        replay.ticker.step()
    replay.journal.refuse = None
    replay.run(500)
    assert replay.ticks() == [NOW, NOW + SECOND]
