"""Reading: as a member of a group, with offsets kept by us, or whole topics without a group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiokafka import TopicPartition
from aiokafka.abc import ConsumerRebalanceListener

from libs.common.bus.kafka.client import BoundClient
from libs.common.bus.kafka.session import GROUP_REQUEST_MS, Session
from libs.common.bus.ports import Assignment, Message
from libs.common.errors import Transient

_log = logging.getLogger(__name__)

_COMMIT_SECONDS = 1.0
_REVOKE_SECONDS = 10.0

AT_ONCE = 4
"""Partitions that one poll brings records of, at least, where so many have a backlog."""

Connect = Callable[[str | None, int | None], BoundClient]
"""Makes a client bound to a cluster, with a request timeout in milliseconds (None = the usual one)."""


class KafkaGroupConsumer:
    """Implements `ports.GroupConsumer`.

    Parameters
    ----------
    connect:
        Makes clients.
    topic, group, cluster:
        See `ports.Bus.consumer`.
    timeout:
        Seconds `start` may take.
    """

    def __init__(self, connect: Connect, topic: str, group: str, cluster: str | None, timeout: float) -> None:
        self._connect = connect
        self._topic = topic
        self._group = group
        self._cluster = cluster
        self._timeout = timeout
        self._session: Session | None = None
        self._callbacks: _Callbacks | None = None
        self.on_use: Callable[[bool], None] = lambda used: None

    async def start(
        self,
        on_revoked: Callable[[frozenset[int]], Awaitable[None]],
        on_assigned: Callable[[Assignment], Awaitable[Mapping[int, int]]],
    ) -> None:
        """See `ports.GroupConsumer.start`."""
        await self.close()
        self.on_use(True)
        session = Session(self._topic, self._connect(self._cluster, GROUP_REQUEST_MS), self._group)
        await session.start(self._timeout)
        self._session = session
        self._callbacks = _Callbacks(session, on_revoked, on_assigned)
        session.subscribe(self._callbacks)

    async def poll(self, max_records: int, timeout: float) -> Mapping[int, Sequence[Message]]:
        """See `ports.GroupConsumer.poll`."""
        session, callbacks = self._session, self._callbacks
        if session is None or callbacks is None:
            raise RuntimeError("poll before start")
        callbacks.raise_failure()
        if not callbacks.held:
            # Trap: not getmany, it would wait for an assignment without limit.
            session.client.check()
            session.check()
            await callbacks.wait_held(timeout)
            callbacks.raise_failure()
            return {}
        fetched = await session.poll(max_records, timeout)
        # Trap: a poll empties one partition after another, so a backlog would come from one alone, and
        # nobody could work on the next while the last is committed.
        while 0 < len(fetched) < AT_ONCE and max(map(len, fetched.values())) == max_records:
            more = await session.poll(max_records, 0.0, callbacks.held - fetched.keys())
            if not more:
                break
            fetched |= more
        callbacks.raise_failure()
        # What was fetched while the partitions were being taken away is the next owner's.
        return {p: messages for p, messages in fetched.items() if p in callbacks.held}

    def seek(self, partition: int, offset: int) -> None:
        """See `ports.GroupConsumer.seek`."""
        if self._session is not None:
            self._session.seek(partition, offset)

    def pause(self, partitions: frozenset[int]) -> None:
        """See `ports.GroupConsumer.pause`."""
        if self._session is not None:
            self._session.pause(partitions)

    def resume(self, partitions: frozenset[int]) -> None:
        """See `ports.GroupConsumer.resume`."""
        if self._session is not None:
            self._session.resume(partitions)

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """See `ports.GroupConsumer.commit`."""
        session, callbacks = self._session, self._callbacks
        if session is None or callbacks is None:
            return
        mine = {p: offset for p, offset in offsets.items() if p in callbacks.held}
        if mine:
            await session.commit(mine, _COMMIT_SECONDS)

    async def close(self) -> None:
        """See `ports.GroupConsumer.close`."""
        self.on_use(False)
        session, callbacks = self._session, self._callbacks
        self._session = self._callbacks = None
        try:
            if callbacks is not None:
                await callbacks.end()
        finally:
            if session is not None:
                await session.close()


class _Callbacks(ConsumerRebalanceListener):  # type: ignore[misc]
    """Between aiokafka, which swallows what its listeners raise, and the owner's two callbacks."""

    def __init__(
        self,
        session: Session,
        on_revoked: Callable[[frozenset[int]], Awaitable[None]],
        on_assigned: Callable[[Assignment], Awaitable[Mapping[int, int]]],
    ) -> None:
        self.held: frozenset[int] = frozenset()
        self._session = session
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned
        self._one_at_a_time = asyncio.Lock()
        self._told: frozenset[int] = frozenset()
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()
        self._ended = False

    def raise_failure(self) -> None:
        """Raise, once, what a callback raised."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def wait_held(self, timeout: float) -> None:
        """Wait until partitions are held or something went wrong."""
        self._changed.clear()
        try:
            # Trap: not asyncio.wait_for, it loses a cancellation that comes together with what it waits for.
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def on_partitions_revoked(self, revoked: frozenset[TopicPartition]) -> None:
        """Called by aiokafka before it joins anew: everything is given up (eager protocol)."""
        self.held = frozenset()
        async with self._one_at_a_time:
            await self._revoke()

    async def on_partitions_assigned(self, assigned: frozenset[TopicPartition]) -> None:
        """Called by aiokafka when the group has shared out."""
        partitions = frozenset(place.partition for place in assigned)
        # Trap: before the first await, or records from an offset of aiokafka's choice would be returned.
        self._session.pause(partitions)
        async with self._one_at_a_time:
            if self._ended:
                return
            self._told = partitions
            try:
                offsets = await self._on_assigned(
                    Assignment(partitions, self._session.generation, self._session.client.cluster_id)
                )
            except Exception as error:
                self._failure = error
            else:
                for partition, offset in offsets.items():
                    self._session.seek(partition, offset)
                self._session.resume(frozenset(offsets))
                self.held = partitions
            self._changed.set()

    async def end(self) -> None:
        """Give up what is held, for good; without the owner's consent where that takes too long."""
        self.held = frozenset()
        self._ended = True
        try:
            async with asyncio.timeout(_REVOKE_SECONDS), self._one_at_a_time:
                await self._revoke()
        except TimeoutError:
            _log.warning("partitions not handed over within %.0f s are left behind", _REVOKE_SECONDS)

    async def _revoke(self) -> None:
        told, self._told = self._told, frozenset()
        if not told:
            return
        try:
            await self._on_revoked(told)
        except Exception as error:
            self._failure = error
            self._changed.set()


class KafkaTopicReader:
    """Implements `ports.TopicReader`; when its connection breaks for good it makes another by itself.

    Parameters
    ----------
    connect:
        Makes clients.
    topic, cluster:
        See `ports.Bus.reader`.
    timeout:
        Seconds `start` may take.
    """

    def __init__(self, connect: Connect, topic: str, cluster: str | None, timeout: float) -> None:
        self._connect = connect
        self._topic = topic
        self._cluster = cluster
        self._timeout = timeout
        self._session: Session | None = None
        self._found: str | None = None
        self._next: dict[int, int] | None = None
        self._hurried = False
        self.on_use: Callable[[bool], None] = lambda used: None

    async def start(self, offsets: Mapping[int, int]) -> None:
        """See `ports.TopicReader.start`."""
        await self.close()
        self.on_use(True)
        self._found = self._cluster
        self._session = await self._open(offsets)

    async def poll(self, max_records: int, timeout: float) -> Mapping[int, Sequence[Message]]:
        """See `ports.TopicReader.poll`."""
        if self._next is None:
            raise RuntimeError("poll before start")
        if self._session is None:
            self._session = await self._open(self._next)
        try:
            fetched = await self._session.poll(max_records, timeout)
        except Transient:
            session, self._session = self._session, None
            await session.close()
            raise
        for partition, messages in fetched.items():
            self._next[partition] = messages[-1].offset + 1
        return fetched

    def hurry(self, hurried: bool) -> None:
        """See `ports.TopicReader.hurry`."""
        self._hurried = hurried
        if self._session is not None:
            self._session.hurry(hurried)

    async def close(self) -> None:
        """See `ports.TopicReader.close`."""
        self.on_use(False)
        session, self._session = self._session, None
        self._next = None
        if session is not None:
            await session.close()

    async def _open(self, offsets: Mapping[int, int]) -> Session:
        session = Session(self._topic, self._connect(self._found, None), None)
        await session.start(self._timeout)
        self._found = session.client.cluster_id
        # Offsets are always named, never asked for: the embedded broker lists them wrongly.
        self._next = {partition: offsets.get(partition, 0) for partition in session.partitions}
        session.assign(self._next)
        session.hurry(self._hurried)
        return session
