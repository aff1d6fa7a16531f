"""The progress board: how far the analyzer is in each partition, as every service knows it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import msgspec

from libs.common.background import Background, let_go
from libs.common.bus.ports import Bus, ClusterChanged, TopicReader
from libs.common.clock import Millis
from libs.common.contracts.progress import Progress, decode_progress
from libs.common.contracts.topics import PROGRESS
from libs.common.errors import Transient
from libs.common.position import Position

_log = logging.getLogger(__name__)

_POLL = 0.5
_PAUSE = 0.3
_AT_ONCE = 1_000
_SAMPLES = 32
_SAMPLE_EVERY: Millis = 100


class ProgressBoard:
    """Keeps the newest `Progress` of each partition, read from topic ``progress``.

    Records of a lower epoch are ignored. When the broker is another one (its cluster id changed) all is
    forgotten and read anew. Tests need no bus: ``ProgressBoard()`` and `put`.

    Parameters
    ----------
    bus:
        Where to read; None for a board that only `put` fills.
    on_change:
        Called after each change, on the event loop, e.g. to move a `JournalClock`.
    """

    def __init__(
        self, bus: Bus | None = None, on_change: Callable[[ProgressBoard], None] | None = None
    ) -> None:
        self._bus = bus
        self._subscribers = [on_change] if on_change is not None else []
        self._newest: dict[int, Progress] = {}
        self._applied: dict[str, dict[int, int]] = {}
        self._journal_time: Millis = 0
        self._times: dict[int, Millis] = {}
        self._samples: defaultdict[int, deque[tuple[Millis, int]]] = defaultdict(
            partial(deque, maxlen=_SAMPLES)
        )
        self._cluster = ""
        self._heard = time.monotonic()
        self._caught_up = bus is None
        self._waiters: list[tuple[Position, frozenset[int] | None, asyncio.Future[None]]] = []
        self._reader: TopicReader | None = None
        self._background = Background()

    async def start(self) -> None:
        """Begin to read, in the background; returns at once, also when the broker is away."""
        if self._bus is not None:
            self._background.spawn(self._read(self._bus))

    async def watch(self) -> None:
        """Wait for ever, or raise what reading died of: for `Service.background`."""
        await self._background.watch()

    async def stop(self) -> None:
        """End reading, within some seconds."""
        await self._background.stop()

    @property
    def caught_up(self) -> bool:
        """Whether the topic has once been read to its end."""
        return self._caught_up

    @property
    def cluster(self) -> str:
        """The cluster the board was read from; empty before the first contact."""
        return self._cluster

    def silence(self) -> float:
        """Seconds since the bus answered last."""
        return time.monotonic() - self._heard

    def behind(self, now: Millis) -> Millis:
        """How far the slowest known partition is behind ``now``, in ms; 0 where nothing is known."""
        return max((now - progress.journal_time for progress in self._newest.values()), default=0)

    def put(self, progress: Progress) -> None:
        """Take in one record, as if it had been read."""
        if self._take(progress):
            self._changed()

    def subscribe(self, callback: Callable[[ProgressBoard], None]) -> None:
        """Have ``callback`` called after each change."""
        self._subscribers.append(callback)

    def of(self, partition: int) -> Progress | None:
        """The newest progress of ``partition``, None where nothing is known."""
        return self._newest.get(partition)

    def applied(self, spool: str) -> Mapping[int, int]:
        """By partition: highest sequence number of ``spool`` whose fate is decided."""
        return self._applied.get(spool, {})

    def journal_time(self) -> Millis:
        """The greatest journal time of any partition ever seen; 0 where nothing is known."""
        return self._journal_time

    def models_offset(self, partition: int) -> int:
        """Next offset of ``customer-models`` after all models of this progress; 0 where unknown."""
        known = self._newest.get(partition)
        return known.models_offset if known is not None else 0

    def known_until(self, partition: int) -> Millis:
        """The greatest journal time of ``partition`` ever seen, on whatever cluster; 0 where none was.

        How old what is known of its customers may be: the views serve on when a broker is lost.
        """
        return self._times.get(partition, 0)

    def offset_since(self, partition: int, since: Millis) -> int | None:
        """The lowest known `models_offset` of ``partition`` that covers everything up to ``since``; None
        where the present cluster has told of nothing so late."""
        known = self._newest.get(partition)
        if known is None or known.journal_time < since:
            return None
        late = (offset for at, offset in self._samples[partition] if at >= since)
        return next(late, known.models_offset)

    async def reached(self, position: Position, partitions: Iterable[int] | None, timeout: float) -> bool:
        """Wait until ``position`` is applied in ``partitions`` (None: in all it names); False after
        ``timeout`` seconds."""
        wanted = None if partitions is None else frozenset(partitions)
        if position.covered_by(self.applied(position.spool), wanted):
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((position, wanted, waiter))
        self._hurry()
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters = [entry for entry in self._waiters if entry[2] is not waiter]
            self._hurry()
        return True

    def _hurry(self) -> None:
        if self._reader is not None:
            self._reader.hurry(bool(self._waiters))

    def _take(self, progress: Progress) -> bool:
        known = self._newest.get(progress.partition)
        if known is not None and progress.epoch < known.epoch:
            return False
        self._newest[progress.partition] = progress
        if known is not None:
            for spool in known.applied.keys() - progress.applied.keys():
                self._applied[spool].pop(progress.partition, None)
        for spool, seq in progress.applied.items():
            self._applied.setdefault(spool, {})[progress.partition] = seq
        self._journal_time = max(self._journal_time, progress.journal_time)
        self._sample(progress)
        return True

    def _sample(self, progress: Progress) -> None:
        partition, at = progress.partition, progress.journal_time
        self._times[partition] = max(at, self._times.get(partition, 0))
        samples = self._samples[partition]
        if samples and progress.models_offset < samples[-1][1]:
            samples.clear()
        if not samples or at >= samples[-1][0] + _SAMPLE_EVERY:
            samples.append((at, progress.models_offset))

    def _changed(self) -> None:
        for position, wanted, waiter in self._waiters:
            if not waiter.done() and position.covered_by(self.applied(position.spool), wanted):
                waiter.set_result(None)
        for callback in self._subscribers:
            callback(self)

    def _forget(self, cluster: str) -> None:
        if self._cluster:
            _log.warning("the bus is another cluster now (%s): progress is read anew", cluster)
        self._cluster = cluster
        self._newest.clear()
        self._applied.clear()
        self._samples.clear()
        self._caught_up = False

    async def _read(self, bus: Bus) -> None:
        told = False
        while True:
            try:
                cluster = await bus.cluster_id()
                self._heard = time.monotonic()
                if cluster != self._cluster:
                    self._forget(cluster)
                self._reader = reader = bus.reader(PROGRESS, cluster)
                self._hurry()
                try:
                    await reader.start({})
                    told = False
                    await self._follow(bus, reader)
                finally:
                    self._reader = None
                    await let_go(reader.close())
            except (Transient, ClusterChanged) as error:
                # Tried again several times a second: once is enough until it could be read again.
                if not told:
                    _log.info("progress cannot be read just now: %s", error)
                told = True
                await asyncio.sleep(_PAUSE)

    async def _follow(self, bus: Bus, reader: TopicReader) -> None:
        """Until the cluster is another one, or an error."""
        loop = asyncio.get_running_loop()
        checked = loop.time()
        while True:
            batches = await reader.poll(_AT_ONCE, _POLL)
            taken = False
            for messages in batches.values():
                for message in messages:
                    try:
                        taken |= message.value is not None and self._take(decode_progress(message.value))
                    except (msgspec.DecodeError, RecursionError) as error:
                        _log.error("a progress record is unreadable: %s", error)
            if taken:
                self._changed()
            if not batches:
                self._caught_up = True
            if loop.time() - checked > 1.0:
                # A silent reader may sit on a broker that is gone.
                checked = loop.time()
                if await bus.cluster_id() != self._cluster:
                    return
                self._heard = time.monotonic()
