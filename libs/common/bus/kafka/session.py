"""One life of an aiokafka consumer: from connecting to being dismantled, whatever state it is in by then."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError
from aiokafka.protocol.group import LeaveGroupRequest

from libs.common.bus.kafka.client import BROKEN, BoundClient, leaders
from libs.common.bus.ports import EMBEDDED, Message
from libs.common.errors import Transient

REBALANCE_MS = 30_000
GROUP_REQUEST_MS = 40_000
TIMES = {"session_timeout_ms": 10_000, "heartbeat_interval_ms": 2_000, "fetch_max_wait_ms": 500}
EMBEDDED_TIMES = {"session_timeout_ms": 3_000, "heartbeat_interval_ms": 700, "fetch_max_wait_ms": 50}
"""The embedded broker lets everybody who joins wait for half a session, and for nearly two sessions after a
member that died."""
HURRIED_MS, CALM_MS, IDLE_MS = 10, 50, 200
"""How long a fetch waits at the embedded broker: where somebody waits for what it brings, where he may come
back at any moment, and where nobody has for `LATELY`. That broker looks for new records at the beginning, the
middle and the end of the wait, not when they come. A reader of twelve partitions takes 4, 1 and ½ % of a
core, and as much or twice that of the broker's."""
LATELY = 10.0

FETCH_BYTES_PER_PARTITION = 4 * 1024 * 1024
_POLL_GRACE = 0.5
_STOP_SECONDS = 1.0
_LEAVE_SECONDS = 0.5


class Session:
    """An aiokafka consumer on one topic, with a `BoundClient` inside.

    Parameters
    ----------
    topic:
        What to read.
    client:
        Made for this session, not started; the session closes it.
    group:
        Consumer group; None reads without one. A group hurries as long as something comes: the loop waits
        for it.
    """

    def __init__(self, topic: str, client: BoundClient, group: str | None) -> None:
        self.topic = topic
        self.client = client
        self.partitions: frozenset[int] = frozenset()
        self._group = group
        self._hurried = group is not None
        self._hurried_at = float("-inf")
        self._consumer: Any = None
        self._closing: asyncio.Task[None] | None = None

    async def start(self, timeout: float) -> None:
        """Connect and learn of partitions, read none yet; raises `Transient` or `ClusterChanged`."""
        try:
            async with asyncio.timeout(timeout):
                await self.client.bootstrap()
                self._consumer = self._make_consumer()
                await self._consumer.start()
                self._pace()
                self.partitions = frozenset(await leaders(self.client, self.topic))
        except BROKEN as error:
            await self.close()
            self.client.check()
            raise Transient(f"cannot read {self.topic}: {error!r}") from error
        except BaseException:
            await self.close()
            raise

    def _make_consumer(self) -> Any:
        # Trap: no deserializers. One that raises makes aiokafka deliver the same record for ever.
        consumer = AIOKafkaConsumer(
            group_id=self._group,
            client_id=self.client._client_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            rebalance_timeout_ms=REBALANCE_MS,
            max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
            partition_assignment_strategy=(RangePartitionAssignor,),
            **(EMBEDDED_TIMES if self.client.cluster_id.startswith(EMBEDDED) else TIMES),
        )
        # It has made a client of its own, which holds no connection yet.
        consumer._client = self.client
        return consumer

    def hurry(self, hurried: bool) -> None:
        """See `ports.TopicReader.hurry`; holds from the next fetch on."""
        self._hurried = hurried
        if hurried:
            self._hurried_at = time.monotonic()
        self._pace()

    def _pace(self) -> None:
        if self._consumer is None or not self.client.cluster_id.startswith(EMBEDDED):
            return
        wait = HURRIED_MS if self._hurried else CALM_MS
        if wait == CALM_MS and self._group is None and time.monotonic() > self._hurried_at + LATELY:
            wait = IDLE_MS
        self._consumer._fetcher._fetch_max_wait_ms = wait

    def subscribe(self, listener: Any) -> None:
        """Join the group in the background; ``listener`` hears of partitions."""
        self._consumer.subscribe([self.topic], listener=listener)

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read exactly these partitions, from these offsets."""
        self._consumer.assign([TopicPartition(self.topic, partition) for partition in offsets])
        for partition, offset in offsets.items():
            self.seek(partition, offset)

    @property
    def generation(self) -> int:
        """The group's generation."""
        return int(self._consumer._coordinator.generation)

    def seek(self, partition: int, offset: int) -> None:
        """Read ``partition`` from ``offset`` next, where it is assigned."""
        with contextlib.suppress(IllegalStateError):
            self._consumer.seek(TopicPartition(self.topic, partition), offset)

    def pause(self, partitions: frozenset[int]) -> None:
        """Return nothing of ``partitions``, where assigned."""
        for partition in partitions:
            with contextlib.suppress(IllegalStateError, KeyError, AttributeError):
                self._consumer.pause(TopicPartition(self.topic, partition))

    def resume(self, partitions: frozenset[int]) -> None:
        """Take the pause back."""
        for partition in partitions:
            with contextlib.suppress(IllegalStateError, KeyError, AttributeError):
                self._consumer.resume(TopicPartition(self.topic, partition))

    def check(self) -> None:
        """Raise `Transient` where the tasks behind this session have died."""
        try:
            self._consumer._coordinator.check_errors()
        except BROKEN as error:
            raise Transient(f"reading {self.topic} broke off: {error!r}") from error
        if self._consumer._fetcher.error_future.done():
            raise Transient(f"reading {self.topic} broke off")

    async def poll(
        self, max_records: int, timeout: float, among: frozenset[int] | None = None
    ) -> dict[int, Sequence[Message]]:
        """What has arrived (of the partitions ``among`` all); raises `ClusterChanged`, or `Transient` where
        this session is beyond use."""
        if among is not None and not among:
            return {}
        self.client.check()
        self.check()
        try:
            # Trap: getmany waits without limit while a rebalance is under way.
            # And not asyncio.wait_for, it loses a cancellation that comes together with the records.
            async with asyncio.timeout(timeout + _POLL_GRACE):
                fetched = await self._consumer.getmany(
                    *(TopicPartition(self.topic, partition) for partition in among or ()),
                    timeout_ms=max(0, int(timeout * 1000)),
                    max_records=max_records,
                )
        except (TimeoutError, IllegalStateError):
            # The latter where one of them was just taken away.
            fetched = {}
        except BROKEN as error:
            raise Transient(f"reading {self.topic} broke off: {error!r}") from error
        if self._group is not None and among is None:
            self._hurried = bool(fetched)
        self._pace()
        if not fetched:
            self.client.check()
        return {
            place.partition: [
                Message(
                    place.topic,
                    place.partition,
                    record.offset,
                    record.key,
                    record.value,
                    tuple(record.headers),
                    record.timestamp,
                )
                for record in records
            ]
            for place, records in fetched.items()
        }

    async def commit(self, offsets: Mapping[int, int], timeout: float) -> None:
        """Tell the group, if it will hear."""
        places = {TopicPartition(self.topic, partition): offset for partition, offset in offsets.items()}
        with contextlib.suppress(*BROKEN):
            async with asyncio.timeout(timeout):
                await self._consumer.commit(places)

    async def close(self) -> None:
        """Leave and disconnect, within two seconds; goes on in the background where it is cancelled."""
        # Trap: half closed, its heartbeats would hold the partitions for ever.
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._consumer is None:
            await self.client.abort()
            return
        # Trap: as a task of its own. It may wait for the broker for ever, and it lets the cancellation of
        # its inner tasks escape as if we had been cancelled.
        stopping = asyncio.create_task(self._stop())
        await asyncio.wait([stopping], timeout=_STOP_SECONDS)
        if not stopping.done() or stopping.cancelled() or stopping.exception() is not None:
            stopping.cancel()
            await self._dismantle(stopping)

    async def _stop(self) -> None:
        try:
            await self._leave_first_generation()
        finally:
            await self._consumer.stop()

    async def _leave_first_generation(self) -> None:
        # Trap: aiokafka leaves only generations above 0, but the embedded broker counts from 0. A member
        # that did not leave holds up the next one for two session timeouts.
        coordinator = self._consumer._coordinator
        if getattr(coordinator, "generation", None) == 0:
            with contextlib.suppress(*BROKEN):
                leave = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await coordinator._send_req(leave)

    async def _dismantle(self, stopping: asyncio.Task[None]) -> None:
        """End by hand what ``stopping`` has not ended."""
        consumer = self._consumer
        coordinator, fetcher = consumer._coordinator, consumer._fetcher
        tasks = [
            task
            for task in (
                stopping,
                getattr(coordinator, "_coordination_task", None),
                getattr(coordinator, "_heartbeat_task", None),
                getattr(coordinator, "_commit_refresh_task", None),
                getattr(coordinator, "_reset_committed_task", None),
                getattr(fetcher, "_fetch_task", None),
                *getattr(fetcher, "_pending_tasks", ()),
            )
            if task is not None
        ]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS / 2)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()
        await self.client.abort()
