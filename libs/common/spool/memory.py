"""The journal without disk, for tests: the same promises, shipped by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from libs.common.bus.ports import Bus
from libs.common.clock import Clock
from libs.common.contracts.customer_event import CustomerEvent
from libs.common.journal import Durability, LocalRow
from libs.common.position import Position


class MemoryJournal:
    """Implements `libs.common.journal.LocalJournal` in memory.

    ``events`` is everything appended, in order. With ``refuse`` set, `append` raises that error; with
    ``failing`` set, `durable` raises `Transient`, as after a failed commit. Where there is a bus,
    `drain` ships to it.
    """

    def __init__(
        self,
        bus: Bus | None = None,
        *,
        service: str = "test",
        spool: str = "00000000000000aa",
        clock: Clock | None = None,
    ) -> None:
        self.events: list[CustomerEvent] = []
        self.refuse: Exception | None = None
        self.failing = False

    @property
    def spool(self) -> str:
        """Identity of the spool."""
        ...

    def head(self) -> Position:
        """Everything appended so far."""

    def accepted(self) -> Mapping[str, int]:
        """Events about customers by source, internal ones left out."""

    def append(self, events: Sequence[CustomerEvent], local: Sequence[tuple[str, bytes]] = ()) -> Position:
        """As `LocalJournal.append`."""

    async def durable(self, position: Position, level: Durability) -> Durability:
        """At once; on level ``bus`` ships first, where there is a bus."""

    async def drain(self, report: bool = False) -> int:
        """Ship all that is not shipped yet, in order; returns how many records. ``report`` first appends
        a `SpoolReported` where the accepted counts changed."""

    async def local_rows(self, limit: int) -> Sequence[LocalRow]:
        """As `LocalJournal.local_rows`."""

    async def release_local(self, rows: Sequence[LocalRow]) -> None:
        """As `LocalJournal.release_local`."""

    async def find_local(self, key: str) -> bytes | None:
        """As `LocalJournal.find_local`."""

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""
