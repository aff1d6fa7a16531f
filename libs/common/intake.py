"""When an event counts: the rules of the two clocks, shared by the services that take events from outside."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from libs.common.clock import DAY, MINUTE, Clock, JournalClock, Millis

PAST: Millis = 30 * DAY
"""How old an event may be on a wall clock and still be learned."""
FUTURE: Millis = 5 * MINUTE
"""How far a sender's clock may run ahead."""
SKEW: Millis = MINUTE
"""How far a sender's clock may be off before his times are corrected."""
LEAP: Millis = 400 * DAY
"""On a journal clock, an event further ahead than this moves nothing."""

OUT_OF_WINDOW = "out_of_window"
IMPORTED = "imported"


class Admitted(NamedTuple):
    """The times an event is kept with; ``learn`` and ``flags`` as in `Touchpoint`."""

    occurred_at: Millis
    recorded_at: Millis
    learn: bool
    flags: tuple[str, ...]


class Intake(Protocol):
    """Gives each accepted event its times."""

    def admit(self, occurred_at: Millis | None, imported: bool = False) -> Admitted:
        """Times of an event said to have happened at ``occurred_at`` (now, where nothing was said)."""
        ...

    def skew(self, sent_at: Millis) -> Millis:
        """What to add to the times of a sender who says that it is ``sent_at``."""
        ...


class WallIntake:
    """Platform on the machine's clock: recorded now, learned from within −30 days … +5 minutes.

    An import takes any past time. What lies outside is kept, flagged and not learned from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def admit(self, occurred_at: Millis | None, imported: bool = False) -> Admitted:
        now = self._clock.now()
        flags = (IMPORTED,) if imported else ()
        if occurred_at is None:
            return Admitted(now, now, True, flags)
        if occurred_at > now + FUTURE or (occurred_at < now - PAST and not imported):
            return Admitted(occurred_at, now, False, (*flags, OUT_OF_WINDOW))
        return Admitted(occurred_at, now, True, flags)

    def skew(self, sent_at: Millis) -> Millis:
        off = self._clock.now() - sent_at
        return off if abs(off) > SKEW else 0


class JournalIntake:
    """Platform that lives in the time of its data: recorded when it occurred.

    ``clock`` is the greatest journal time known and is moved by what is admitted. While it says no more
    than that it began at 1970, the wall clock bounds how far the first event may set it. ``admitted``
    counts calls, so that who ticks can see that there was input.
    """

    def __init__(self, clock: JournalClock, wall: Clock) -> None:
        self._clock = clock
        self._wall = wall
        self.admitted = 0

    def admit(self, occurred_at: Millis | None, imported: bool = False) -> Admitted:
        self.admitted += 1
        now = self._clock.now()
        flags = (IMPORTED,) if imported else ()
        if occurred_at is None:
            return Admitted(now, now, True, flags)
        # Trap: without this bound one event of the year 9999 would make all later ones a past of 8,000 years.
        if occurred_at > (now if now >= LEAP else self._wall.now()) + LEAP:
            return Admitted(occurred_at, now, False, (*flags, OUT_OF_WINDOW))
        self._clock.advance(occurred_at)
        return Admitted(occurred_at, occurred_at, True, flags)

    def skew(self, sent_at: Millis) -> Millis:
        # The times of the data are the clock here: no other could correct them.
        return 0
