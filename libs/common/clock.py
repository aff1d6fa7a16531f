"""Time as an injected dependency: nothing else in the project reads the wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

Millis = int
"""Milliseconds since 1970-01-01 UTC: the one representation of time on the bus and in models."""

SECOND: Millis = 1_000
MINUTE: Millis = 60 * SECOND
HOUR: Millis = 60 * MINUTE
DAY: Millis = 24 * HOUR


class Clock(Protocol):
    """Says what time it is for the platform."""

    def now(self) -> Millis:
        """The platform's present, in milliseconds since the epoch."""
        ...


class WallClock:
    """The machine's clock without its jumps back.

    Where the machine is set back, time goes on at half its pace until the machine has caught up: it never
    runs backwards and never stands still.

    Parameters
    ----------
    wall, monotonic:
        Nanoseconds since the epoch, and nanoseconds of a clock that nobody sets.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._last = 0
        self._seen = monotonic()

    def now(self) -> Millis:
        seen, last = self._monotonic(), self._wall()
        # Trap: not `max`, which costs as much as the rest. Each event is given its time here.
        if last < (least := self._last + (seen - self._seen) // 2):
            last = least
        self._last, self._seen = last, seen
        return last // 1_000_000

    def advance(self, to: Millis) -> None:
        """Go on from ``to``, what an earlier process saw last, unless that is more than a day ahead."""
        if to <= self.now() + DAY:
            self._last = max(self._last, to * 1_000_000)


class JournalClock:
    """The greatest journal time this process knows of; moved by what is accepted and by progress.

    Used where a platform runs with ``--clock journal``: a replay lives in the time of its data.
    """

    def __init__(self, start: Millis = 0) -> None:
        self._now = start

    def now(self) -> Millis:
        return self._now

    def advance(self, to: Millis) -> None:
        """Move on to ``to`` where that is later than now; never back."""
        self._now = max(self._now, to)


class ManualClock(JournalClock):
    """A clock that tests turn by hand."""

    def tick(self, by: Millis = SECOND) -> Millis:
        self._now += by
        return self._now
