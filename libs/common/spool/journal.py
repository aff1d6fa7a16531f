"""The journal on a spool: what services append to, fsynced before anybody hears 202."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from libs.common.bus.ports import Bus
from libs.common.clock import Clock
from libs.common.contracts.customer_event import CustomerEvent
from libs.common.journal import Durability, LocalRow
from libs.common.position import Position
from libs.common.progress import ProgressBoard


class SpoolJournal:
    """Implements `libs.common.journal.LocalJournal` on SQLite and ships to ``customer-events``.

    Made by `open_journal`. Rows leave the disk only when the board says they are applied. Appends a
    `SpoolReported` at most once a second while its accepted counts change. Other spools of this service
    found at start are shipped (and their local rows handed out) too, but never appended to.
    """

    @property
    def spool(self) -> str:
        """Identity of the spool that is appended to."""
        ...

    def head(self) -> Position:
        """Everything put in line so far."""

    def shipped(self) -> Mapping[int, int]:
        """By partition: highest sequence number acknowledged by the present broker."""

    def accepted(self) -> Mapping[str, int]:
        """Events about customers accepted since the spool was made, by source, internal ones left out."""

    def backlog(self) -> int:
        """Records that are accepted but not acknowledged by the bus, of all spools in hand."""

    async def start(self) -> None:
        """Begin to commit, ship, report and release; returns at once, also when the broker is away."""

    async def stop(self) -> None:
        """Commit what is in line, give shipping a second, close; five seconds at most."""

    def append(self, events: Sequence[CustomerEvent], local: Sequence[tuple[str, bytes]] = ()) -> Position:
        """As `LocalJournal.append`."""

    async def durable(self, position: Position, level: Durability) -> Durability:
        """As `Journal.durable`."""

    async def local_rows(self, limit: int) -> Sequence[LocalRow]:
        """As `LocalJournal.local_rows`; those of adopted spools first."""

    async def release_local(self, rows: Sequence[LocalRow]) -> None:
        """As `LocalJournal.release_local`."""

    async def find_local(self, key: str) -> bytes | None:
        """As `LocalJournal.find_local`."""


def open_journal(directory: Path, service: str, bus: Bus, board: ProgressBoard, clock: Clock) -> SpoolJournal:
    """Open this service's spool under ``directory``/``service``, or make one.

    An unlocked spool found there is continued with its id; one that another process holds is left alone.
    Where ``clock`` is a `JournalClock` it is moved to where the spool last saw it. Raises `Misconfigured`
    where the directory cannot be used. Call ``await journal.start()`` on the running loop afterwards.
    """
    ...
