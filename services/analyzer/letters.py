"""Dead letters on topic ``dead-letters``, out of their table: at least once, and off every slice's path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Protocol

from libs.common.bus.ports import Bus, Producer
from libs.common.bus.sender import Backoff
from libs.common.contracts.topics import DEAD_LETTERS
from libs.common.errors import Fenced, Invalid, Transient
from services.analyzer.handlers.letters import record_of
from services.analyzer.model.letters import Buried

PAUSE = 1.0
AT_ONCE = 20
"""Each may be as large as a record."""
MOST_OF_A_KEY = 1_024
"""Bytes that are sent of the key of a record that is too large."""

_log = logging.getLogger(__name__)


class LetterStore(Protocol):
    """What telling of dead letters reads and writes."""

    async def unsent(self, partitions: Sequence[int], limit: int) -> list[Buried]:
        """Dead letters that have not been put on the bus, oldest first."""
        ...

    async def mark_sent(self, ids: Sequence[int]) -> None:
        """They are on the bus."""
        ...


class LetterPublisher:
    """Puts the dead letters of the partitions this process owns on the bus; the table is the outbox.

    A record keeps its key and value. Headers say where it came from (``spool``, ``seq``, ``cluster``,
    ``offset``) and why it is dead (``code``, ``reason``).
    """

    def __init__(
        self, bus: Bus, store: LetterStore, owned: Callable[[], Collection[int]], random: Random
    ) -> None:
        self._bus = bus
        self._store = store
        self._owned = owned
        self._backoff = Backoff(random, PAUSE, 30.0)
        self._producer: Producer | None = None

    async def run(self) -> None:
        """Look once a second, for ever."""
        while True:
            await asyncio.sleep(PAUSE)
            try:
                while await self._round():
                    pass
                self._backoff.succeeded()
            except (Transient, Fenced) as error:
                _log.info("dead letters are not on the bus yet: %s", error)
                await asyncio.sleep(self._backoff.failed())

    async def _round(self) -> bool:
        owned = sorted(self._owned())
        letters = await self._store.unsent(owned, AT_ONCE) if owned else []
        if not letters:
            return False
        self._producer = self._producer or self._bus.producer()
        for partition in sorted({buried.letter.partition for buried in letters}):
            theirs = [buried for buried in letters if buried.letter.partition == partition]
            await self._send(self._producer, partition, theirs)
            await self._store.mark_sent([buried.id for buried in theirs])
        return len(letters) == AT_ONCE

    async def _send(self, producer: Producer, partition: int, letters: Sequence[Buried]) -> None:
        try:
            await producer.send(DEAD_LETTERS, partition, [record_of(buried.letter) for buried in letters])
        except Invalid:
            if len(letters) > 1:
                for buried in letters:
                    await self._send(producer, partition, [buried])
                return
            # The headers made it too large. The table has it whole.
            letter = letters[0].letter
            record = record_of(letter)._replace(key=letter.key[:MOST_OF_A_KEY], value=b"")
            await producer.send(DEAD_LETTERS, partition, [record])
