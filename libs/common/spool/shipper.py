"""Moves the rows of a spool to the bus: partitions side by side, each in order, for as long as it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from random import Random

from libs.common.background import Background, cancelled, let_go
from libs.common.bus.ports import Bus, ClusterChanged, Headers, Producer, Record
from libs.common.bus.sender import Backoff
from libs.common.contracts.customer_event import SCHEMA
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.topics import (
    CUSTOMER_EVENTS,
    HEADER_FLOOR,
    HEADER_SCHEMA,
    HEADER_SEQ,
    HEADER_SPOOL,
)
from libs.common.errors import Invalid, Transient
from libs.common.spool.lane import Lane
from libs.common.spool.metrics import SpoolMetrics
from libs.common.spool.rows import Row
from libs.common.spool.store import Pack, SpoolStore
from libs.common.spool.suspicion import Suspicion, Verdict

_log = logging.getLogger(__name__)

_MAX_ROWS = 2_000
_MAX_BYTES = 700_000
_READ_BYTES = 4 << 20
_BEAT = 0.004
_BUSY_BEATS = 10
_ROWS_A_BEAT = 4
_WATCH = 1.0
_FIRST_CONTACT = 0.2
_SCHEMA = (HEADER_SCHEMA, SCHEMA)


class Shipper:
    """Ships one spool to ``customer-events`` of whatever cluster the bus leads to.

    After a failed batch nothing later of its partition is sent until it has got through. On another
    cluster everything that is not applied is sent again from the lowest number on, and so is what a cluster
    has acknowledged and lost, see `Suspicion`. A producer that fails in a way nobody foresaw is thrown away
    for a new one. Rows still queued in memory are bounded; behind that it reads from disk.

    Parameters
    ----------
    store:
        The spool; its commits wake the shipper at once.
    bus:
        Where to ship; a producer bound to the present cluster is taken from it.
    random:
        For jitter of retries.
    beat:
        Least seconds between two sends of a partition, up to ten times as long under load, so that they
        become bulk; the first after a pause goes at once.
    watch:
        Seconds between two looks at the cluster id, and at what the analyzer has applied.
    suspicion:
        Makes the judge of one partition.
    """

    def __init__(
        self,
        store: SpoolStore,
        bus: Bus,
        random: Random,
        beat: float = _BEAT,
        watch: float = _WATCH,
        *,
        metrics: SpoolMetrics | None = None,
        suspicion: Callable[[], Suspicion] = Suspicion,
    ) -> None:
        self._store = store
        self._bus = bus
        self._random = random
        self._beat = beat
        self._watch_every = watch
        self._lanes = [Lane(partition, store.floor[partition]) for partition in range(PARTITIONS)]
        self._suspicions = [suspicion() for _ in self._lanes]
        self._metrics = metrics or SpoolMetrics()
        self._applied = list(store.floor)
        self._spool = (HEADER_SPOOL, store.spool.encode())
        self._cluster: str | None = None
        self._producer: Producer | None = None
        self._void = False
        self._behind = asyncio.Event()
        self._suspicion = asyncio.Event()
        self._last_beat = 0.0
        self._last_rows = 0
        self._beating = False
        self._waiters: dict[asyncio.Future[None], Mapping[int, int]] = {}
        self._telling = False

    # --- asked from outside

    def start(self, background: Background) -> None:
        """Begin, with tasks in ``background``; the bus may be away."""
        self._store.on_commit = self._on_commit
        for lane in self._lanes:
            background.spawn(self._run_lane(lane))
        background.spawn(self._watch())
        background.spawn(self._refill())
        background.spawn(self._mend())

    async def drain(self, patience: float) -> None:
        """Give what is committed ``patience`` seconds to get through; what does not is on disk."""
        if self._cluster is not None:
            await self.reached(dict(enumerate(self._store.committed)), patience)

    async def close(self) -> None:
        """Close the producer; the tasks have been stopped before."""
        if self._producer is not None:
            await let_go(self._producer.close())

    def shipped(self) -> dict[int, int]:
        """By partition: highest number that the present cluster has acknowledged or that is applied."""
        return {lane.partition: lane.shipped for lane in self._lanes if lane.shipped}

    def backlog(self) -> int:
        """Committed rows that are not acknowledged yet."""
        return sum(
            max(0, head - lane.shipped) for head, lane in zip(self._store.committed, self._lanes, strict=True)
        )

    def unapplied(self) -> int:
        """Committed rows that are not applied yet."""
        return sum(max(0, head - low) for head, low in zip(self._store.committed, self._applied, strict=True))

    def applied(self, applied: Mapping[int, int]) -> None:
        """Take notice of how far the analyzer is with this spool."""
        for partition, seq in applied.items():
            if seq > self._applied[partition]:
                self._applied[partition] = min(seq, self._store.committed[partition])
                self._lanes[partition].applied(self._applied[partition])
        self._tell()

    async def reached(self, heads: Mapping[int, int], timeout: float) -> bool:
        """Wait until the bus has acknowledged ``heads``; False after ``timeout`` seconds."""
        if self._has(heads):
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = heads
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            return False
        finally:
            # Trap: while the broker is away nobody is told anything, so whoever gives up must go by himself.
            self._waiters.pop(waiter, None)
        return True

    def _has(self, heads: Mapping[int, int]) -> bool:
        lanes = self._lanes
        return all(lanes[partition].shipped >= seq for partition, seq in heads.items())

    # --- work that comes in

    def _on_commit(self, pack: Pack) -> None:
        lanes, number = self._lanes, pack.number
        for row in pack.rows:
            lanes[row[0]].offer(number, row)
        self._ask_beat()

    def _ask_beat(self) -> None:
        """Wake the lanes that have rows: at once after a pause, else when the beat is over.

        All of them in the same round of the event loop, so that the client can join their requests.
        """
        if self._beating:
            return
        loop = asyncio.get_running_loop()
        self._beating = True
        # A send costs as much CPU as forty rows: the more there are, the longer it is worth to make it bulk.
        # Trap: in proportion. The ticks of a second are twelve rows at once, and no load.
        beats = min(max(1.0, self._last_rows / _ROWS_A_BEAT), _BUSY_BEATS)
        due = self._last_beat + self._beat * beats
        if loop.time() >= due:
            self._wake_lanes()
        else:
            loop.call_at(due, self._wake_lanes)

    def _wake_lanes(self) -> None:
        self._beating = False
        self._last_beat = asyncio.get_running_loop().time()
        self._last_rows = 0
        committed = self._store.committed
        for lane in self._lanes:
            if lane.rows:
                lane.wake.set()
                self._last_rows += len(lane.rows)
            if lane.hungry(committed[lane.partition]):
                self._behind.set()

    async def _refill(self) -> None:
        """Bring rows from disk to the lanes that are behind, several at a time from one reading."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            committed = self._store.committed
            hungry = [lane for lane in self._lanes if lane.hungry(committed[lane.partition])]
            if not hungry:
                continue
            rounds = [lane.round for lane in hungry]
            try:
                packs = await self._store.read(min(lane.cursor for lane in hungry), _READ_BYTES)
            except Transient as error:
                _log.error("spool %s: %s", self._store.spool, error)
                await asyncio.sleep(error.retry_after)
                self._behind.set()
                continue
            for lane in hungry:
                lane.refused = False
            for number, rows in packs:
                for row in rows:
                    self._lanes[row[0]].offer(number, row)
            for lane, begun in zip(hungry, rounds, strict=True):
                if packs and not lane.refused and lane.round == begun:
                    lane.cursor = max(lane.cursor, packs[-1][0] + 1)
            for lane in self._lanes:
                # Trap: not only the hungry ones: a lane that began anew meanwhile may have taken rows too.
                if lane.rows:
                    lane.wake.set()
            if not packs:
                # Released under our hands: the board will say so in a moment.
                await asyncio.sleep(self._beat * 10)
            if any(lane.hungry(self._store.committed[lane.partition]) for lane in self._lanes):
                self._behind.set()

    # --- sending

    async def _run_lane(self, lane: Lane) -> None:
        backoff = Backoff(self._random, first=0.05, most=1.0)
        while True:
            await lane.wake.wait()
            lane.wake.clear()
            while self._producer is not None and (rows := lane.batch(_MAX_ROWS, _MAX_BYTES)):
                current, producer = lane.round, self._producer
                try:
                    await self._send(producer, lane, rows)
                except ClusterChanged:
                    self._void = True
                    self._suspicion.set()
                    break
                except Transient as error:
                    if backoff.failures == 0:
                        _log.warning("partition %d is not taken by the bus: %s", lane.partition, error)
                    self._suspicion.set()
                    await asyncio.sleep(backoff.failed())
                    continue
                except (Exception, asyncio.CancelledError) as error:
                    if cancelled(error):
                        raise
                    # Whatever a client library comes up with: a broken producer must not end shipping.
                    await self._replace(producer, error)
                    await asyncio.sleep(backoff.failed())
                    continue
                if current != lane.round:
                    # Trap: an acknowledgement of the round before says nothing about the present one.
                    continue
                backoff.succeeded()
                self._acknowledged(lane, rows)
                if len(rows) < _MAX_ROWS and lane.rows:
                    self._ask_beat()
                    break

    def _acknowledged(self, lane: Lane, rows: Sequence[Row]) -> None:
        self._metrics.shipped.add(max(0, rows[-1][1] - max(lane.highest, rows[0][1] - 1)))
        self._metrics.resent.add(max(0, min(lane.highest, rows[-1][1]) - rows[0][1] + 1))
        lane.sent(rows)
        if lane.hungry(self._store.committed[lane.partition]):
            self._behind.set()
        self._tell()

    async def _send(self, producer: Producer, lane: Lane, rows: Sequence[Row]) -> None:
        records = [self._record(lane, row) for row in rows]
        try:
            await producer.send(CUSTOMER_EVENTS, lane.partition, records)
        except Invalid as error:
            if len(rows) > 1:
                for row in rows:
                    await self._send(producer, lane, [row])
                return
            # Its number must arrive all the same, or the ledger never balances: sent without its value,
            # it becomes a dead letter.
            _log.error("record %d of partition %d cannot be shipped: %s", rows[0][1], lane.partition, error)
            await producer.send(CUSTOMER_EVENTS, lane.partition, [records[0]._replace(value=b"")])

    def _record(self, lane: Lane, row: Row) -> Record:
        _, seq, key, value = row
        headers: Headers = (_SCHEMA, self._spool, (HEADER_SEQ, b"%d" % seq))
        if seq == lane.begun + 1 or row is lane.probe:
            headers = (*headers, (HEADER_FLOOR, b"%d" % (seq - 1)))
        return Record(key, value, headers)

    async def _replace(self, broken: Producer, error: BaseException) -> None:
        """Throw ``broken`` away; all lanes go on with a new producer for the same cluster."""
        if self._producer is not broken or self._cluster is None:
            return
        _log.error("the producer is given up after an unexpected error: %r", error, exc_info=error)
        self._metrics.producers.add()
        self._producer = self._bus.producer(self._cluster)
        await let_go(broken.close())

    def _tell(self) -> None:
        if self._waiters and not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell_now)

    def _tell_now(self) -> None:
        self._telling = False
        for waiter, heads in self._waiters.items():
            if not waiter.done() and self._has(heads):
                waiter.set_result(None)

    # --- what the bus has lost

    async def _mend(self) -> None:
        """Look for partitions in which the analyzer waits for a record that is not on the bus any more."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._watch_every)
            for lane, suspicion in zip(self._lanes, self._suspicions, strict=True):
                applied = self._applied[lane.partition]
                verdict = suspicion.look(loop.time(), applied, lane.shipped)
                if verdict is Verdict.FINE:
                    continue
                try:
                    found = await self._store.find(lane.partition, applied + 1)
                except Transient as error:
                    _log.error("spool %s: %s", self._store.spool, error)
                    continue
                if found is not None and applied == self._applied[lane.partition]:
                    self._send_again(lane, verdict, applied, *found)

    def _send_again(self, lane: Lane, verdict: Verdict, applied: int, number: int, row: Row) -> None:
        if verdict is Verdict.PROBE:
            lane.probe = row
            self._metrics.probes.add()
        else:
            _log.error(
                "the bus has lost records of partition %d after %d: shipping them again",
                lane.partition,
                applied,
            )
            self._metrics.repairs.add()
            lane.restart(applied, number)
            self._behind.set()
        lane.wake.set()

    # --- which cluster

    async def _watch(self) -> None:
        """Notice another cluster: every second, and at once after an error."""
        while True:
            try:
                found = await self._bus.cluster_id()
            except Transient:
                found = None
            if found is not None and (found != self._cluster or self._void):
                await self._begin(found)
            self._suspicion.clear()
            try:
                async with asyncio.timeout(self._watch_every if self._cluster else _FIRST_CONTACT):
                    await self._suspicion.wait()
                await asyncio.sleep(min(_FIRST_CONTACT, self._watch_every))
            except TimeoutError:
                pass

    async def _begin(self, cluster: str) -> None:
        """Ship to ``cluster`` from the lowest number that is not applied."""
        old, self._producer = self._producer, None
        if self._cluster is not None:
            _log.warning("the bus is another cluster now (%s): shipping again what is not applied", cluster)
        if old is not None:
            await let_go(old.close())
        self._cluster, self._void = cluster, False
        for lane in self._lanes:
            lane.restart(max(self._applied[lane.partition], self._store.floor[lane.partition]))
            lane.wake.set()
        self._producer = self._bus.producer(cluster)
        self._behind.set()
