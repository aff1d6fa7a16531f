"""The journal on a spool: what services append to, fsynced before anybody hears 202."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from secrets import token_hex

from libs.common.background import Background
from libs.common.bus.ports import Bus
from libs.common.clock import Clock, JournalClock, Millis
from libs.common.contracts.customer_event import CustomerEvent, SpoolReported
from libs.common.contracts.identity import PARTITIONS
from libs.common.errors import Misconfigured, Transient
from libs.common.journal import Durability, LocalRow
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.spool.rows import counted_source, head_mapping, part_of
from libs.common.spool.shipper import Shipper
from libs.common.spool.store import Pack, SpoolStore

_log = logging.getLogger(__name__)

_BUS_PATIENCE = 2.0
_REPORT_EVERY = 1.0
_RELEASE_EVERY = 0.25


@dataclass(frozen=True)
class _Ticket(Position):
    """A position that knows its transaction: numbers alone are given out anew after a failed commit."""

    pack: Pack = field(compare=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Position):
            return NotImplemented
        return self.spool == other.spool and dict(self.heads) == dict(other.heads)

    __hash__ = None  # type: ignore[assignment]


class SpoolJournal:
    """Implements `libs.common.journal.LocalJournal` on SQLite and ships to ``customer-events``.

    Made by `open_journal`. Rows leave the disk only when the board says they are applied. Appends a
    `SpoolReported` at most once a second while its accepted counts change. Other spools of this service
    found at start are shipped (and their local rows handed out) too, but never appended to.

    Parameters
    ----------
    stores:
        The spool that is appended to, then adopted ones.
    patience:
        Seconds `durable` waits for the bus.
    """

    def __init__(
        self,
        stores: Sequence[SpoolStore],
        service: str,
        bus: Bus,
        board: ProgressBoard,
        clock: Clock,
        patience: float = _BUS_PATIENCE,
    ) -> None:
        self._store = stores[0]
        self._stores = {store.spool: store for store in stores}
        self._shippers = {store.spool: Shipper(store, bus, Random()) for store in stores}
        self._shipper = self._shippers[self._store.spool]
        self._service = service
        self._board = board
        self._clock = clock
        self._patience = patience
        self._reported: dict[str, int] = {}
        self._progressed = asyncio.Event()
        self._background = Background()

    @property
    def spool(self) -> str:
        """Identity of the spool that is appended to."""
        return self._store.spool

    def head(self) -> Position:
        """Everything put in line so far."""
        return self._ticket(self._store.pending())

    def shipped(self) -> Mapping[int, int]:
        """By partition: highest sequence number acknowledged by the present broker."""
        return self._shipper.shipped()

    def accepted(self) -> Mapping[str, int]:
        """Events about customers accepted since the spool was made, by source, internal ones left out."""
        return dict(self._store.accepted)

    def backlog(self) -> int:
        """Records that are committed but not acknowledged by the bus, of all spools in hand."""
        return sum(shipper.backlog() for shipper in self._shippers.values())

    def unapplied(self) -> int:
        """Records that are committed but not applied by the analyzer, of all spools in hand."""
        return sum(shipper.unapplied() for shipper in self._shippers.values())

    async def age(self) -> Millis:
        """How long the oldest record that is not applied has been waiting, in ms; 0 where none is."""
        oldest = [
            await store.oldest() for spool, store in self._stores.items() if self._shippers[spool].unapplied()
        ]
        return max((self._clock.now() - at for at in oldest if at is not None), default=0)

    async def start(self) -> None:
        """Begin to commit, ship, report and release; returns at once, also when the broker is away."""
        for spool, store in self._stores.items():
            store.start()
            self._shippers[spool].start(self._background)
        self._board.subscribe(lambda board: self._progressed.set())
        self._background.spawn(self._report())
        self._background.spawn(self._follow_board())

    async def watch(self) -> None:
        """Wait for ever, or raise what a background task died of: for `Service.background`."""
        await self._background.watch()

    async def stop(self) -> None:
        """Commit what is in line, give shipping a second, close; some seconds at most."""
        await self._store.flush()
        await asyncio.gather(*(shipper.drain(1.0) for shipper in self._shippers.values()))
        await self._background.stop()
        await asyncio.gather(*(shipper.close() for shipper in self._shippers.values()))
        for store in self._stores.values():
            await store.stop()

    def append(self, events: Sequence[CustomerEvent], local: Sequence[tuple[str, bytes]] = ()) -> Position:
        """As `LocalJournal.append`."""
        # Encoded before anything is counted: an event that cannot be encoded leaves no trace.
        parts = [part_of(event) for event in events]
        sources = [source for event in events if (source := counted_source(event)) is not None]
        return self._ticket(self._store.put(parts, local, sources))

    def _ticket(self, pack: Pack) -> Position:
        return _Ticket(self._store.spool, head_mapping(self._store.heads), pack)

    async def durable(self, position: Position, level: Durability) -> Durability:
        """As `Journal.durable`."""
        if isinstance(position, _Ticket):
            await position.pack.committed()
        else:
            await self._known(position)
        if level is Durability.BUS:
            shipper = self._shippers[position.spool]
            if await shipper.reached(position.heads, self._patience):
                return Durability.BUS
        return Durability.SPOOL

    async def _known(self, position: Position) -> None:
        """Wait for a position that came from outside."""
        store = self._stores.get(position.spool)
        if store is None or any(not 0 <= p < PARTITIONS for p in position.heads):
            raise Transient("this is not a position of a spool in hand")
        if not position.covered_by(head_mapping(store.committed)):
            await store.pending().committed()
            if not position.covered_by(head_mapping(store.committed)):
                raise Transient("the spool has not come as far as this position")

    async def local_rows(self, limit: int) -> Sequence[LocalRow]:
        """As `LocalJournal.local_rows`; those of adopted spools first."""
        rows: list[LocalRow] = []
        for store in reversed(self._stores.values()):
            if len(rows) < limit:
                rows += await store.local_rows(limit - len(rows))
        return rows

    async def release_local(self, rows: Sequence[LocalRow]) -> None:
        """As `LocalJournal.release_local`."""
        newest: dict[str, int] = {}
        for row in rows:
            newest[row.spool] = max(newest.get(row.spool, 0), row.number)
        for spool, number in newest.items():
            await self._stores[spool].release_local(number)

    async def find_local(self, key: str) -> bytes | None:
        """As `LocalJournal.find_local`."""
        for store in self._stores.values():
            if (body := await store.find_local(key)) is not None:
                return body
        return None

    async def _report(self) -> None:
        """Tell the ledger what was accepted, once at start and then when it changed."""
        while True:
            accepted = dict(self._store.accepted)
            if accepted != self._reported:
                report = SpoolReported(
                    spool=self.spool,
                    service=self._service,
                    recorded_at=self._clock.now(),
                    accepted=accepted,
                )
                try:
                    # Not awaited: a report whose commit fails is made again with the next change.
                    self._store.put([part_of(report)])
                    self._reported = accepted
                except Transient as error:
                    _log.warning("no report of spool %s: %s", self.spool, error)
            await asyncio.sleep(_REPORT_EVERY)

    async def _follow_board(self) -> None:
        """Release what is applied."""
        while True:
            self._progressed.clear()
            for spool, store in self._stores.items():
                if applied := self._board.applied(spool):
                    self._shippers[spool].applied(applied)
                    store.release(applied)
            await self._progressed.wait()
            await asyncio.sleep(_RELEASE_EVERY)


def open_journal(directory: Path, service: str, bus: Bus, board: ProgressBoard, clock: Clock) -> SpoolJournal:
    """Open this service's spool under ``directory``/``service``, or make one.

    An unlocked spool found there is continued with its id; one that another process holds is left alone.
    Where ``clock`` is a `JournalClock` it is moved to where the spool last saw it. Raises `Misconfigured`
    where the directory cannot be used. Call ``await journal.start()`` on the running loop afterwards.
    """
    folder = directory / service
    stores: list[SpoolStore] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("spool-*.sqlite")):
            try:
                stores.append(SpoolStore(path, clock.now))
            except BlockingIOError:
                _log.info("%s is held by another process", path)
        if not stores:
            stores.append(SpoolStore(folder / f"spool-{token_hex(8)}.sqlite", clock.now))
    except OSError as error:
        raise Misconfigured(f"{folder} cannot hold a spool: {error.strerror or error}") from error
    if isinstance(clock, JournalClock):
        clock.advance(max(store.last_now for store in stores))
    for store in stores[1:]:
        _log.warning("adopted spool %s: it is shipped, new events go to %s", store.spool, stores[0].spool)
    return SpoolJournal(stores, service, bus, board, clock)
