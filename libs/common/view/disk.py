"""A view in a local LMDB: values, offsets and the cluster id change in one transaction."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import lmdb
import msgspec

from libs.common.bus.ports import Bus, Message
from libs.common.clock import DAY
from libs.common.contracts.topics import TOMBSTONES_KEPT
from libs.common.errors import Misconfigured, Transient
from libs.common.view.entries import body_of, entry_of, is_dropped, pack, prefix_key, stored_key, unpack
from libs.common.view.follower import Follower, OnBatch
from libs.common.view.forgotten import copy_anew, deleted_keys, forget, forgotten_key, is_outdated
from libs.common.view.places import Places, decode_places, encode_places

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_MAP = 4 << 30
_CLEAN = "clean"
_PATIENCE = 1.0
_PLACES = b"m"
_FORMAT = b"f"
_FORMAT_NOW = b"2"
_TRUSTED = (TOMBSTONES_KEPT - DAY) / 1000
_NO_ROOM = (lmdb.DiskError, lmdb.MemoryError)


class View(Follower):
    """Materialises ``topic`` under ``path``; see `libs.common.lookup.Lookup` for what it answers.

    Values, next offsets and the cluster id change in one LMDB transaction, so a restart resumes where it
    was. A record whose header ``revision`` (decimal text or 8 bytes big endian) is lower than the stored
    one is ignored; a None value deletes and is remembered with its revision. When the cluster id changes
    the topic is read from its start again while the old content is still served; revisions go on. After
    the marker of a partition, what was not seen again is dropped as if it had been deleted.

    Transactions are not fsynced: they outlive the process, and after a crash of the machine itself the
    view is made anew from the topic. So it is where its files turn out to be damaged, and where it was last
    read so long ago that the topic may have forgotten deletions.

    Parameters
    ----------
    path:
        Folder of the files; opened by `start`, by one writing process. Others may read meanwhile.
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
        self._damage: lmdb.Error | None = None

    async def start(self) -> None:
        """Open the files and begin to read in the background; serves at once what was there before."""
        self._open()
        await super().start()

    async def stop(self) -> None:
        """End reading and close the files, within three seconds."""
        await super().stop()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._writing.acquire()
        except TimeoutError:
            # Trap: not closed under the thread that writes it anew; that would kill the process.
            return
        if self._env is not None:
            self._env.sync(True)
            self._env.close()
            self._env = None
            _note(self._path / "boot", f"{_CLEAN} {self._size()}")

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""
        try:
            with self._opened().begin() as transaction:
                packed = transaction.get(stored_key(key))
        except lmdb.Error as error:
            self._broken(error)
            return None
        return None if packed is None else body_of(bytes(packed))

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key starts with ``prefix``, in byte order, from one snapshot."""
        found = []
        first = prefix_key(prefix)
        try:
            with self._opened().begin() as transaction, transaction.cursor() as cursor:
                more = cursor.set_range(first)
                while more and (stored := bytes(cursor.key())).startswith(first):
                    key, entry = unpack(stored, bytes(cursor.value()))
                    if entry.body is not None and key.startswith(prefix):
                        found.append((key, entry.body))
                    more = cursor.next()
        except lmdb.Error as error:
            self._broken(error)
        return iter(found)

    def gone(self) -> list[bytes]:
        """Keys that were deleted and not forgotten yet; looks at all there are."""
        return self._look(deleted_keys)

    def was_deleted(self, key: bytes) -> bool:
        """Whether ``key`` was deleted, forgotten or not, and has not come back."""

        def look(transaction: lmdb.Transaction) -> bool:
            packed = transaction.get(stored_key(key))
            if packed is not None:
                return body_of(bytes(packed)) is None
            return transaction.get(forgotten_key(key)) is not None

        return self._look(look)

    async def forget(self, keys: Sequence[bytes]) -> None:
        """Keep of ``keys``, as far as they are deleted, nothing but a hash and the revision."""
        async with self._writing:
            self._write(lambda transaction: forget(transaction, keys))

    async def compact(self) -> None:
        """Write the file anew, so that nothing deleted is left in it; goes on serving meanwhile."""
        async with self._writing:
            fresh = self._path.with_name(self._path.name + ".new")
            env = self._opened()
            try:
                await asyncio.to_thread(copy_anew, env, fresh)
            except (OSError, lmdb.Error) as error:
                raise Transient(f"the view of {self._topic} cannot be written anew: {error}") from error
            env.close()
            self._env = None
            (fresh / "data.mdb").replace(self._path / "data.mdb")
            shutil.rmtree(fresh)
            (self._path / "lock.mdb").unlink(missing_ok=True)
            self._env = self._connect(_boot())

    def _opened(self) -> lmdb.Environment:
        if self._env is None:
            raise Transient(f"the view of {self._topic} is not open")
        return self._env

    def _look(self, work: Callable[[lmdb.Transaction], _T]) -> _T:
        """Read what must not be guessed; raises `Transient` where the files are damaged."""
        try:
            with self._opened().begin() as transaction:
                return work(transaction)
        except lmdb.Error as error:
            self._broken(error)
            raise Transient(f"the view of {self._topic} is damaged: {error}") from error

    def _broken(self, error: lmdb.Error) -> None:
        if self._damage is None:
            _log.error("the view of %s is damaged (%s) and will be made anew", self._topic, error)
        self._damage = error

    def _is_damaged(self) -> bool:
        return self._damage is not None

    def _mend(self) -> None:
        if self._damage is not None:
            self._damage = None
            if self._env is not None:
                self._env.close()
            self._env = None
            self._places = Places()
            self.losses += 1
            shutil.rmtree(self._path, ignore_errors=True)
            self._open()

    def _open(self) -> None:
        boot = _boot()
        note = self._path / "boot"
        try:
            if reason := self._spoilt(boot, note):
                _log.warning("%s: the view of %s is made anew", reason, self._topic)
                shutil.rmtree(self._path)
            self._path.mkdir(parents=True, exist_ok=True)
            try:
                self._env = self._connect(boot)
            except (lmdb.Error, msgspec.DecodeError) as error:
                _log.error("the view of %s cannot be read (%s) and is made anew", self._topic, error)
                shutil.rmtree(self._path)
                self._path.mkdir(parents=True)
                self._env = self._connect(boot)
            _note(note, boot)
        except (OSError, lmdb.Error) as error:
            raise Misconfigured(f"{self._path} cannot hold a view: {error}") from error

    def _spoilt(self, boot: str, note: Path) -> str | None:
        """Why what lies there cannot be trusted; None where it can, or where nothing is there."""
        if not note.exists():
            return None
        if time.time() - note.stat().st_mtime > _TRUSTED:
            return "deletions may have been missed"
        text = note.read_text()
        if text.startswith(_CLEAN):
            # Trap: LMDB maps the file, and reading behind its end kills the process.
            written = text.removeprefix(_CLEAN).strip()
            return "its file was cut" if written.isdigit() and self._size() < int(written) else None
        return "the machine crashed" if boot and text != boot else None

    def _is_whole(self, at_the_end: bool) -> None:
        super()._is_whole(at_the_end)
        if at_the_end and not self.outstanding():
            # The time of the note says when all of the topic was here.
            os.utime(self._path / "boot")

    def _size(self) -> int:
        data = self._path / "data.mdb"
        return data.stat().st_size if data.exists() else 0

    def _connect(self, boot: str) -> lmdb.Environment:
        env = lmdb.open(str(self._path), map_size=self._map_size, sync=not boot, mode=0o600)
        try:
            # A reading process that was killed holds back its snapshot, and the file would only grow.
            env.reader_check()
            with env.begin(write=True) as transaction:
                known = transaction.get(_FORMAT)
                if known not in (None, _FORMAT_NOW) or (known is None and transaction.get(_PLACES)):
                    raise lmdb.VersionMismatchError("written by another version")
                transaction.put(_FORMAT, _FORMAT_NOW)
                places = transaction.get(_PLACES)
            self._places = Places() if places is None else decode_places(places)
        except BaseException:
            env.close()
            raise
        return env

    def _store(self, places: Places, messages: Sequence[Message]) -> list[Message]:
        def write(transaction: lmdb.Transaction) -> list[Message]:
            news = [message for message in messages if _put(transaction, message, places.round)]
            transaction.put(_PLACES, encode_places(places))
            return news

        return self._write(write)

    def _drop(self, places: Places, first: bytes, limit: int) -> tuple[list[Message], bytes | None]:
        def write(transaction: lmdb.Transaction) -> tuple[list[Message], bytes | None]:
            outdated = []
            with transaction.cursor() as cursor:
                more = cursor.set_range(first or prefix_key(b""))
                for _ in range(limit):
                    if not more or not (stored := bytes(cursor.key())).startswith(prefix_key(b"")):
                        break
                    key, entry = unpack(stored, bytes(cursor.value()))
                    partition = entry.partition
                    old = partition in places.due and entry.round < places.began(partition)
                    if old and entry.body is not None:
                        outdated.append((stored, key, entry._replace(round=places.round, body=None)))
                    more = cursor.next()
                following = bytes(cursor.key()) if more else b""
            for stored, key, gone in outdated:
                transaction.put(stored, pack(key, gone))
            gone_keys = [
                Message(self._topic, gone.partition, -1, key, None, (), 0) for _, key, gone in outdated
            ]
            return gone_keys, following if following.startswith(prefix_key(b"")) else None

        return self._write(write)

    def _write(self, work: Callable[[lmdb.Transaction], _T]) -> _T:
        """Do ``work`` in one transaction, with a larger map where it needs one.

        Raises `Transient` where the disk is full or the files are damaged; reading is then tried again.
        """
        env = self._opened()
        while True:
            try:
                with env.begin(write=True) as transaction:
                    return work(transaction)
            except lmdb.MapFullError:
                self._grow(env)
            except _NO_ROOM as error:
                raise Transient(f"no room for the view of {self._topic}: {error}") from error
            except lmdb.Error as error:
                self._broken(error)
                raise Transient(f"the view of {self._topic} is damaged: {error}") from error

    def _grow(self, env: lmdb.Environment) -> None:
        env.reader_check()
        self._map_size = 2 * env.info()["map_size"]
        try:
            env.set_mapsize(self._map_size)
        except _NO_ROOM as error:
            raise Transient(f"no address space for the view of {self._topic}: {error}") from error
        _log.info("the view of %s may grow to %d bytes", self._topic, self._map_size)


def _put(transaction: lmdb.Transaction, message: Message, round: int) -> bool:
    """Write ``message`` unless it is older than what is there; whether it was news."""
    stored = stored_key(message.key)
    packed = transaction.get(stored)
    if packed is None and is_outdated(transaction, message):
        return False
    held = None if packed is None else unpack(stored, bytes(packed))[1]
    if held is not None and not held.takes(message):
        return False
    if is_dropped(message):
        return held is not None and held.body is not None and transaction.delete(stored)
    entry = entry_of(message, round)
    if held != entry:
        transaction.put(stored, pack(message.key, entry))
    return held is None or (held.revision, held.body) != (entry.revision, entry.body)


def _boot() -> str:
    """Which start of the machine this is; empty where that cannot be known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _note(path: Path, text: str) -> None:
    """Write ``text``; the time of a file that is there stays, see `View._is_whole`."""
    known = path.stat() if path.exists() else None
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if known is not None:
        os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
