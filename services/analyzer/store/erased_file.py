"""Erased keys outside the database, hashed: a backup that is older than an erasure does not know of it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path

from libs.common.errors import Misconfigured, Transient
from services.analyzer.model.erasures import SuppressedRow


class ErasedFile:
    """One line of JSON for each suppressed key, only ever appended to. Keep it with the backups.

    Parameters
    ----------
    path:
        Made where missing, readable by the owner alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[SuppressedRow] | None = None

    def read(self) -> set[SuppressedRow]:
        """All rows; raises `Misconfigured` where the file cannot be read."""
        if self._known is None:
            try:
                text = self._path.read_text() if self._path.exists() else ""
                # Trap: the last line counts only with its end. Without, its write was cut off by a crash, and
                # nobody was told that it is kept; its rows are added again.
                self._known = {_row(line) for line in text.split("\n")[:-1] if line.strip()}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise Misconfigured(f"{self._path} cannot be read: {error}") from None
        return set(self._known)

    def add(self, rows: Iterable[SuppressedRow]) -> int:
        """Append those of ``rows`` that are not there, durably; answers how many.

        Raises `Transient` where that fails: then none of them is there.
        """
        new = sorted(set(rows) - self.read())
        if not new:
            return 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                _append(handle, "".join(map(_line, new)).encode())
            finally:
                os.close(handle)
        except OSError as error:
            raise Transient(f"{self._path} cannot be written: {error.strerror}") from None
        self._known = self.read() | set(new)
        return len(new)


def _append(handle: int, data: bytes) -> None:
    """All of ``data`` or nothing; what a crash has cut off before it goes."""
    fcntl.flock(handle, fcntl.LOCK_EX)
    size = os.fstat(handle).st_size
    whole = os.pread(handle, size, 0).rfind(b"\n") + 1
    if whole < size:
        os.ftruncate(handle, whole)
    try:
        if os.write(handle, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, whole)
        raise


def _row(line: str) -> SuppressedRow:
    found = json.loads(line)
    return SuppressedRow(int(found["partition"]), bytes.fromhex(found["hash"]), str(found["erasure"]))


def _line(row: SuppressedRow) -> str:
    return json.dumps({"partition": row.partition, "hash": row.hash.hex(), "erasure": row.erasure}) + "\n"
