"""A spool as the event loop sees it: rows wait in line, a writer thread commits all of them together."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from libs.common.clock import Millis
from libs.common.contracts.identity import PARTITIONS
from libs.common.errors import SpoolFull, Transient
from libs.common.journal import LocalRow
from libs.common.spool.file import SpoolFile, SpoolState, Usage
from libs.common.spool.metrics import SpoolMetrics
from libs.common.spool.room import RoomLimits
from libs.common.spool.rows import Heads, Part, Row

_log = logging.getLogger(__name__)

_LINE_BYTES = 64 << 20
_ROW_BYTES = 200
_BULK_ROWS = 512
_LOG_BYTES, _COMMIT_BYTES = 4 << 20, 12 << 10

T = TypeVar("T")


class Pack:
    """Rows that are committed together, and who waits for them."""

    __slots__ = ("accepted", "before", "error", "heads", "local", "now", "number", "rows", "size", "waiters")

    def __init__(self, before: Heads) -> None:
        self.before = before
        self.heads = before
        self.accepted: dict[str, int] = {}
        self.now: Millis = 0
        self.rows: list[Row] = []
        self.local: list[tuple[str, bytes]] = []
        self.size = 0
        self.number = 0
        self.error: Transient | None = None
        self.waiters: list[asyncio.Future[None]] = []

    async def committed(self) -> None:
        """Wait until the pack is fsynced; raises `Transient` where it could not be."""
        if self.error is not None:
            raise self.error
        if not self.number:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            await waiter


class SpoolStore:
    """One spool file, held by this process alone.

    Sequence numbers are given on the event loop when rows are put in line. One pack is in flight to the
    writer thread while the next one collects; when a commit fails, everything in line fails with it and
    the heads go back, so numbers on disk never have a gap.

    Parameters
    ----------
    path:
        The file ``spool-ID.sqlite``; made where missing.
    now:
        The clock; its value is stored with each pack.
    max_bytes:
        Most bytes of the file; a commit beyond fails.
    create:
        Whether the file may be made; else FileNotFoundError where it is not there.

    Attributes
    ----------
    written:
        Bytes that were put in line so far.
    trouble:
        Why the last commit failed, None once one has succeeded.
    """

    def __init__(
        self,
        path: Path,
        now: Callable[[], Millis],
        max_bytes: int = RoomLimits().hard,
        *,
        metrics: SpoolMetrics | None = None,
        create: bool = True,
    ) -> None:
        self._file = SpoolFile(path, max_bytes, create=create)
        self._metrics = metrics or SpoolMetrics()
        self.written = 0
        self.trouble: str | None = None
        self.spool = self._file.spool
        self._now = now
        state, floor = self._file.stand()
        self.heads: Heads = list(state.heads)
        self.committed: Heads = list(state.heads)
        self.floor: Heads = floor
        """By partition: everything up to here is applied and gone from disk."""
        self.accepted: dict[str, int] = dict(state.accepted)
        self._accepted_on_disk = dict(state.accepted)
        self.last_now: Millis = state.now
        self.on_commit: Callable[[Pack], None] = lambda pack: None
        self._line = Pack(list(self.heads))
        self._flying: Pack | None = None
        self._landed_last = Pack(self.committed)
        self._landed_last.number = -1
        self._launching = False
        self._uncommitted: dict[str, bytes] = {}
        self._releasing = False
        self._logged = 0
        self._mover: threading.Thread | None = None
        self._levels: Heads = [0] * PARTITIONS
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"spool-{self.spool}", daemon=True)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="spool-reader")

    # --- on the event loop

    def start(self) -> None:
        """Begin to commit; needs the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._wake()

    async def flush(self, patience: float = 3.0) -> None:
        """Take no more, and wait at most ``patience`` seconds for what is in line."""
        self._closed = True
        if self._loop is None:
            return
        try:
            async with asyncio.timeout(patience):
                await self.pending().committed()
        except (TimeoutError, Transient):
            _log.error("spool %s: not all that was in line could be written", self.spool)

    async def stop(self, delete: bool = False) -> None:
        """Commit what is in line, at most for three seconds, and close the file, or ``delete`` it."""
        await self.flush()
        self._jobs.put(None)
        threads = [thread for thread in (self._thread, self._mover) if thread and thread.is_alive()]
        await asyncio.gather(*(asyncio.to_thread(thread.join, 5) for thread in threads))
        stuck = any(thread.is_alive() for thread in threads)
        self._readers.shutdown(wait=not stuck, cancel_futures=True)
        if stuck:
            _log.error("spool %s: the disk does not answer, left open", self.spool)
        else:
            # In a thread: the last of the log is moved.
            await asyncio.to_thread(self._file.delete if delete else self._file.close)

    def put(
        self, parts: Sequence[Part], local: Sequence[tuple[str, bytes]] = (), sources: Sequence[str] = ()
    ) -> Pack:
        """Put ``parts`` and ``local`` rows in line for one transaction, counting ``sources`` as accepted."""
        pack = self._line if parts or local else self.pending()
        if self._closed or pack.size > _LINE_BYTES:
            self._metrics.refused.add(1, "busy")
            raise Transient("the spool is closing" if self._closed else "the disk is too slow for the spool")
        heads, rows, size = self.heads, pack.rows, 0
        for partition, key, value in parts:
            heads[partition] = seq = heads[partition] + 1
            rows.append((partition, seq, key, value))
            size += len(value)
        for key_text, body in local:
            pack.local.append((key_text, body))
            self._uncommitted[key_text] = body
            size += len(body)
        accepted = self.accepted
        for source in sources:
            accepted[source] = accepted.get(source, 0) + 1
        size += _ROW_BYTES * len(parts)
        pack.size += size
        self.written += size
        if not self._launching:
            self._wake()
        return pack

    def pending(self) -> Pack:
        """The youngest pack that has something in it, committed or not."""
        line = self._line
        return line if line.rows or line.local else self._flying or self._landed_last

    def _wake(self) -> None:
        if self._loop is not None and self._flying is None and (self._line.rows or self._line.local):
            # Not at once: whatever else this round of the event loop appends shares the commit.
            self._launching = True
            self._loop.call_soon(self._launch, 0)

    def _launch(self, seen: int) -> None:
        rows = len(self._line.rows)
        if seen < rows < _BULK_ROWS and self._loop is not None:
            # Others are being answered or arrive right now: a commit costs more than another round for them.
            self._loop.call_soon(self._launch, rows)
            return
        pack, self._flying = self._line, self._line
        pack.heads, pack.accepted, pack.now = list(self.heads), dict(self.accepted), self._now()
        self._line = Pack(pack.heads)
        self._jobs.put(lambda: self._commit(pack))

    def _landed(self, pack: Pack, number: int, seconds: float) -> None:
        self._metrics.commit_seconds.observe(seconds)
        self.trouble = None
        pack.number = number
        self.committed, self._accepted_on_disk = pack.heads, pack.accepted
        for key, body in pack.local:
            if self._uncommitted.get(key) is body:
                del self._uncommitted[key]
        for waiter in pack.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._flying, self._landed_last, self._launching = None, pack, False
        self._wake()
        self.on_commit(pack)
        self._log(pack)

    def _log(self, pack: Pack) -> None:
        """Have the log moved into the file where it has become long, while commits go on."""
        # Twice: what is committed is deleted again before long.
        self._logged += 2 * (_COMMIT_BYTES + pack.size)
        busy = self._closed or (self._mover is not None and self._mover.is_alive())
        if self._logged > _LOG_BYTES and not busy:
            mover = threading.Thread(target=self._move_beside, name=f"spool-log-{self.spool}", daemon=True)
            mover.start()
            self._logged, self._mover = 0, mover

    def _crashed(self, pack: Pack, error: Exception) -> None:
        _log.error("spool %s: commit of %d rows failed: %s", self.spool, len(pack.rows), error)
        full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
        self.trouble = f"the spool cannot be written: {error}"
        # Trap: what is in line behind a failed pack must fail too, or its numbers would leave a gap.
        for lost in (pack, self._line):
            lost.error = SpoolFull(self.trouble) if full else Transient(self.trouble, retry_after=5.0)
            self._metrics.refused.add(len(lost.waiters), "full" if full else "failed")
            for waiter in lost.waiters:
                if not waiter.done():
                    waiter.set_exception(lost.error)
        self.heads, self.accepted = list(self.committed), dict(self._accepted_on_disk)
        self._uncommitted.clear()
        self._line = Pack(list(self.heads))
        self._flying, self._launching = None, False

    def release(self, applied: Mapping[int, int]) -> None:
        """Delete what is applied, oldest first, soon; ``applied`` is by partition."""
        self._levels = [max(old, applied.get(p, 0)) for p, old in enumerate(self._levels)]
        if not self._releasing:
            self._release_some()

    def _release_some(self) -> None:
        gone = all(low >= level for low, level in zip(self.floor, self._levels, strict=True))
        self._releasing = not (gone or self._closed or self._loop is None or self.floor == self.committed)
        if self._releasing:
            levels = self._levels
            self._jobs.put(lambda: self._forget(levels))

    def _released(self, floor: Heads | None) -> None:
        self._releasing = False
        if floor is not None:
            self.floor = floor
            self._release_some()

    async def read(self, number: int, max_bytes: int) -> list[tuple[int, list[Row]]]:
        """Committed packs from ``number`` on, in order, about ``max_bytes`` of them."""
        return await self._on_reader(lambda: self._file.read(number, max_bytes))

    async def oldest(self) -> Millis | None:
        """When the oldest pack still on disk was put in line; None where there is none."""
        return await self._on_reader(self._file.oldest)

    async def find(self, partition: int, seq: int) -> tuple[int, Row] | None:
        """Committed row ``seq`` of ``partition`` and the number of its pack; None where it is released."""
        return await self._on_reader(lambda: self._file.find(partition, seq))

    async def local_rows(self, limit: int) -> list[LocalRow]:
        """The oldest committed local rows."""
        found = await self._on_reader(lambda: self._file.local_rows(limit))
        return [LocalRow(self.spool, number, key, body) for number, key, body in found]

    async def find_local(self, key: str) -> bytes | None:
        """The newest local row under ``key``."""
        if (body := self._uncommitted.get(key)) is not None:
            return body
        return await self._on_reader(lambda: self._file.find_local(key))

    async def release_local(self, number: int) -> None:
        """Delete local rows up to ``number``."""
        gone = False

        def forget_some() -> None:
            nonlocal gone
            gone = self._file.forget_local(number)

        while not gone and not await self._on_writer("local rows could not be released", forget_some):
            pass

    async def usage(self) -> Usage:
        """How much of the disk the spool takes."""
        return await self._on_reader(self._file.usage)

    @property
    def ended(self) -> bool:
        """Whether the spool was given up: nothing new is appended to it by anybody."""
        return self._file.ended

    async def give_up(self) -> None:
        """Note on disk that the spool is about to end; `ended` says whether that has worked."""
        await self._on_writer("the spool cannot be given up yet", self._file.give_up)

    async def give_back(self) -> None:
        """Return some of the pages that are free to the disk."""
        await self._on_writer("free pages were kept", self._file.give_back)

    async def compact(self) -> None:
        """Write the file anew, so that nothing released is left in it; raises `Transient`."""
        otherwise = "the spool was not compacted"
        if (error := await self._on_writer(otherwise, self._file.compact)) is not None:
            raise Transient(f"{otherwise}: {error}", retry_after=5.0)

    async def _on_writer(self, otherwise: str, work: Callable[[], None]) -> sqlite3.Error | None:
        """Have the writer do ``work`` that is made good for by doing it again later; log where it failed."""
        if self._closed or self._loop is None:
            raise Transient("the spool is closed")
        done: asyncio.Future[sqlite3.Error | None] = self._loop.create_future()
        self._jobs.put(lambda: self._attempt(otherwise, work, done))
        return await done

    async def _on_reader(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)
        except (sqlite3.Error, RuntimeError) as error:
            # RuntimeError: it was closed meanwhile, as an adopted one is when it has ended.
            raise Transient(f"the spool cannot be read: {error}", retry_after=5.0) from error

    # --- on a thread of its own

    def _move_beside(self) -> None:
        self._try("the log was not moved", self._file.move_beside)
        self._jobs.put(lambda: self._try("the log was not moved", self._file.move))

    # --- on the writer thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _tell(self, callback: Callable[[], None]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def _commit(self, pack: Pack) -> None:
        state = SpoolState(pack.before, pack.heads, pack.accepted, pack.now)
        began = time.perf_counter()
        try:
            number = self._file.write(state, pack.rows, pack.local)
        except Exception as error:
            reason = error
            self._tell(lambda: self._crashed(pack, reason))
        else:
            seconds = time.perf_counter() - began
            self._tell(lambda: self._landed(pack, number, seconds))

    def _forget(self, levels: Heads) -> None:
        floor = None
        try:
            floor = self._file.forget(levels)
        except sqlite3.Error as error:
            _log.warning("spool %s: rows could not be released: %s", self.spool, error)
        self._tell(lambda: self._released(floor))

    def _attempt(
        self, otherwise: str, work: Callable[[], None], done: asyncio.Future[sqlite3.Error | None]
    ) -> None:
        failed = self._try(otherwise, work)
        self._tell(lambda: _settle(done, failed))

    def _try(self, otherwise: str, work: Callable[[], None]) -> sqlite3.Error | None:
        try:
            work()
        except sqlite3.Error as error:
            _log.warning("spool %s: %s: %s", self.spool, otherwise, error)
            return error
        return None


def _settle(done: asyncio.Future[sqlite3.Error | None], failed: sqlite3.Error | None) -> None:
    if not done.done():
        done.set_result(failed)
