"""The journal without disk, for tests: the same promises, shipped by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from libs.common.bus.ports import Bus, Record
from libs.common.clock import Clock
from libs.common.contracts.customer_event import SCHEMA, CustomerEvent, SpoolReported
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.topics import CUSTOMER_EVENTS, HEADER_SCHEMA, HEADER_SEQ, HEADER_SPOOL
from libs.common.errors import Transient
from libs.common.journal import Durability, LocalRow
from libs.common.position import Position
from libs.common.spool.rows import counted_source, head_mapping, part_of


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
        self._bus = bus
        self._service = service
        self._spool = spool
        self._clock = clock
        self._heads = [0] * PARTITIONS
        self._accepted: dict[str, int] = {}
        self._reported: dict[str, int] = {}
        self._waiting: list[tuple[int, Record]] = []
        self._local: list[LocalRow] = []
        self._numbers = 0

    @property
    def spool(self) -> str:
        """Identity of the spool."""
        return self._spool

    def head(self) -> Position:
        """Everything appended so far."""
        return Position(self._spool, head_mapping(self._heads))

    def accepted(self) -> Mapping[str, int]:
        """Events about customers by source, internal ones left out."""
        return dict(self._accepted)

    def append(self, events: Sequence[CustomerEvent], local: Sequence[tuple[str, bytes]] = ()) -> Position:
        """As `LocalJournal.append`."""
        if self.refuse is not None:
            raise self.refuse
        parts = [part_of(event) for event in events]
        for event, (partition, key, value) in zip(events, parts, strict=True):
            self._heads[partition] += 1
            headers = (
                (HEADER_SCHEMA, SCHEMA),
                (HEADER_SPOOL, self._spool.encode()),
                (HEADER_SEQ, b"%d" % self._heads[partition]),
            )
            self._waiting.append((partition, Record(key, value, headers)))
            if (source := counted_source(event)) is not None:
                self._accepted[source] = self._accepted.get(source, 0) + 1
        self.events.extend(events)
        for name, body in local:
            self._numbers += 1
            self._local.append(LocalRow(self._spool, self._numbers, name, body))
        return self.head()

    async def durable(self, position: Position, level: Durability) -> Durability:
        """At once; on level ``bus`` ships first, where there is a bus."""
        if self.failing:
            raise Transient("the spool cannot be written", retry_after=5.0)
        if level is Durability.BUS and self._bus is not None:
            try:
                await self.drain()
            except Transient:
                return Durability.SPOOL
            return Durability.BUS
        return Durability.SPOOL

    async def drain(self, report: bool = False) -> int:
        """Ship all that is not shipped yet, in order; returns how many records. ``report`` first appends
        a `SpoolReported` where the accepted counts changed. What fails stays and is shipped next time."""
        if report and self._accepted != self._reported:
            self._reported = dict(self._accepted)
            now = self._clock.now() if self._clock is not None else 0
            self.append(
                [
                    SpoolReported(
                        spool=self._spool, service=self._service, recorded_at=now, accepted=self._reported
                    )
                ]
            )
        if self._bus is None:
            return 0
        producer = self._bus.producer()
        shipped = 0
        try:
            for partition in sorted({partition for partition, _ in self._waiting}):
                records = [record for home, record in self._waiting if home == partition]
                await producer.send(CUSTOMER_EVENTS, partition, records)
                self._waiting = [pair for pair in self._waiting if pair[0] != partition]
                shipped += len(records)
        finally:
            await producer.close()
        return shipped

    async def local_rows(self, limit: int) -> Sequence[LocalRow]:
        """As `LocalJournal.local_rows`."""
        return self._local[:limit]

    async def release_local(self, rows: Sequence[LocalRow]) -> None:
        """As `LocalJournal.release_local`."""
        newest = max((row.number for row in rows), default=0)
        self._local = [row for row in self._local if row.number > newest]

    async def find_local(self, key: str) -> bytes | None:
        """As `LocalJournal.find_local`."""
        return next((row.body for row in reversed(self._local) if row.key == key), None)

    async def start(self) -> None:
        """Nothing to do."""

    async def watch(self) -> None:
        """Ends at once: nothing runs in the background."""

    async def stop(self) -> None:
        """Nothing to do."""
