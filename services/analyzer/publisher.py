"""Puts models and progress on the bus after the commit: coalesced, in order, never in a slice's way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from libs.common.bus.ports import Bus, ClusterChanged, Headers, Producer, Record
from libs.common.bus.sender import Backoff
from libs.common.contracts import customer_model, marker, progress, topics
from libs.common.contracts.identity import CustomerKey
from libs.common.contracts.marker import MARKER_KEY, Marker, encode_marker
from libs.common.contracts.progress import Progress, encode_progress
from libs.common.errors import Fenced, Invalid, Transient
from services.analyzer.metrics import AnalyzerMetrics
from services.analyzer.ports import ModelRow, PartitionState

MOST_WAITING = 5_000
MOST_WAITING_BYTES = 4 << 20
"""Models of a partition that may wait before its slices do; as much again may be on its way."""

QUIET_SECONDS = 1.0
"""How often progress is told at most while nothing but time passes."""

_log = logging.getLogger(__name__)


SURE_SECONDS = 2.0
"""How long a proof of ownership lasts: less than a group takes to give a silent member's partitions away."""


class Claims(Protocol):
    """What the publisher asks of the store."""

    async def load(self, partition: int, epoch: int) -> PartitionState:
        """`Fenced` where ``epoch`` is not the newest claim of ``partition``."""
        ...

    async def models(self, partition: int, customers: Sequence[CustomerKey]) -> list[ModelRow]:
        """All parts of the models of ``customers``."""
        ...


@dataclass
class _Lane:
    """What of one claimed partition is still to be published, and what is acknowledged."""

    epoch: int
    sure_at: float
    published: int
    models_offset: int
    models: dict[bytes, ModelRow] = field(default_factory=dict)
    size: int = 0
    marker: int | None = None
    state: PartitionState | None = None
    due: float = 0.0
    told_at: float = float("-inf")
    room: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, models: dict[bytes, ModelRow]) -> None:
        """Have ``models`` wait too, each in place of an older one."""
        for key, row in models.items():
            held = self.models.get(key)
            self.size += len(row.body) - (len(held.body) if held is not None else 0)
            self.models[key] = row

    def take(self) -> dict[bytes, ModelRow]:
        """All that waits, to be sent now."""
        taken, self.models, self.size = self.models, {}, 0
        return taken

    @property
    def unsent(self) -> bool:
        return bool(self.models) or self.marker is not None

    @property
    def full(self) -> bool:
        return len(self.models) >= MOST_WAITING or self.size >= MOST_WAITING_BYTES


class BusPublisher:
    """Implements `ports.Publisher`: one loop for all partitions, so that progress goes out together.

    Of several versions of a model that wait only the newest is sent. Progress follows the models it speaks
    of. What fails is sent again; on another cluster nothing is sent until the partitions are claimed there.
    """

    def __init__(
        self,
        bus: Bus,
        claims: Claims,
        random: Random,
        metrics: AnalyzerMetrics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._claims = claims
        self._backoff = Backoff(random, 0.05, 2.0)
        self._metrics = metrics
        self._monotonic = monotonic
        self._lanes: dict[int, _Lane] = {}
        self._cluster: str | None = None
        self._producer: Producer | None = None
        self._wake = asyncio.Event()
        self._running = False
        self._lost = False

    @property
    def lost(self) -> bool:
        """As `ports.Publisher.lost`."""
        return self._lost

    async def open(self, state: PartitionState) -> None:
        """As `ports.Publisher.open`."""
        self._lost = False
        if state.cluster != self._cluster:
            await self._leave_cluster()
            self._cluster = state.cluster
            self._producer = self._bus.producer(state.cluster)
        self._lanes[state.partition] = _Lane(state.epoch, float("-inf"), state.published, state.models_offset)

    def offer(self, state: PartitionState, models: Sequence[ModelRow], *, urgent: bool = True) -> None:
        lane = self._lanes[state.partition]
        self.offer_models(state.partition, models)
        quiet = 0.0 if urgent or lane.models else lane.told_at + QUIET_SECONDS
        lane.due = min(lane.due, quiet) if lane.state is not None else quiet
        lane.state = state
        self._wake.set()

    def offer_models(self, partition: int, models: Sequence[ModelRow]) -> None:
        """Publish ``models`` of a partition that has not caught up yet; says nothing about progress."""
        lane = self._lanes[partition]
        lane.put({customer_model.model_key(row.customer, row.part): row for row in models})
        if models:
            self._wake.set()

    def renew(self, partition: int, at: float) -> None:
        self._lanes[partition].sure_at = at

    def close_republication(self, partition: int, number: int) -> None:
        """Follow the models offered so far, which are all there are, by marker ``number``."""
        self._lanes[partition].marker = number
        self._wake.set()

    def published(self, partition: int) -> tuple[int, int]:
        lane = self._lanes[partition]
        return lane.published, lane.models_offset

    def waiting(self) -> int:
        """Models that are not acknowledged by the bus yet."""
        return sum(len(lane.models) for lane in self._lanes.values())

    async def room(self, partition: int, timeout: float = 5.0) -> bool:
        """Wait while very much of ``partition`` is unsent; False where that lasts."""
        lane = self._lanes[partition]
        if not lane.full:
            return True
        lane.room.clear()
        try:
            async with asyncio.timeout(timeout):
                await lane.room.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, partitions: frozenset[int], timeout: float = 1.0) -> None:
        """Forget ``partitions``, after a short time to send what waits; the next claim sends the rest."""
        deadline = self._monotonic() + timeout
        for partition in partitions & self._lanes.keys():
            self._lanes[partition].due = 0.0
        self._wake.set()
        while self._running and any(self._waits(p) for p in partitions) and self._monotonic() < deadline:
            await asyncio.sleep(0.005)
        for partition in partitions:
            self._lanes.pop(partition, None)

    def _waits(self, partition: int) -> bool:
        lane = self._lanes.get(partition)
        return lane is not None and (lane.unsent or lane.state is not None)

    async def stop(self) -> None:
        """Close the producer."""
        self._lanes.clear()
        await self._leave_cluster()

    async def _leave_cluster(self) -> None:
        self._cluster, producer, self._producer = None, self._producer, None
        self._lanes.clear()
        if producer is not None:
            await producer.close()

    async def run(self) -> None:
        """Publish whatever is offered, for ever."""
        self._running = True
        try:
            await self._publish()
        finally:
            self._running = False

    async def _publish(self) -> None:
        while True:
            if self._lost:
                # As on another cluster: the partitions are claimed anew, and all of them published again.
                await self._sleep(0.05, whatever=True)
                continue
            due = self._due()
            if due > 0.0:
                await self._sleep(due)
                continue
            try:
                await self._round()
                self._backoff.succeeded()
            except ClusterChanged:
                # The consume loop hears of it too and claims anew, which opens the new cluster.
                await self._sleep(0.05, whatever=True)
            except Transient as error:
                pause = self._backoff.failed()
                _log.warning("models wait for the bus, again in %.1f s: %s", pause, error.reason)
                await self._sleep(pause, whatever=True)

    def _due(self) -> float:
        """Seconds until something is to be sent; 60 where nothing is."""
        now = self._monotonic()
        times = [
            0.0 if lane.unsent else lane.due - now
            for lane in self._lanes.values()
            if lane.unsent or lane.state is not None
        ]
        return min(times, default=60.0) if self._producer is not None else 60.0

    async def _sleep(self, seconds: float, whatever: bool = False) -> None:
        if whatever:
            await asyncio.sleep(seconds)
            return
        # Trap: not wait_for, which on Python 3.11 swallows a cancellation that comes with the wake-up.
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _round(self) -> None:
        producer = self._producer
        if producer is None:
            return
        now = self._monotonic()
        ready = [
            (partition, lane, lane.state)
            for partition, lane in self._lanes.items()
            if lane.unsent or (lane.state is not None and lane.due <= now)
        ]
        results = await asyncio.gather(
            *(self._send_if_ours(producer, partition, lane) for partition, lane, _ in ready),
            return_exceptions=True,
        )
        told = []
        for (_, lane, state), result in zip(ready, results, strict=True):
            # Trap: only the state taken before its models were sent; a newer one speaks of models not sent.
            if result is True and state is not None:
                told.append((lane, state))
        if told:
            await self._tell(producer, told, now)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _send_if_ours(self, producer: Producer, partition: int, lane: _Lane) -> bool:
        """Send what waits; False where the partition has another owner by now.

        Trap: readers ignore lower revisions, but a compacted topic keeps what came last. So whoever may have
        been stopped for a while asks whether he is still the owner before he sends, and puts right what he
        sent if he was stopped in the middle of it.
        """
        began = self._monotonic()
        try:
            if began - lane.sure_at > SURE_SECONDS:
                await self._claims.load(partition, lane.epoch)
                lane.sure_at = began
            began, sent = self._monotonic(), list(lane.models.values())
            await self._send_models(producer, partition, lane)
            if self._monotonic() - began <= SURE_SECONDS:
                return True
            try:
                await self._claims.load(partition, lane.epoch)
            except Fenced:
                await self._put_right(producer, partition, sent)
                raise
        except Fenced:
            _log.warning(
                "a partition has another owner: its models are left to him", extra={"partition": partition}
            )
            lane.take()
            lane.marker = lane.state = None
            lane.room.set()
            return False
        return True

    async def _put_right(self, producer: Producer, partition: int, sent: Sequence[ModelRow]) -> None:
        """Send what is stored by now in place of ``sent``."""
        slow = bool(sent)
        while slow:
            rows = await self._claims.models(partition, sorted({row.customer for row in sent}))
            began = self._monotonic()
            # Trap: a tombstone where nothing is stored any more, or who was erased meanwhile stays there.
            right = {(row.customer, row.part): row._replace(body=b"") for row in sent}
            right |= {(row.customer, row.part): row for row in rows}
            records = [_record(customer_model.model_key(*key), row) for key, row in right.items()]
            await self._send(producer, partition, records)
            slow = self._monotonic() - began > SURE_SECONDS

    async def _send_models(self, producer: Producer, partition: int, lane: _Lane) -> None:
        if not lane.unsent:
            return
        batch, marker_number = lane.take(), lane.marker
        records = [_record(key, row) for key, row in batch.items()]
        if marker_number is not None:
            records.append(_marker(self._cluster or "", marker_number))
        try:
            offset = await self._send(producer, partition, records)
        except BaseException:
            newer = lane.take()
            lane.put(batch)
            lane.put(newer)
            raise
        if lane.marker == marker_number:
            lane.marker = None
        lane.room.set()
        self._metrics.models.add(len(batch))
        if 0 <= offset < lane.models_offset:
            self._lost = True
            raise Transient("the topic of models was made anew")
        lane.models_offset = max(lane.models_offset, offset + 1)

    async def _send(self, producer: Producer, partition: int, records: list[Record]) -> int:
        try:
            return await producer.send(topics.CUSTOMER_MODELS, partition, records)
        except Invalid:
            if len(records) == 1:
                _log.error("a model is too large for the bus", extra={"partition": partition})
                return -1
        middle = len(records) // 2
        first = await self._send(producer, partition, records[:middle])
        return max(first, await self._send(producer, partition, records[middle:]))

    async def _tell(
        self, producer: Producer, told: Sequence[tuple[_Lane, PartitionState]], now: float
    ) -> None:
        records = [
            Record(
                str(state.partition).encode(),
                encode_progress(progress_of(state, lane.models_offset)),
                ((topics.HEADER_SCHEMA, progress.SCHEMA),),
            )
            for lane, state in told
        ]
        await producer.send(topics.PROGRESS, 0, records)
        for lane, state in told:
            lane.published, lane.told_at = state.number, now
            if lane.state is state:
                lane.state = None


def progress_of(state: PartitionState, models_offset: int) -> Progress:
    """What others may know of a partition."""
    return Progress(
        partition=state.partition,
        cluster=state.cluster,
        epoch=state.epoch,
        applied=dict(state.applied),
        journal_time=state.journal_time,
        models_offset=models_offset,
        counters=dict(state.counters),
    )


def _marker(cluster: str, number: int) -> Record:
    value = encode_marker(Marker(cluster=cluster, number=number))
    return Record(MARKER_KEY, value, ((topics.HEADER_SCHEMA, marker.SCHEMA),))


def _record(key: bytes, row: ModelRow) -> Record:
    headers: Headers = (
        (topics.HEADER_SCHEMA, customer_model.SCHEMA),
        (topics.HEADER_REVISION, str(row.revision).encode()),
    )
    if row.dropped:
        headers += ((topics.HEADER_DROPPED, b"1"),)
    return Record(key, row.body or None, headers)
