"""Erased keys outside the database, hashed: a backup that is older than an erasure does not know of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from libs.common.errors import Misconfigured
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
                lines = self._path.read_text().splitlines() if self._path.exists() else []
                self._known = {_row(line) for line in lines if line.strip()}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise Misconfigured(f"{self._path} cannot be read: {error}") from None
        return set(self._known)

    def add(self, rows: Iterable[SuppressedRow]) -> int:
        """Append those of ``rows`` that are not there, durably; answers how many."""
        new = sorted(set(rows) - self.read())
        if not new:
            return 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "w") as file:
                file.writelines(_line(row) for row in new)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Misconfigured(f"{self._path} cannot be written: {error.strerror}") from None
        self._known = self.read() | set(new)
        return len(new)


def _row(line: str) -> SuppressedRow:
    found = json.loads(line)
    return SuppressedRow(int(found["partition"]), bytes.fromhex(found["hash"]), str(found["erasure"]))


def _line(row: SuppressedRow) -> str:
    return json.dumps({"partition": row.partition, "hash": row.hash.hex(), "erasure": row.erasure}) + "\n"
