"""The file of a spool: SQLite in WAL mode, one row for each pack of events. Blocking; knows no event loop."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from libs.common.clock import Millis
from libs.common.contracts.identity import PARTITIONS
from libs.common.errors import Misconfigured
from libs.common.spool.rows import Heads, Row

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS packs (number INTEGER PRIMARY KEY, state BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS local (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS local_key ON local (key);
"""
_LAYOUT = "1"
_ENDED = "ended"
_PAGE = 4096
_RELEASE_AT_ONCE = 200
_LOCAL_AT_ONCE = 64
_GIVE_BACK_AT_ONCE = 2_048
_LOG_BYTES = 8 << 20
_LOG_PAGES = 4_000
"""Where SQLite itself moves the log into the file, within a commit: only where `move_beside` has not."""


class SpoolState(msgspec.Struct, array_like=True, frozen=True):
    """Stored with each pack, so that the newest pack says where the spool stands.

    ``before`` and ``heads`` are the heads without and with the pack; ``accepted`` counts events by source;
    ``now`` is what the clock said.
    """

    before: Heads
    heads: Heads
    accepted: dict[str, int]
    now: Millis


class Usage(NamedTuple):
    """Bytes a spool takes: in rows, in pages that rows may use again, and in its write-ahead log."""

    live: int
    reusable: int
    log: int


_states = msgspec.msgpack.Decoder(SpoolState)
_bodies = msgspec.msgpack.Decoder(list[Row])
_encoder = msgspec.msgpack.Encoder()


class SpoolFile:
    """One spool on disk, locked for this process.

    Whatever writes belongs to one thread, what reads to another (or the same), `move_beside` to a third.
    Raises `Misconfigured` where the file cannot be used, BlockingIOError where another process holds it,
    FileNotFoundError where it is gone and ``create`` is false. ``ended``: it was given up, see `give_up`.
    """

    def __init__(self, path: Path, max_bytes: int, *, create: bool = True) -> None:
        self.path = path
        self.spool = path.stem.removeprefix("spool-")
        self._lock = _hold(path, create)
        self._moving = threading.Lock()
        try:
            self._writer = _connect(path, "FULL")
            self._writer.execute(f"PRAGMA max_page_count = {max_bytes // _PAGE}")
            self.ended = _lay_out(self._writer, path, self.spool)
            # Deletions have a connection of their own that does not fsync: one that a crash undoes is
            # only made again, and commits must never find the wrong setting.
            self._sweeper = _connect(path, "NORMAL")
            self._reader = _connect(path, "NORMAL")
            self._reader.execute("PRAGMA query_only = ON")
            self._mover = _connect(path, "NORMAL")
            self._pin = _connect(path, "NORMAL")
        except (sqlite3.Error, Misconfigured) as error:
            os.close(self._lock)
            raise Misconfigured(f"the spool {path} cannot be used: {error}") from error

    def stand(self) -> tuple[SpoolState, Heads]:
        """Where the spool stands, and by partition up to where everything is released."""
        zeros = [0] * PARTITIONS
        query = "SELECT state, body FROM packs ORDER BY number {} LIMIT 1"
        newest = self._writer.execute(query.format("DESC")).fetchone()
        if newest is None:
            return SpoolState(zeros, zeros, {}, 0), list(zeros)
        lowest, body = self._writer.execute(query.format("ASC")).fetchone()
        first = _states.decode(lowest)
        return _states.decode(newest[0]), list(first.before if _bodies.decode(body) else first.heads)

    def oldest(self) -> Millis | None:
        """What the clock said when the oldest pack still here was put in line; for the reading thread."""
        row = self._reader.execute("SELECT state FROM packs ORDER BY number LIMIT 1").fetchone()
        return None if row is None else _states.decode(row[0]).now

    def write(self, state: SpoolState, rows: Sequence[Row], local: Sequence[tuple[str, bytes]]) -> int:
        """Commit one pack, fsynced; returns its number. After an error nothing of it is there."""
        execute = self._writer.execute
        insert = "INSERT INTO packs (state, body) VALUES (?, ?)"
        values = (_encoder.encode(state), _encoder.encode(rows))
        if not local:
            # One statement, its own transaction: each further statement is one more hand-over of the
            # interpreter lock, which a busy event loop gives back late.
            return execute(insert, values).lastrowid or 0
        try:
            execute("BEGIN IMMEDIATE")
            number = execute(insert, values).lastrowid or 0
            for start in range(0, len(local), _LOCAL_AT_ONCE):
                some = local[start : start + _LOCAL_AT_ONCE]
                marks = ",".join(["(?,?)"] * len(some))
                flat = [value for pair in some for value in pair]
                execute(f"INSERT INTO local (key, body) VALUES {marks}", flat)
            execute("COMMIT")
        except BaseException:
            _roll_back(self._writer)
            raise
        return number

    def forget(self, levels: Heads) -> Heads | None:
        """Delete the oldest packs that ``levels`` covers, few at a time, so that commits need not wait.

        Returns up to where everything is now released, None where nothing was.
        """
        execute = self._sweeper.execute
        floor, last = None, 0
        query = "SELECT number, state FROM packs ORDER BY number LIMIT ?"
        for number, state in execute(query, (_RELEASE_AT_ONCE,)).fetchall():
            heads = _states.decode(state).heads
            if any(seq > level for seq, level in zip(heads, levels, strict=True)):
                break
            floor, last = heads, number
        if floor is None:
            return None
        try:
            execute("BEGIN IMMEDIATE")
            # Trap: the newest pack stays, empty: it says where the spool stands.
            (newest,) = execute("SELECT max(number) FROM packs").fetchone()
            execute("DELETE FROM packs WHERE number <= ?", (min(last, newest - 1),))
            if last == newest:
                execute("UPDATE packs SET body = ? WHERE number = ?", (_encoder.encode([]), newest))
            execute("COMMIT")
        except BaseException:
            _roll_back(self._sweeper)
            raise
        return floor

    def give_up(self) -> None:
        """Note that the spool is about to end, so that no process ever appends to it again."""
        self._writer.execute("INSERT OR IGNORE INTO meta VALUES (?, '1')", (_ENDED,))
        self.ended = True

    def forget_local(self, number: int) -> bool:
        """Delete the oldest few local rows up to ``number``, as `forget` does; whether none is left."""
        some = "SELECT number FROM local WHERE number <= ? ORDER BY number LIMIT ?"
        gone = self._sweeper.execute(f"DELETE FROM local WHERE number IN ({some})", (number, _LOCAL_AT_ONCE))
        return gone.rowcount < _LOCAL_AT_ONCE

    def read(self, number: int, max_bytes: int) -> list[tuple[int, list[Row]]]:
        """Packs from ``number`` on, in order, about ``max_bytes`` of them; at least one if there is any."""
        found, size = [], 0
        query = "SELECT number, body FROM packs WHERE number >= ? ORDER BY number"
        cursor = self._reader.execute(query, (number,))
        for pack, body in cursor:
            found.append((pack, _bodies.decode(body)))
            size += len(body)
            if size >= max_bytes:
                break
        cursor.close()
        return found

    def find(self, partition: int, seq: int) -> tuple[int, Row] | None:
        """Row ``seq`` of ``partition`` and the number of its pack; None where it is not there (any more)."""
        query = "SELECT {} FROM packs"
        low, high = self._reader.execute(query.format("min(number), max(number)")).fetchone()
        if low is None:
            return None
        # Numbers of packs have no gap; those that a release takes away meanwhile are the lowest.
        while low < high:
            middle = (low + high) // 2
            found = self._reader.execute(query.format("state") + " WHERE number = ?", (middle,)).fetchone()
            if found is not None and _states.decode(found[0]).heads[partition] >= seq:
                high = middle
            else:
                low = middle + 1
        for number, rows in self.read(low, 1):
            for row in rows:
                if row[:2] == (partition, seq):
                    return number, row
        return None

    def local_rows(self, limit: int) -> list[tuple[int, str, bytes]]:
        """The oldest local rows: number, key, body."""
        return self._reader.execute(
            "SELECT number, key, body FROM local ORDER BY number LIMIT ?", (limit,)
        ).fetchall()

    def find_local(self, key: str) -> bytes | None:
        """The newest local row under ``key``."""
        found = self._reader.execute(
            "SELECT body FROM local WHERE key = ? ORDER BY number DESC LIMIT 1", (key,)
        ).fetchone()
        return found[0] if found else None

    def move_beside(self) -> None:
        """Move what is in the log by now into the file while commits go on.

        What they add meanwhile is little, and once `move` has moved that too the log begins anew.
        """
        with self._moving:
            try:
                self._pin.execute("BEGIN")
                # Trap: SQLite before 3.51.3 loses commits where one begins the log anew just as a checkpoint
                # looks at a log that is all moved (sqlite.org/wal.html, "The WAL-reset bug"). No log begins
                # anew while somebody reads from it; and where all of it is moved, so that this one reads
                # from the file, the checkpoint finds the file in use and does nothing.
                self._pin.execute("SELECT count(*) FROM meta").fetchone()
                self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                _roll_back(self._pin)

    def move(self) -> None:
        """Move the log into the file, as far as it goes; on the thread that writes, so between commits."""
        self._sweeper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def usage(self) -> Usage:
        """How much of the disk the spool takes; for the reading thread."""
        pages = self._reader.execute("PRAGMA page_count").fetchone()[0]
        free = self._reader.execute("PRAGMA freelist_count").fetchone()[0]
        log = self.path.with_name(self.path.name + "-wal")
        return Usage((pages - free) * _PAGE, free * _PAGE, log.stat().st_size if log.exists() else 0)

    def give_back(self) -> None:
        """Return some free pages to the disk; a few at a time, so that commits need not wait."""
        # Trap: `execute` would take a single step of it, which is a single page.
        self._sweeper.executescript(f"PRAGMA incremental_vacuum({_GIVE_BACK_AT_ONCE})")
        # The file is cut off only where the log is moved into it.
        self.move()

    def compact(self) -> None:
        """Write the file anew without anything that was deleted, the log included; raises sqlite3.Error."""
        self._writer.execute("VACUUM")
        with self._moving:
            busy, *_ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("its log is in use")

    def close(self) -> None:
        """Close the file and give it up to others. No thread may be using it any more."""
        self._disconnect()
        os.close(self._lock)

    def delete(self) -> None:
        """Close the file and remove it: everything in it is applied."""
        self._disconnect()
        for name in (self.path, *(self.path.with_name(self.path.name + tail) for tail in ("-wal", "-shm"))):
            name.unlink(missing_ok=True)
        # Trap: the lock last and while it is held, or somebody would make the spool anew, from number 1.
        self.path.with_suffix(".lock").unlink(missing_ok=True)
        os.close(self._lock)

    def _disconnect(self) -> None:
        for connection in (self._pin, self._mover, self._reader, self._sweeper, self._writer):
            connection.close()


def _hold(path: Path, create: bool) -> int:
    # Trap: not the SQLite file itself: SQLite's own locks on it vanish when any descriptor to it is closed.
    name = path.with_suffix(".lock")
    lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not create and not path.exists():
            name.unlink(missing_ok=True)
            raise FileNotFoundError(errno.ENOENT, "the spool has ended", str(path))
        if os.fstat(lock).st_nlink == 0:
            # Trap: whoever deleted the spool has deleted its lock too; ours would keep nobody out.
            raise BlockingIOError(errno.EAGAIN, "the spool is just ending", str(path))
    except OSError:
        os.close(lock)
        raise
    return lock


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    # Only a new file takes it, and only before anything else: free pages can then be returned to the disk.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def _lay_out(connection: sqlite3.Connection, path: Path, spool: str) -> bool:
    """Make the tables where missing; whether the spool has been given up."""
    connection.executescript(_SCHEMA)
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('spool', ?), ('layout', ?)", (spool, _LAYOUT))
    known: dict[Any, Any] = dict(connection.execute("SELECT name, value FROM meta"))
    ended = known.pop(_ENDED, None) is not None
    if known != {"spool": spool, "layout": _LAYOUT}:
        raise Misconfigured(f"it was made by another version or renamed: {known}")
    path.chmod(0o600)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return ended


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
