"""How much room the spools of one process have left: their quota, and the disk they share with others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from libs.common.spool.file import Usage


@dataclass(frozen=True)
class RoomLimits:
    """What spools may take, in bytes.

    Parameters
    ----------
    quota:
        Most that rows may take before new events are refused.
    least_free:
        Free bytes of the disk below which new events are refused.
    """

    quota: int = 8 << 30
    least_free: int = 512 << 20

    @property
    def hard(self) -> int:
        """Most bytes of a file: above the quota, so that ticks and reports still fit."""
        return self.quota + max(16 << 20, self.quota // 16)


class Measured(Protocol):
    """A spool as its room sees it: ``written`` counts the bytes it was given so far."""

    written: int

    async def usage(self) -> Usage: ...


class Room:
    """Measured from time to time, and in between reckoned by what was written since.

    Attributes
    ----------
    used, free:
        Bytes in rows of all spools, and bytes the disk has left for them, when last measured.
    """

    def __init__(self, folder: Path, limits: RoomLimits) -> None:
        self.limits = limits
        self._folder = folder
        self._own: Measured | None = None
        self._written = 0
        self.used = 0
        self.free = self._disk()

    async def measure(self, spools: Sequence[Measured]) -> Usage:
        """Measure anew; the first of ``spools`` is the one that is written to. Returns its usage.

        Raises `Transient` or OSError where that cannot be found out; what was known then stays.
        """
        written = spools[0].written
        usages = [await spool.usage() for spool in spools]
        own = usages[0]
        self.free = await asyncio.to_thread(self._disk) + own.reusable
        self.used = sum(usage.live for usage in usages)
        self._own, self._written = spools[0], written
        return own

    def trouble(self) -> str | None:
        """Why no new event fits, None where it does."""
        grown = self._own.written - self._written if self._own is not None else 0
        limits = self.limits
        if self.used + grown >= limits.quota:
            return f"the spool has reached its quota of {limits.quota:,} bytes"
        # Twice: what is written goes through the log of the file first.
        if self.free - 2 * grown < limits.least_free:
            return f"the disk of the spool has less than {limits.least_free:,} bytes left"
        return None

    def _disk(self) -> int:
        state = os.statvfs(self._folder)
        return state.f_bavail * state.f_frsize
