"""When an event counts, on both clocks."""

from __future__ import annotations

import pytest

from libs.common.clock import DAY, MINUTE, SECOND, JournalClock, ManualClock
from libs.common.intake import Admitted, JournalIntake, WallIntake

NOW = 1_760_000_000_000
YEAR_1 = -62_135_596_800_000
YEAR_9999 = 253_402_300_799_999


@pytest.mark.parametrize(
    ("offset", "learned"),
    [
        (0, True),
        (-30 * DAY, True),
        (-30 * DAY - 1, False),
        (5 * MINUTE, True),
        (5 * MINUTE + 1, False),
    ],
)
def test_wall_clock_learns_within_its_window(offset: int, learned: bool) -> None:
    times = WallIntake(ManualClock(NOW)).admit(NOW + offset)
    flags = () if learned else ("out_of_window",)
    assert times == Admitted(NOW + offset, NOW, learned, flags)


def test_wall_clock_takes_now_where_no_time_is_given() -> None:
    assert WallIntake(ManualClock(NOW)).admit(None) == Admitted(NOW, NOW, True, ())


@pytest.mark.parametrize("at", [YEAR_1, NOW - 31 * DAY, NOW])
def test_import_takes_any_past(at: int) -> None:
    assert WallIntake(ManualClock(NOW)).admit(at, True) == Admitted(at, NOW, True, ("imported",))


def test_import_does_not_learn_the_future() -> None:
    times = WallIntake(ManualClock(NOW)).admit(YEAR_9999, True)
    assert times == Admitted(YEAR_9999, NOW, False, ("imported", "out_of_window"))


def journal(at: int = NOW) -> tuple[JournalClock, JournalIntake]:
    clock = JournalClock(at)
    return clock, JournalIntake(clock, ManualClock(NOW))


def test_journal_clock_records_when_it_occurred_and_moves_on() -> None:
    clock, intake = journal()
    assert intake.admit(NOW + 3 * DAY) == Admitted(NOW + 3 * DAY, NOW + 3 * DAY, True, ())
    assert clock.now() == NOW + 3 * DAY


def test_journal_clock_never_goes_back() -> None:
    clock, intake = journal()
    assert intake.admit(NOW - 300 * DAY).recorded_at == NOW - 300 * DAY
    assert intake.admit(YEAR_1) == Admitted(YEAR_1, YEAR_1, True, ())
    assert clock.now() == NOW


@pytest.mark.parametrize(("ahead", "moved"), [(400 * DAY, True), (400 * DAY + 1, False)])
def test_journal_clock_is_not_moved_by_a_leap(ahead: int, moved: bool) -> None:
    clock, intake = journal()
    times = intake.admit(NOW + ahead)
    assert times.learn is moved
    assert times.flags == (() if moved else ("out_of_window",))
    assert times.recorded_at == clock.now() == (NOW + ahead if moved else NOW)


def test_first_event_sets_a_journal_clock_but_not_beyond_the_wall() -> None:
    clock, intake = journal(0)
    assert intake.admit(YEAR_9999) == Admitted(YEAR_9999, 0, False, ("out_of_window",))
    assert intake.admit(YEAR_1).learn
    assert clock.now() == 0
    intake.admit(NOW - 3_000 * DAY)
    assert clock.now() == NOW - 3_000 * DAY


def test_journal_clock_gives_events_without_time_its_present() -> None:
    _, intake = journal()
    intake.admit(NOW + SECOND)
    assert intake.admit(None) == Admitted(NOW + SECOND, NOW + SECOND, True, ())
