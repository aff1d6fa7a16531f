"""Whether records that the bus acknowledged have been lost before the analyzer saw them."""

from __future__ import annotations

from enum import Enum

FIRST = 4.0
MOST = 60.0
_SURE = 2
"""So many probes, one after the other, that the analyzer comes exactly as far as."""


class Verdict(Enum):
    """What to do about one partition."""

    FINE = "fine"
    PROBE = "probe"
    """Send the one record after `applied` again."""
    LOST = "lost"
    """Send everything after `applied` again."""


class Suspicion:
    """Judges one partition of one spool by what the analyzer says of it.

    The analyzer applies nothing past a missing number, so a loss shows as a partition that stands still
    below what was shipped. So does an analyzer that is late or away: therefore only the one record it waits
    for is sent again, as a probe. It lies behind all that was shipped before it: if the analyzer comes
    exactly as far as the probe, stands still, and comes exactly as far as the next one, the records
    between are not on the bus.

    Parameters
    ----------
    first, most:
        Seconds without movement before the first probe, and at most before any further one.
    """

    def __init__(self, first: float = FIRST, most: float = MOST) -> None:
        self._first = first
        self._most = most
        self._still_since: float | None = None
        self._wait = first
        self._applied = 0
        self._probe = 0
        self._exact = 0

    def look(self, now: float, applied: int, shipped: int) -> Verdict:
        """Judge at ``now`` (monotonic seconds) by the highest numbers applied and acknowledged."""
        if applied >= shipped:
            self._still_since, self._exact = None, 0
            return Verdict.FINE
        if self._still_since is None or applied != self._applied:
            # Trap: once says nothing. Who was paused with one record in hand, and ticks are one a second,
            # comes as far as that first; and if he was paused for long he joins his group anew before he
            # goes on.
            exactly = self._still_since is not None and applied == self._probe
            self._exact = self._exact + 1 if exactly else 0
            self._applied, self._probe = applied, 0
            self._still_since, self._wait = now, self._first
            return Verdict.LOST if self._exact >= _SURE else Verdict.FINE
        if now - self._still_since < self._wait:
            return Verdict.FINE
        self._still_since, self._wait = now, min(self._most, 2 * self._wait)
        self._probe = applied + 1
        return Verdict.PROBE
