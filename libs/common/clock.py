"""Time as an injected dependency: nothing else in the project reads the wall clock."""

from __future__ import annotations

import time
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
    """The machine's clock, never running backwards within this process."""

    def __init__(self) -> None:
        self._last = 0

    def now(self) -> Millis:
        self._last = max(self._last, time.time_ns() // 1_000_000)
        return self._last


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
