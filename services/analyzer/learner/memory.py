"""The learner's store in memory, with the same elections and fences: for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from libs.common.clock import SECOND, Millis
from libs.common.contracts.identity import PARTITIONS
from libs.common.errors import Fenced
from services.analyzer.learner.fold import Place
from services.analyzer.learner.ports import Claim, LessonRow, Published


class MemoryLearnerStore:
    """Implements `ports.LearnerStore`; outlives the learners that use it, as a database does.

    Attributes
    ----------
    rows:
        Lessons by place.
    journal_times:
        By partition.
    """

    def __init__(self) -> None:
        self.rows: dict[Place, bytes] = {}
        self.journal_times: dict[int, Millis] = {}
        self.state = Published(version=0, journal_time=0, orders=0, trials=0)
        self.cluster = ""
        self.place = Place()
        self.body: bytes | None = None
        self.epoch = 0
        self.version = 0
        self._lock = asyncio.Lock()

    async def prepare(self) -> None:
        return None

    def leadership(self) -> AbstractAsyncContextManager[Claim]:
        return self._leadership()

    @asynccontextmanager
    async def _leadership(self) -> AsyncIterator[Claim]:
        async with self._lock:
            self.epoch += 1
            yield Claim(self.epoch, self.version, self.body, self.cluster)

    async def watermark(self) -> int | None:
        if len(self.journal_times) < PARTITIONS:
            return None
        return min(self.journal_times.values()) // SECOND

    async def lessons(self, after: Place, before: int, limit: int) -> Sequence[LessonRow]:
        places = sorted(place for place in self.rows if place > after and place.second < before)
        return [LessonRow(place, self.rows[place]) for place in places[:limit]]

    async def checkpoint(self, epoch: int, place: Place, body: bytes) -> None:
        self._check(epoch)
        self.place, self.body = place, body

    async def next_version(self, epoch: int) -> int:
        self._check(epoch)
        self.version += 1
        return self.version

    async def published(self, epoch: int, cluster: str, published: Published) -> None:
        self._check(epoch)
        self.cluster, self.state = cluster, published

    def _check(self, epoch: int) -> None:
        if epoch != self.epoch:
            raise Fenced(f"epoch {epoch} of the learner is over")
