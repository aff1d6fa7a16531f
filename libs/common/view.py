"""A compacted topic materialised in a local LMDB, together with its offsets: read in microseconds."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from struct import Struct

import lmdb
import msgspec

from libs.common.background import Background, let_go
from libs.common.bus.ports import Bus, ClusterChanged, Message, TopicReader
from libs.common.contracts.topics import HEADER_REVISION
from libs.common.errors import Misconfigured, Transient

_log = logging.getLogger(__name__)

OnBatch = Callable[[Sequence[Message]], None]
"""Called on the event loop after messages are in the view; lower revisions are left out."""

_POLL = 0.5
_PAUSE = 0.3
_AT_ONCE = 500
_TRICKLE = 50
_MAP = 4 << 30
_LONGEST = 500
_CLEAN = "clean"
_HEAD = Struct(">QI")
_GONE = 0xFFFFFFFF


def revision_of(message: Message) -> int | None:
    """The revision in the headers (decimal text or 8 bytes big endian); None where there is none."""
    text = message.header(HEADER_REVISION)
    if text is None:
        return None
    if text.isdigit() and len(text) <= 18:
        return int(text)
    return int.from_bytes(text, "big") if len(text) == 8 else None


class _Follower(ABC):
    """Reads a topic for ever, from where its content stands, over the change of clusters."""

    def __init__(self, bus: Bus | None, topic: str, on_batch: OnBatch | None) -> None:
        self._bus = bus
        self._topic = topic
        self._on_batch = on_batch
        self._cluster = ""
        self._offsets: dict[int, int] = {}
        self._caught_up = bus is None
        self._waiters: list[tuple[int, int, str, asyncio.Future[None]]] = []
        self._background = Background()

    async def start(self) -> None:
        """Begin to read in the background; serves at once what was there before."""
        if self._bus is not None:
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
        return self._cluster

    def offset(self, partition: int) -> int:
        """The next offset to read: everything before it is in the view."""
        return self._offsets.get(partition, 0)

    async def reached(self, partition: int, offset: int, timeout: float, cluster: str = "") -> bool:
        """As `libs.common.lookup.Lookup.reached`; True at once where there is no bus."""
        if self._bus is None or self._has(partition, offset, cluster):
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((partition, offset, cluster, waiter))
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters = [entry for entry in self._waiters if entry[3] is not waiter]
        return True

    def _has(self, partition: int, offset: int, cluster: str) -> bool:
        return self._offsets.get(partition, 0) >= offset and cluster in ("", self._cluster)

    @abstractmethod
    def _store(self, cluster: str, offsets: dict[int, int], messages: Sequence[Message]) -> list[Message]:
        """Take in ``messages`` and ``offsets``, all or nothing; returns those that were not outdated."""

    async def _read(self, bus: Bus) -> None:
        while True:
            try:
                cluster = await bus.cluster_id()
                if cluster != self._cluster:
                    if self._cluster:
                        _log.warning("%s: another cluster (%s), read from the start", self._topic, cluster)
                    self._cluster, self._offsets, self._caught_up = cluster, {}, False
                reader = bus.reader(self._topic, cluster)
                try:
                    await reader.start(dict(self._offsets))
                    await self._follow(bus, reader)
                finally:
                    await let_go(reader.close())
            except (Transient, ClusterChanged) as error:
                _log.info("%s cannot be read just now: %s", self._topic, error)
                await asyncio.sleep(_PAUSE)

    async def _follow(self, bus: Bus, reader: TopicReader) -> None:
        """Until the cluster is another one, or an error."""
        loop = asyncio.get_running_loop()
        began = checked = loop.time()
        while True:
            batches = await reader.poll(_AT_ONCE, _POLL)
            messages = [message for batch in batches.values() for message in batch]
            if messages:
                self._take(messages)
            if not messages or (len(messages) < _TRICKLE and loop.time() - began > 1.0):
                self._caught_up = True
            if loop.time() - checked > 1.0:
                # A silent reader may sit on a broker that is gone.
                checked = loop.time()
                if await bus.cluster_id() != self._cluster:
                    return

    def _take(self, messages: Sequence[Message]) -> None:
        offsets = dict(self._offsets)
        for message in messages:
            offsets[message.partition] = message.offset + 1
        taken = self._store(self._cluster, offsets, messages)
        self._offsets = offsets
        if self._on_batch is not None and taken:
            self._on_batch(taken)
        for partition, offset, cluster, waiter in self._waiters:
            if not waiter.done() and self._has(partition, offset, cluster):
                waiter.set_result(None)


class View(_Follower):
    """Materialises ``topic`` under ``path``; see `libs.common.lookup.Lookup` for what it answers.

    Values, next offsets and the cluster id change in one LMDB transaction, so a restart resumes where it
    was. A record whose header ``revision`` (decimal text or 8 bytes big endian) is lower than the stored
    one is ignored; a None value deletes. When the cluster id changes the topic is read from its start
    again while the old content is still served; revisions go on.

    Transactions are not fsynced: they outlive the process, and after a crash of the machine itself the
    view is made anew from the topic.

    Parameters
    ----------
    path:
        Folder of the files; opened by `start`, by one writing process.
    map_size:
        Bytes of address space to begin with; doubled when the content needs more.
    """

    def __init__(
        self, bus: Bus, topic: str, path: Path, on_batch: OnBatch | None = None, *, map_size: int = _MAP
    ) -> None:
        super().__init__(bus, topic, on_batch)
        self._path = path
        self._map_size = map_size
        self._env: lmdb.Environment | None = None

    async def start(self) -> None:
        """Open the files and begin to read in the background; serves at once what was there before."""
        self._open()
        await super().start()

    async def stop(self) -> None:
        """End reading and close the files, within three seconds."""
        await super().stop()
        if self._env is not None:
            self._env.sync(True)
            self._env.close()
            self._env = None
            _note(self._path / "boot", _CLEAN)

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""
        with self._opened().begin() as transaction:
            entry = transaction.get(_stored(key))
        return None if entry is None else _body(entry)

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key starts with ``prefix``, in byte order, from one snapshot."""
        found = []
        first = b"k" + prefix[: _LONGEST - 40]
        with self._opened().begin() as transaction, transaction.cursor() as cursor:
            more = cursor.set_range(first)
            while more and (stored := cursor.key()).startswith(first):
                entry = cursor.value()
                key, body = _key(stored, entry), _body(entry)
                if body is not None and key.startswith(prefix):
                    found.append((key, body))
                more = cursor.next()
        return iter(found)

    def _opened(self) -> lmdb.Environment:
        if self._env is None:
            raise Transient(f"the view of {self._topic} is not open")
        return self._env

    def _open(self) -> None:
        boot = _boot()
        note = self._path / "boot"
        try:
            if boot and note.exists() and note.read_text() not in (boot, _CLEAN):
                _log.warning("the machine crashed: the view of %s is made anew", self._topic)
                shutil.rmtree(self._path)
            self._path.mkdir(parents=True, exist_ok=True)
            try:
                self._env = self._connect(boot)
            except lmdb.Error as error:
                _log.error("the view of %s cannot be read (%s) and is made anew", self._topic, error)
                shutil.rmtree(self._path)
                self._path.mkdir(parents=True)
                self._env = self._connect(boot)
            _note(note, boot)
        except (OSError, lmdb.Error) as error:
            raise Misconfigured(f"{self._path} cannot hold a view: {error}") from error

    def _connect(self, boot: str) -> lmdb.Environment:
        env = lmdb.open(str(self._path), map_size=self._map_size, sync=not boot, mode=0o600)
        with env.begin() as transaction:
            place = transaction.get(b"m")
        if place is not None:
            self._cluster, self._offsets = msgspec.msgpack.decode(place, type=tuple[str, dict[int, int]])
        return env

    def _store(self, cluster: str, offsets: dict[int, int], messages: Sequence[Message]) -> list[Message]:
        env = self._opened()
        while True:
            try:
                with env.begin(write=True) as transaction:
                    taken = [message for message in messages if _put(transaction, message)]
                    transaction.put(b"m", msgspec.msgpack.encode((cluster, offsets)))
                return taken
            except lmdb.MapFullError:
                self._map_size = 2 * env.info()["map_size"]
                env.set_mapsize(self._map_size)


def _put(transaction: lmdb.Transaction, message: Message) -> bool:
    """Write ``message`` unless its revision is lower than what is there."""
    stored, revision = _stored(message.key), revision_of(message)
    if revision is not None:
        known = transaction.get(stored)
        if known is not None and _HEAD.unpack_from(known)[0] > revision:
            return False
    if message.value is None:
        if revision is None:
            transaction.delete(stored)
        else:
            # A deletion is remembered with its revision, or an older value could come back after it.
            transaction.put(stored, _HEAD.pack(revision, _GONE))
        return True
    full = message.key if len(message.key) > _LONGEST else b""
    transaction.put(stored, _HEAD.pack(revision or 0, len(full)) + full + message.value)
    return True


def _stored(key: bytes) -> bytes:
    """The LMDB key: it takes at most 511 bytes, so long ones end in a digest and lie in the value whole."""
    if len(key) <= _LONGEST:
        return b"k" + key
    return b"k" + key[: _LONGEST - 40] + blake2b(key, digest_size=32).digest()


def _key(stored: bytes, entry: bytes) -> bytes:
    length = _HEAD.unpack_from(entry)[1]
    return stored[1:] if length in (0, _GONE) else entry[_HEAD.size : _HEAD.size + length]


def _body(entry: bytes) -> bytes | None:
    length = _HEAD.unpack_from(entry)[1]
    return None if length == _GONE else entry[_HEAD.size + length :]


def _boot() -> str:
    """Which start of the machine this is; empty where that cannot be known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _note(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


class MemoryView(_Follower):
    """The same without disk, for tests: filled by `put` or, where a bus is given, from its topic."""

    def __init__(self, bus: Bus | None = None, topic: str = "", on_batch: OnBatch | None = None) -> None:
        super().__init__(bus, topic, on_batch)
        self._entries: dict[bytes, tuple[int, bytes | None]] = {}

    def put(self, key: bytes, value: bytes | None, revision: int | None = None) -> None:
        """Set (None: delete) one entry; a revision lower than the stored one is ignored."""
        headers = () if revision is None else ((HEADER_REVISION, b"%d" % revision),)
        message = Message(self._topic, 0, 0, key, value, headers, 0)
        if self._store("", {}, [message]) and self._on_batch is not None:
            self._on_batch([message])

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""
        return self._entries.get(key, (0, None))[1]

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key starts with ``prefix``, in byte order."""
        found = [(k, v) for k, (_, v) in self._entries.items() if v is not None and k.startswith(prefix)]
        return iter(sorted(found))

    def _store(self, cluster: str, offsets: dict[int, int], messages: Sequence[Message]) -> list[Message]:
        taken = []
        for message in messages:
            revision = revision_of(message)
            if revision is not None and self._entries.get(message.key, (0, None))[0] > revision:
                continue
            self._entries[message.key] = (revision or 0, message.value)
            taken.append(message)
        return taken
