"""Following a topic: from where the content stands, over the change of clusters, for ever."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from libs.common.background import Background, let_go
from libs.common.bus.ports import Bus, ClusterChanged, Message, TopicReader
from libs.common.contracts.marker import MARKER_KEY
from libs.common.contracts.topics import TOPICS
from libs.common.errors import Transient
from libs.common.view.places import Places

_log = logging.getLogger(__name__)

OnBatch = Callable[[Sequence[Message]], None]
"""Called on the event loop after messages are in the view; lower revisions are left out.

What a sweep drops comes as a message without value, at offset −1.
"""

_POLL = 0.5
_PAUSE = 0.3
_AT_ONCE = 500
_TRICKLE = 50
_SWEPT_AT_ONCE = 1_000
_PARTITIONS = {topic.name: topic.partitions for topic in TOPICS}


class Follower(ABC):
    """What views on disk and in memory have in common: reading, waiting for offsets, sweeping.

    Attributes
    ----------
    swept:
        Entries dropped because they were not seen again after the loss of a broker.
    losses:
        How often the topic had to be read from its start again.
    """

    def __init__(self, bus: Bus | None, topic: str, on_batch: OnBatch | None) -> None:
        self._bus = bus
        self._topic = topic
        self._on_batch = on_batch
        self._places = Places()
        self._caught_up = bus is None
        self._whole_at: float | None = None
        self._began = 0.0
        self._sweeping: frozenset[int] = frozenset()
        self._swept_to = b""
        self._unkept = False
        self._waiters: list[tuple[int, int, str, asyncio.Future[None]]] = []
        self._reader: TopicReader | None = None
        self._expecting = 0
        self._background = Background()
        # Held by whoever writes, so that a file can be written anew meanwhile; readers need not ask.
        self._writing = asyncio.Lock()
        self.swept = 0
        self.losses = 0

    async def start(self) -> None:
        """Begin to read in the background; serves at once what was there before."""
        if self._bus is not None:
            self._began = asyncio.get_running_loop().time()
            self._background.spawn(self._read(self._bus))

    async def watch(self) -> None:
        """Wait for ever, or raise what reading died of: for `Service.background`."""
        await self._background.watch()

    async def stop(self) -> None:
        """End reading, within three seconds."""
        await self._background.stop()

    @property
    def caught_up(self) -> bool:
        """Whether everything that was on the topic when reading began has been read.

        Judged by silence, or by a mere trickle a second after the start: end offsets cannot be relied on.
        """
        return self._caught_up

    @property
    def cluster(self) -> str:
        """The cluster the offsets belong to; empty before the first contact."""
        return self._places.cluster

    def offset(self, partition: int) -> int:
        """The next offset to read: everything before it is in the view."""
        return self._places.offsets.get(partition, 0)

    def lag_seconds(self) -> float:
        """How long ago the view was last known to hold all of its topic; before it first did, was started."""
        if self._bus is None:
            return 0.0
        since = self._began if self._whole_at is None else self._whole_at
        return asyncio.get_running_loop().time() - since

    def state(self) -> str:
        """Where it stands, in words, for ``/readyz``."""
        lag = self.lag_seconds()
        if missing := self.outstanding():
            return f"published anew: {missing} partitions are outstanding"
        if self._caught_up and lag < 5.0:
            return "up to date"
        if self._whole_at is None:
            return "still being read" if self.cluster else "waiting for the broker"
        what = "the broker is away" if self._caught_up else "being read again"
        return f"{what}, whole {lag:.0f} s ago"

    def outstanding(self) -> int:
        """Partitions whose republication after the loss of a broker has not come to its marker."""
        places = self._places
        return sum(not places.is_swept(partition) for partition in range(_PARTITIONS.get(self._topic, 1)))

    def has(self, partition: int, offset: int, cluster: str = "") -> bool:
        """As `libs.common.lookup.Lookup.has`."""
        return self._bus is None or (
            self._places.offsets.get(partition, 0) >= offset and cluster in ("", self._places.cluster)
        )

    async def reached(self, partition: int, offset: int, timeout: float, cluster: str = "") -> bool:
        """As `libs.common.lookup.Lookup.reached`; True at once where there is no bus."""
        if self.has(partition, offset, cluster):
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((partition, offset, cluster, waiter))
        try:
            with self.expecting():
                async with asyncio.timeout(timeout):
                    await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters = [entry for entry in self._waiters if entry[3] is not waiter]
        return True

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """As `libs.common.lookup.Lookup.expecting`."""
        self._expecting += 1
        self._hurry()
        try:
            yield
        finally:
            self._expecting -= 1
            self._hurry()

    def _hurry(self) -> None:
        if self._reader is not None:
            self._reader.hurry(self._expecting > 0)

    @abstractmethod
    def _store(self, places: Places, messages: Sequence[Message]) -> list[Message]:
        """Take in ``messages`` and ``places``, all or nothing; returns what was news."""

    @abstractmethod
    def _drop(self, places: Places, first: bytes, limit: int) -> tuple[list[Message], bytes | None]:
        """Drop what is outdated among the next ``limit`` entries from ``first`` on: those of partitions in
        ``places.due`` last seen before their `Places.began`. Returns what was dropped, and where to go on
        (None: that was all)."""

    def _is_damaged(self) -> bool:
        """Whether `_mend` has something to put right."""
        return False

    def _mend(self) -> None:  # noqa: B027
        """Called before reading begins (again): put right what was found broken; a view may have nothing."""

    async def _read(self, bus: Bus) -> None:
        while True:
            try:
                async with self._writing:
                    self._mend()
                cluster = await bus.cluster_id()
                if cluster != self.cluster:
                    async with self._writing:
                        self._meet(cluster)
                self._reader = reader = bus.reader(self._topic, cluster)
                self._hurry()
                try:
                    await reader.start(dict(self._places.offsets))
                    await self._follow(bus, reader)
                finally:
                    self._reader = None
                    await let_go(reader.close())
            except (Transient, ClusterChanged) as error:
                _log.info("%s cannot be read just now: %s", self._topic, error)
                await asyncio.sleep(_PAUSE)

    def _meet(self, cluster: str) -> None:
        if self.cluster:
            _log.warning("%s: another cluster (%s), read from the start", self._topic, cluster)
            self.losses += 1
        places = self._places.met(cluster)
        # Trap: at once, not with the first records: a crash in between would take the old round for the new.
        self._store(places, [])
        self._places, self._sweeping, self._caught_up = places, frozenset(), False

    async def _follow(self, bus: Bus, reader: TopicReader) -> None:
        """Until the cluster is another one, or an error."""
        loop = asyncio.get_running_loop()
        began = checked = loop.time()
        while not self._is_damaged():
            batches = await reader.poll(_AT_ONCE, 0.0 if self._places.due and self._caught_up else _POLL)
            messages = [message for batch in batches.values() for message in batch]
            async with self._writing:
                if messages and not self._take(messages):
                    return
            little = not messages or (len(messages) < _TRICKLE and loop.time() - began > 1.0)
            if little:
                self._caught_up = True
            if self._caught_up and self._places.due:
                async with self._writing:
                    self._sweep()
            if loop.time() - checked > 1.0:
                # A silent reader may sit on a broker that is gone.
                checked = loop.time()
                if await bus.cluster_id() != self.cluster:
                    return
                self._is_whole(little)
            elif self._whole_at is None:
                self._is_whole(little)

    def _is_whole(self, at_the_end: bool) -> None:
        if at_the_end and not self.outstanding():
            self._whole_at = asyncio.get_running_loop().time()

    def _take(self, messages: list[Message]) -> bool:
        """False where reading must begin again, from the places as they are now."""
        places = self._places.after(messages)
        taken = self._keep(places, [message for message in messages if message.key != MARKER_KEY])
        anew = places.begun != self._places.begun
        if anew:
            self._caught_up, self._sweeping = False, frozenset()
            self.losses += 1
        self._places = places
        if self._on_batch is not None and taken:
            self._on_batch(taken)
        for partition, offset, cluster, waiter in self._waiters:
            if not waiter.done() and self.has(partition, offset, cluster):
                waiter.set_result(None)
        return not anew

    def _keep(self, places: Places, messages: list[Message]) -> list[Message]:
        try:
            taken = self._store(places, messages)
        except Transient as error:
            if not self._unkept:
                _log.warning("%s stands still: what was read cannot be kept: %s", self._topic, error)
            self._unkept = True
            raise
        self._unkept = False
        return taken

    def _sweep(self) -> None:
        """Some entries of a pass; begun again from the first entry after a crash."""
        if not self._sweeping:
            self._sweeping, self._swept_to = self._places.due, b""
        dropped, more = self._drop(self._places, self._swept_to, _SWEPT_AT_ONCE)
        self.swept += len(dropped)
        if self._on_batch is not None and dropped:
            self._on_batch(dropped)
        if more is not None:
            self._swept_to = more
            return
        places = self._places.cleared(self._sweeping)
        self._store(places, [])
        self._places, self._sweeping = places, frozenset()
        _log.info("%s: what was not published again is dropped (%d in all)", self._topic, self.swept)
