"""What an erasure leaves to be done after its commit: telling other partitions, dropping tombstones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from random import Random
from typing import NamedTuple, Protocol

from libs.common.bus.ports import Bus, Producer, Record
from libs.common.bus.sender import Backoff
from libs.common.contracts.customer_event import SCHEMA, encode_event
from libs.common.contracts.identity import partition_of
from libs.common.contracts.topics import CUSTOMER_EVENTS, HEADER_SCHEMA
from libs.common.errors import Fenced, Transient
from services.analyzer.handlers.erasing import notice_event
from services.analyzer.metrics import AnalyzerMetrics
from services.analyzer.model.erasures import Notice, SuppressedRow
from services.analyzer.ports import ErasedKeys, ErrandStore, PartitionState, Publisher

PAUSE = 0.1
LONGEST_PAUSE = 2.0
AGAIN = 5.0
"""Seconds after which a notice that was not acted on is put on the journal again."""
DROPPED_KEPT = 3600.0
"""Seconds for which the withdrawal of an idle visitor is kept at least once it is published: should the
broker be lost before a reader has it, it is published again and not taken for an erasure."""

_log = logging.getLogger(__name__)


class Owner(Protocol):
    """Who owns partitions, and says when there may be errands: `consumer.AnalyzerProcessor`."""

    errands: asyncio.Event

    def standing(self) -> dict[int, PartitionState]:
        """The partitions owned, as last committed."""
        ...

    def suppressed(self) -> list[SuppressedRow]:
        """All keys erased in them."""
        ...


class _Published(NamedTuple):
    """How far a partition was published at a time, and long before that."""

    since: float
    number: int
    before: int


class Errands:
    """Runs the errands of the partitions this process owns, until none is left.

    A notice is a row of the slice that made it and stays one until its target's partition has committed
    what it asks for, so neither a crash nor the loss of the broker loses it; sent twice it is a duplicate.
    """

    def __init__(
        self,
        processor: Owner,
        store: ErrandStore,
        publisher: Publisher,
        bus: Bus,
        random: Random,
        metrics: AnalyzerMetrics,
        file: ErasedKeys,
    ) -> None:
        self._processor = processor
        self._store = store
        self._publisher = publisher
        self._bus = bus
        self._backoff = Backoff(random, 0.2, 5.0)
        self._metrics = metrics
        self._file = file
        self._sent: dict[bytes, float] = {}
        self._long_ago: dict[int, _Published] = {}
        self._producer: Producer | None = None

    async def run(self) -> None:
        """Wait for errands and do them, and see to dropped models now and then, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DROPPED_KEPT):
                    await self._processor.errands.wait()
            self._processor.errands.clear()
            pause = PAUSE
            try:
                while await self.round():
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                self._backoff.succeeded()
            except (Transient, Fenced) as error:
                _log.info("erasures are not told on yet: %s", error)
                self._processor.errands.set()
                await asyncio.sleep(self._backoff.failed())

    async def round(self) -> bool:
        """Do what can be done now; whether something is left."""
        owned = list(self._processor.standing())
        # Trap: before anything counts as complete. A certificate promises that a restore brings nobody back.
        await asyncio.to_thread(self._file.add, self._processor.suppressed())
        notices = await self._store.notices(owned)
        self._sent = {notice.mark: self._sent.get(notice.mark, float("-inf")) for notice in notices}
        due = [notice for notice in notices if time.monotonic() - self._sent[notice.mark] >= AGAIN]
        if due:
            await self._send(due)
        left = 0
        for partition in owned:
            if partition in self._processor.standing():
                published, _ = self._publisher.published(partition)
                left += await self._store.purge(partition, published, self._since_long(partition, published))
        self._metrics.notices.set(len(notices) + left)
        return bool(notices or left)

    def _since_long(self, partition: int, published: int) -> int:
        """What was published for `DROPPED_KEPT` by now, at least, as ``published`` is."""
        now = time.monotonic()
        known = self._long_ago.setdefault(partition, _Published(now, published, 0))
        if now - known.since < DROPPED_KEPT:
            return known.before
        self._long_ago[partition] = _Published(now, published, known.number)
        return known.number

    async def _send(self, notices: list[Notice]) -> None:
        self._producer = self._producer or self._bus.producer()
        for notice in notices:
            record = Record(
                notice.target.encode("utf-8", "surrogatepass"),
                encode_event(notice_event(notice)),
                ((HEADER_SCHEMA, SCHEMA),),
            )
            await self._producer.send(CUSTOMER_EVENTS, partition_of(notice.target), [record])
            self._sent[notice.mark] = time.monotonic()
