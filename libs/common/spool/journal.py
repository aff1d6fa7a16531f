"""The journal on a spool: what services append to, fsynced before anybody hears 202."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from libs.common.background import Background
from libs.common.bus.ports import Bus
from libs.common.clock import Clock, JournalClock, Millis, WallClock
from libs.common.contracts.customer_event import CustomerEvent, SpoolReported
from libs.common.contracts.identity import PARTITIONS
from libs.common.errors import Misconfigured, SpoolFull, Transient
from libs.common.journal import Durability, LocalRow
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.spool.folder import SpoolFolder
from libs.common.spool.metrics import SpoolMetrics
from libs.common.spool.restored import carry_over, is_restored
from libs.common.spool.room import Room, RoomLimits
from libs.common.spool.rows import counted_source, head_mapping, home_of, part_of
from libs.common.spool.shipper import Shipper
from libs.common.spool.store import Pack, SpoolStore
from libs.common.spool.ticket import Ticket

_log = logging.getLogger(__name__)

_BUS_PATIENCE = 2.0
_PACE = 1.0
_ORPHANS_EVERY = 60
_KEPT_FREE = 16 << 20
_RELEASE_EVERY = 0.25


@dataclass(frozen=True)
class _Held:
    """A spool in hand, and what works for it."""

    store: SpoolStore
    shipper: Shipper
    background: Background


class SpoolJournal:
    """Implements `libs.common.journal.LocalJournal` on SQLite and ships to ``customer-events``.

    Made by `open_journal`. Rows leave the disk only when the board says they are applied. Appends a
    `SpoolReported` at most once a second while its accepted counts change. Other spools of this service
    that nobody holds, at start or later, are adopted: shipped, their local rows handed out, never appended
    to. When all of one is applied it says so (`SpoolReported.ended`), and once that is applied it is deleted.

    Parameters
    ----------
    stores:
        The spool that is appended to, then adopted ones.
    patience:
        Seconds `durable` waits for the bus.
    folder:
        Where to look for further spools, and how much room there is; None: nowhere, and without limit.
    pace:
        Seconds between two looks at room and reports; orphans are looked for every sixty of them.
    """

    def __init__(
        self,
        stores: Sequence[SpoolStore],
        service: str,
        bus: Bus,
        board: ProgressBoard,
        clock: Clock,
        patience: float = _BUS_PATIENCE,
        *,
        folder: SpoolFolder | None = None,
        metrics: SpoolMetrics | None = None,
        pace: float = _PACE,
    ) -> None:
        self._store = stores[0]
        self._service = service
        self._bus = bus
        self._board = board
        self._clock = clock
        self._patience = patience
        self._folder = folder
        self._metrics = metrics or SpoolMetrics()
        self._pace = pace
        self._reported: dict[str, dict[str, int]] = {}
        self._ended: set[str] = set()
        self._progressed = asyncio.Event()
        self._background = Background()
        self._held: dict[str, _Held] = {}
        for store in stores:
            self._take(store)
        self._shipper = self._held[self._store.spool].shipper

    def _take(self, store: SpoolStore) -> _Held:
        if store is not self._store:
            _log.warning("adopted spool %s: it is shipped, new events go to %s", store.spool, self.spool)
            self._metrics.adopted.add()
        shipper = Shipper(store, self._bus, Random(), metrics=self._metrics)
        held = self._held[store.spool] = _Held(store, shipper, Background(self._background))
        return held

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
        return sum(held.shipper.backlog() for held in self._held.values())

    def unapplied(self) -> int:
        """Records that are committed but not applied by the analyzer, of all spools in hand."""
        return sum(held.shipper.unapplied() for held in self._held.values())

    async def age(self) -> Millis:
        """How long the oldest record that is not applied has been waiting, in ms; 0 where none is."""
        waiting = [held.store for held in self._held.values() if held.shipper.unapplied()]
        oldest = [await store.oldest() for store in waiting]
        return max((self._clock.now() - at for at in oldest if at is not None), default=0)

    async def start(self) -> None:
        """Begin to commit, ship, report and release; returns at once, also when the broker is away."""
        for held in self._held.values():
            _start(held)
        self._board.subscribe(lambda board: self._progressed.set())
        self._background.spawn(self._tend())
        self._background.spawn(self._follow_board())

    async def watch(self) -> None:
        """Wait for ever, or raise what a background task died of: for `Service.background`."""
        await self._background.watch()

    async def stop(self) -> None:
        """Commit what is in line, give shipping a second, close; some seconds at most."""
        await self._store.flush()
        await asyncio.gather(*(held.shipper.drain(1.0) for held in self._held.values()))
        await self._background.stop()
        for held in self._held.values():
            await held.background.stop()
        await asyncio.gather(*(held.shipper.close() for held in self._held.values()))
        for held in self._held.values():
            await held.store.stop()

    def append(self, events: Sequence[CustomerEvent], local: Sequence[tuple[str, bytes]] = ()) -> Position:
        """As `LocalJournal.append`."""
        # Encoded before anything is counted: an event that cannot be encoded leaves no trace.
        parts = [part_of(event) for event in events]
        sources = [source for event in events if (source := counted_source(event)) is not None]
        if sources and self._folder is not None and (trouble := self._folder.room.trouble()) is not None:
            # Only what people send is refused: without ticks and reports nothing would move any more.
            self._metrics.refused.add(1, "full")
            raise SpoolFull(trouble)
        return self._ticket(self._store.put(parts, local, sources))

    def trouble(self) -> str | None:
        """Why no event would be taken just now; None where it would."""
        full = self._folder.room.trouble() if self._folder is not None else None
        return full or self._store.trouble

    def room(self) -> Room | None:
        """How much room there is, as last measured."""
        return self._folder.room if self._folder is not None else None

    async def compact(self) -> None:
        """Write all spools in hand anew, so that nothing released is left in their files.

        Raises `Transient` where one could not be.
        """
        for held in list(self._held.values()):
            await held.store.compact()

    async def released(self, within: float) -> bool:
        """Wait until all that is in line by now is applied and released; False after ``within`` seconds."""
        begun = [(held.store, list(held.store.heads)) for held in self._held.values()]
        try:
            async with asyncio.timeout(within):
                while any(
                    store.spool in self._held and low < head
                    for store, heads in begun
                    for low, head in zip(store.floor, heads, strict=True)
                ):
                    await asyncio.sleep(_RELEASE_EVERY / 5)
        except TimeoutError:
            return False
        return True

    def _ticket(self, pack: Pack) -> Position:
        return Ticket(self._store.spool, head_mapping(self._store.heads), pack)

    async def durable(self, position: Position, level: Durability) -> Durability:
        """As `Journal.durable`."""
        if isinstance(position, Ticket):
            await position.pack.committed()
        else:
            await self._known(position)
        if level is Durability.BUS:
            held = self._held.get(position.spool)
            if held is None or await held.shipper.reached(position.heads, self._patience):
                return Durability.BUS
        return Durability.SPOOL

    async def _known(self, position: Position) -> None:
        """Wait for a position that came from outside."""
        if position.spool in self._ended:
            return
        held = self._held.get(position.spool)
        if held is None or any(not 0 <= p < PARTITIONS for p in position.heads):
            raise Transient("this is not a position of a spool in hand")
        store = held.store
        if not position.covered_by(head_mapping(store.committed)):
            await store.pending().committed()
            if not position.covered_by(head_mapping(store.committed)):
                raise Transient("the spool has not come as far as this position")

    async def local_rows(self, limit: int) -> Sequence[LocalRow]:
        """As `LocalJournal.local_rows`; those of adopted spools first."""
        rows: list[LocalRow] = []
        for held in reversed(list(self._held.values())):
            if len(rows) < limit:
                rows += await held.store.local_rows(limit - len(rows))
        return rows

    async def release_local(self, rows: Sequence[LocalRow]) -> None:
        """As `LocalJournal.release_local`."""
        newest: dict[str, int] = {}
        for row in rows:
            newest[row.spool] = max(newest.get(row.spool, 0), row.number)
        for spool, number in newest.items():
            # One that was carried over meanwhile has left its rows to another, which hands them out again.
            if (held := self._held.get(spool)) is not None:
                await held.store.release_local(number)

    async def find_local(self, key: str) -> bytes | None:
        """As `LocalJournal.find_local`."""
        for held in list(self._held.values()):
            if (body := await held.store.find_local(key)) is not None:
                return body
        return None

    async def _tend(self) -> None:
        """Each second: tell the ledger what was accepted, measure, let go of what has ended; adopt."""
        for turn in count():
            for held in list(self._held.values()):
                self._report(held.store)
            try:
                await self._measure()
                for held in list(self._held.values()):
                    if held.store is not self._store:
                        await self._end(held)
            except (Transient, OSError) as error:
                _log.warning("the spools cannot be looked after just now: %s", error)
            if turn % _ORPHANS_EVERY == _ORPHANS_EVERY - 1 and self._folder is not None:
                known = [*self._held, *self._ended]
                for store in await asyncio.to_thread(self._folder.orphans, known):
                    _start(self._take(store))
                    self._progressed.set()
            await asyncio.sleep(self._pace)

    def _report(self, store: SpoolStore) -> None:
        accepted = dict(store.accepted)
        if accepted != self._reported.get(store.spool, {}):
            try:
                # Not awaited: a report whose commit fails is made again with the next change.
                store.put([part_of(self._word_of(store, accepted))])
                self._reported[store.spool] = accepted
            except Transient as error:
                _log.warning("no report of spool %s: %s", store.spool, error)

    def _word_of(self, store: SpoolStore, accepted: dict[str, int], ended: bool = False) -> SpoolReported:
        return SpoolReported(
            spool=store.spool,
            service=self._service,
            recorded_at=self._clock.now(),
            accepted=accepted,
            ended=ended,
        )

    async def _measure(self) -> None:
        if self._folder is not None:
            own = await self._folder.room.measure(
                [self._store, *(held.store for held in self._held.values() if held.store is not self._store)]
            )
            if own.reusable > _KEPT_FREE:
                await self._store.give_back()

    async def _end(self, held: _Held) -> None:
        """Have an adopted spool of which all is applied say that it has ended; after that, delete it."""
        store = held.store
        if held.shipper.unapplied() or store.pending().number == 0 or await store.local_rows(1):
            return
        if store.spool not in self._ended and any(store.heads):
            await store.give_up()
            if not store.ended:
                return
            for partition in range(PARTITIONS):
                accepted = dict(store.accepted) if partition == home_of(store.spool) else {}
                _, key, value = part_of(self._word_of(store, accepted, ended=True))
                store.put([(partition, key, value)])
            await store.pending().committed()
            self._ended.add(store.spool)
            return
        _log.warning("spool %s has ended: all of it is applied, its file is deleted", store.spool)
        del self._held[store.spool]
        await held.background.stop()
        await held.shipper.close()
        await store.stop(delete=True)

    async def _follow_board(self) -> None:
        """Release what is applied."""
        while True:
            self._progressed.clear()
            for spool, held in list(self._held.items()):
                if applied := self._board.applied(spool):
                    if is_restored(held.store, applied):
                        await self._replace(held)
                        continue
                    held.shipper.applied(applied)
                    held.store.release(applied)
            await self._progressed.wait()
            await asyncio.sleep(_RELEASE_EVERY)

    async def _replace(self, held: _Held) -> None:
        """Let go of a spool that came back from a backup; what it holds goes on in another."""
        if self._folder is None:
            return
        store = held.store
        _log.critical("spool %s is an old copy, restored: it is carried over into another one", store.spool)
        if store is self._store:
            try:
                self._store = await asyncio.to_thread(self._folder.make)
            except (OSError, Misconfigured) as error:
                _log.error("no other spool can be made: %s", error)
                return
            own = self._take(self._store)
            self._shipper = own.shipper
            _start(own)
        del self._held[store.spool]
        self._ended.add(store.spool)
        await held.background.stop()
        await held.shipper.close()
        self._background.spawn(carry_over(store, self._store))


def _start(held: _Held) -> None:
    held.store.start()
    held.shipper.start(held.background)


def open_journal(
    directory: Path,
    service: str,
    bus: Bus,
    board: ProgressBoard,
    clock: Clock,
    *,
    limits: RoomLimits | None = None,
    metrics: SpoolMetrics | None = None,
    pace: float = _PACE,
) -> SpoolJournal:
    """Open this service's spool under ``directory``/``service``, or make one.

    An unlocked spool found there is continued with its id; one that another process holds is left alone.
    ``clock`` is moved to where the spools last saw it. Raises `Misconfigured` where the directory cannot be
    used. Call ``await journal.start()`` on the running loop afterwards.
    """
    metrics = metrics or SpoolMetrics()
    folder = SpoolFolder(directory / service, clock.now, limits or RoomLimits(), metrics)
    stores = folder.open()
    if isinstance(clock, JournalClock | WallClock):
        clock.advance(max(store.last_now for store in stores))
    return SpoolJournal(stores, service, bus, board, clock, folder=folder, metrics=metrics, pace=pace)
