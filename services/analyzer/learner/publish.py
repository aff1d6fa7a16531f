"""Publication: parts and manifest to the bus, at most so often, again as a whole when the bus was lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from libs.common.bus.ports import Bus, ClusterChanged, Headers, Producer, Record
from libs.common.clock import Millis
from libs.common.contracts import marker
from libs.common.contracts.learned_model import MANIFEST_KEY, SCHEMA
from libs.common.contracts.marker import MARKER_KEY, Marker, encode_marker
from libs.common.contracts.topics import HEADER_REVISION, HEADER_SCHEMA, LEARNED_MODELS
from libs.common.errors import Transient
from services.analyzer.learner.fold import Fold
from services.analyzer.learner.metrics import LearnerMetrics
from services.analyzer.learner.parts import Content, Publications, Solved, content_of, later
from services.analyzer.learner.ports import LearnerStore, Published
from services.analyzer.learner.threads import in_thread

_log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
BYTES_PER_INTERVAL = 400_000
"""Beyond so much at once larger models are published less often, in proportion, …"""
SLOWEST_SECONDS = 4.0
"""… but at least this often, so that an order is in the models within 5 s."""


class Publisher:
    """Publishes the state of one fold while its learner is elected.

    `offer` looks at the fold and, where something is to be said and it is time, takes it from the fold in
    one go and sends it in a task of its own: the fold goes on meanwhile.

    Parameters
    ----------
    epoch:
        Of the election: the fence of every write.
    closed:
        The cluster on which the latest republication was closed by a marker.
    interval:
        Least seconds between two publications.
    watch:
        Seconds between two looks whether the bus is still the same.
    """

    def __init__(
        self,
        bus: Bus,
        store: LearnerStore,
        metrics: LearnerMetrics,
        epoch: int,
        closed: str,
        *,
        interval: float,
        watch: float,
    ) -> None:
        self._bus = bus
        self._store = store
        self._metrics = metrics
        self._epoch = epoch
        self._interval = interval
        self._watch_seconds = watch
        self._producer: Producer | None = None
        self._publications = Publications()
        self._solved = Solved()
        self._sending: asyncio.Task[None] | None = None
        self._due = 0.0
        self._cluster: str | None = None
        self._asked = 0.0
        self._manifest: bytes | None = None
        self._version = 0
        self._said: tuple[object, Millis] | None = None
        self._offset = -1
        self._closed = closed
        self._noted: Published | None = None
        self.failed: str | None = None

    async def offer(self, fold: Fold, journal_time: Millis, *, behind: bool = False) -> None:
        """Publish ``fold``, which has passed ``journal_time``, if there is news and time for it.

        The fold must stay as it is until this returns. While it is ``behind``, much news is on its way and
        is not said bit by bit. Raises what a finished publication raised, `Fenced` for one; `Transient` is
        tried again.
        """
        if not self._ready():
            return
        if behind and time.monotonic() < self._due - self._interval + SLOWEST_SECONDS:
            return
        state = (fold.place, id(fold.goods.solution))
        if self._said is None or self._said[0] != state:
            content = await in_thread(content_of, fold, journal_time, self._solved)
            self._start(self._send(content), state, journal_time)
        elif self._said[1] < journal_time:
            self._start(self._pass(fold.goods.counts.orders, fold.trials, journal_time), state, journal_time)
        else:
            self._start(self._watch(), state, journal_time)

    async def settle(self) -> None:
        """Wait for what is under way; raises what it raised."""
        if self._sending is not None:
            await self._sending

    async def close(self) -> None:
        """Give up what is under way."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._drop_producer()

    def _ready(self) -> bool:
        if self._sending is not None:
            if not self._sending.done():
                return False
            task, self._sending = self._sending, None
            task.result()
        return time.monotonic() >= self._due

    def _start(self, sending: Coroutine[Any, Any, None], state: object, journal_time: Millis) -> None:
        self._due = time.monotonic() + self._interval
        self._said = (state, journal_time)
        self._sending = asyncio.create_task(self._guard(sending))

    async def _guard(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await sending
            self.failed = None
        except (Transient, ClusterChanged) as error:
            # Nothing is known about what the bus took of it: all is sent again, under a new version.
            self._publications.forget()
            self._said = self._cluster = None
            self._due = time.monotonic() + RETRY_SECONDS
            self._metrics.failed.add()
            if self.failed is None:
                _log.warning("learned models could not be published", extra={"reason": str(error)})
            self.failed = str(error)
            await self._drop_producer()

    async def _watch(self) -> None:
        """Nothing to say, unless to another bus."""
        if await self._another_bus():
            self._publications.forget()
            self._said = None

    async def _pass(self, orders: int, trials: int, journal_time: Millis) -> None:
        """Say that nothing happened up to ``journal_time``."""
        if self._manifest is None or await self._another_bus():
            self._publications.forget()
            self._said = None
            return
        self._manifest = later(self._manifest, journal_time)
        await self._write([_record(MANIFEST_KEY, self._manifest, self._version)])
        await self._note(Published(self._version, journal_time, orders, trials))

    async def _send(self, content: Content) -> None:
        if await self._another_bus():
            self._publications.forget()
        self._version = version = await self._store.next_version(self._epoch)
        missing, manifest = await in_thread(self._publications.records, content, version)
        self._manifest = manifest
        records = [_record(key, value, carries) for key, value, carries in missing]
        if records:
            await self._write(records)
        # Trap: only after the parts are acknowledged, or a reader could wait for parts that never come.
        await self._write([_record(MANIFEST_KEY, manifest, version)])
        if self._closed != self._cluster:
            # What a view holds beyond this is of a broker that was lost.
            await self._write([_marker(self._cluster or "", version)])
            self._closed = self._cluster or ""
        told = content.journal_time, content.orders, content.trials
        await self._note(Published(self._version, *told))
        size = sum(len(value) for _, value, _ in missing)
        self._metrics.publications.add()
        self._metrics.publication_bytes.add(size)
        pause = min(self._interval * size / BYTES_PER_INTERVAL, SLOWEST_SECONDS)
        self._due = max(self._due, time.monotonic() + max(pause - self._interval, 0.0))

    async def _write(self, records: list[Record]) -> None:
        if self._producer is None:
            # Bound to the cluster: what another one acknowledges would not be beside the rest.
            self._producer = self._bus.producer(self._cluster)
        offset = await self._producer.send(LEARNED_MODELS, 0, records)
        if offset < self._offset:
            self._closed = ""
            if self._noted is not None:
                await self._store.published(self._epoch, self._closed, self._noted)
            raise Transient("the topic of learned models was made anew")
        self._offset = offset

    async def _note(self, published: Published) -> None:
        await self._store.published(self._epoch, self._closed, published)
        self._noted = published

    async def _another_bus(self) -> bool:
        """Whether the cluster is another one than at the last publication; asked every few seconds."""
        if self._cluster is not None and time.monotonic() - self._asked < self._watch_seconds:
            return False
        cluster = await self._bus.cluster_id()
        self._asked = time.monotonic()
        before, self._cluster = self._cluster, cluster
        if before == cluster:
            return False
        await self._drop_producer()
        return before is not None

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        self._offset = -1
        if producer is not None:
            await producer.close()


def _marker(cluster: str, version: int) -> Record:
    value = encode_marker(Marker(cluster=cluster, number=version))
    return Record(MARKER_KEY, value, ((HEADER_SCHEMA, marker.SCHEMA),))


def _record(key: bytes, value: bytes, version: int) -> Record:
    headers: Headers = ((HEADER_SCHEMA, SCHEMA), (HEADER_REVISION, b"%d" % version))
    return Record(key, value, headers)
