"""Keeps the embedded broker small: it only grows, so an empty one takes its place before it is too large."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import psutil  # type: ignore[import-untyped]

LOOK_SECONDS = 1.0
SETTLE_SECONDS = 30.0
"""Before which a new broker does not hold all that is published after a loss: customer models, catalogue."""

QUIET_SECONDS = 10.0
GROWTH = 1.02
"""It has settled when it has not become larger by more than this for `QUIET_SECONDS`."""

SETTLE_MOST_SECONDS = 600.0
"""After which growth is load and no republication."""

ROOM = 2.0
"""Times its size when settled that a broker may grow to, where that is above the limit."""


class Recycling:
    """Decides when a broker is due; time and sizes are told, so that it can be tested without either.

    A broker that is large because the models themselves are must not be replaced again and again: then it
    may grow to `ROOM` times what it needed when it had settled.

    Parameters
    ----------
    limit:
        Bytes of resident memory above which it is due.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._since: float | None = None
        self._settled: int | None = None
        self._largest, self._grew = 0, 0.0

    @property
    def most(self) -> float:
        """Bytes above which it is due."""
        return max(self._limit, ROOM * (self._settled or 0))

    def began(self, now: float) -> None:
        """A broker that is to be filled again began at ``now`` (seconds, monotonic)."""
        self._since, self._settled = now, None
        self._largest, self._grew = 0, now

    def due(self, size: int, now: float) -> bool:
        """Whether a broker of ``size`` bytes is to be replaced at ``now``."""
        if self._since is None:
            # The first broker of a new platform has nothing to be filled with.
            return size > self._limit
        if self._settled is None:
            if size > GROWTH * self._largest:
                self._largest, self._grew = size, now
            age = now - self._since
            growing = now - self._grew < QUIET_SECONDS and age < SETTLE_MOST_SECONDS
            if growing or age < SETTLE_SECONDS:
                return False
            self._settled = size
        return size > self.most


class BrokerKeeper:
    """Looks at the broker's memory once a second and has it replaced.

    Parameters
    ----------
    refilled:
        Whether even the first broker is being filled with what a database holds.

    Attributes
    ----------
    recycled:
        How often that was done.
    """

    def __init__(
        self,
        limit: int,
        pid: Callable[[], int | None],
        replace: Callable[[], Awaitable[None]],
        say: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        refilled: bool = False,
    ) -> None:
        self._recycling = Recycling(limit)
        if refilled:
            self._recycling.began(monotonic())
        self._pid = pid
        self._replace = replace
        self._say = say
        self._monotonic = monotonic
        self._known = pid()
        self._asked = asyncio.Event()
        self.recycled = 0

    def ask(self) -> None:
        """Have it replaced now: what was erased is then gone from its memory too."""
        self._asked.set()

    async def run(self) -> None:
        """Keep it small for ever."""
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                pass
            await self.look()

    async def look(self) -> None:
        """Replace the broker where it is due."""
        pid = self._pid()
        size = _resident(pid)
        if pid is None or size is None:
            return
        if pid != self._known:
            self._known = pid
            self._recycling.began(self._monotonic())
        if not self._asked.is_set() and not self._recycling.due(size, self._monotonic()):
            return
        self._asked.clear()
        self.recycled += 1
        self._say(f"broker recycled at {size >> 20} MB: what is not applied and all models are sent again")
        await self._replace()


def _resident(pid: int | None) -> int | None:
    """Bytes of memory a process has in use; None where there is no such process."""
    try:
        return None if pid is None else int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return None
