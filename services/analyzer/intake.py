"""When the analyzer consumes: as soon as its database is there, until too many records are bad."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random

from libs.common.bus.consume import ConsumeLoop
from libs.common.bus.sender import Backoff
from libs.common.errors import Fenced, Transient
from services.analyzer.errors import TooManyDeadLetters

_log = logging.getLogger(__name__)


class Intake:
    """The consume loop with a start that waits and an end that stays.

    Parameters
    ----------
    prepare:
        Makes the tables; `Transient` or `Fenced` while that cannot be done, which is waited for.
    loop:
        What then runs. Where it ends by `TooManyDeadLetters` the process lives on and `trouble` says why:
        started again it would only put the next thousand records among the dead letters.
    """

    def __init__(self, prepare: Callable[[], Awaitable[None]], loop: ConsumeLoop, random: Random) -> None:
        self._prepare = prepare
        self._loop = loop
        self._backoff = Backoff(random, 0.1, 5.0)
        self._trouble: str | None = "the database has not been reached yet"

    def trouble(self) -> str | None:
        """Why nothing is consumed, for ``/readyz``; None where all is well."""
        return self._trouble

    async def start(self) -> None:
        """Prepare at once where the database is there; else `run` goes on trying."""
        try:
            await self._prepare()
        except (Transient, Fenced) as error:
            self._trouble = str(error)
        else:
            self._trouble = None

    async def run(self) -> None:
        """Consume until the process is stopped."""
        while self._trouble is not None:
            pause = self._backoff.failed()
            _log.warning("the tables cannot be prepared, again in %.1f s: %s", pause, self._trouble)
            await asyncio.sleep(pause)
            await self.start()
        try:
            await self._loop.run()
        except TooManyDeadLetters as error:
            self._trouble = f"stopped: {error}"
            _log.critical("consuming has stopped: %s", error)
            await asyncio.Event().wait()
