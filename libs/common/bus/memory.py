"""A bus within one process, for tests: partitions, orders, redelivers and rebalances as Kafka does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from libs.common.bus.memory_broker import Broker, Cluster, Group, Partition
from libs.common.bus.ports import (
    MAX_RECORD_BYTES,
    Assignment,
    GroupConsumer,
    Message,
    Producer,
    Record,
    TopicReader,
    TopicSpec,
    TopicState,
)
from libs.common.clock import Clock
from libs.common.errors import Invalid, Transient


class MemoryBus:
    """Implements `ports.Bus` on lists.

    Parameters
    ----------
    clock:
        Gives record timestamps (append time); without one they count 0, 1, 2, …
    cluster:
        The first cluster id.
    """

    def __init__(self, clock: Clock | None = None, cluster: str = "memory-1") -> None:
        self._broker = Broker(clock, cluster)
        self._parts: list[Producer | GroupConsumer | TopicReader] = []

    async def cluster_id(self) -> str:
        """See `ports.Bus.cluster_id`."""
        return self._broker.reach().name

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        """See `ports.Bus.ensure_topics`."""
        cluster = self._broker.reach()
        for topic in topics:
            if topic.name not in cluster.topics:
                cluster.topics[topic.name] = [Partition() for _ in range(topic.partitions)]
                cluster.configs[topic.name] = dict(topic.config)

    async def describe(self, names: Sequence[str]) -> Mapping[str, TopicState]:
        """See `ports.Bus.describe`."""
        cluster = self._broker.reach()
        return {
            name: TopicState(len(cluster.topics[name]), 1, cluster.configs.get(name, {}))
            for name in names
            if name in cluster.topics
        }

    async def configure(self, name: str, config: Mapping[str, str]) -> None:
        """See `ports.Bus.configure`."""
        configs = self._broker.reach().configs
        configs[name] = {**configs.get(name, {}), **config}

    def producer(self, cluster: str | None = None) -> Producer:
        """See `ports.Bus.producer`."""
        made = _MemoryProducer(self._broker, cluster)
        self._parts.append(made)
        return made

    def consumer(self, topic: str, group: str, cluster: str | None = None) -> GroupConsumer:
        """See `ports.Bus.consumer`."""
        made = _Member(self._broker, topic, group, cluster)
        self._parts.append(made)
        return made

    def reader(self, topic: str, cluster: str | None = None) -> TopicReader:
        """See `ports.Bus.reader`."""
        made = _MemoryReader(self._broker, topic, cluster)
        self._parts.append(made)
        return made

    async def close(self) -> None:
        """See `ports.Bus.close`."""
        for part in self._parts:
            await part.close()

    def connect(self) -> MemoryBus:
        """Another connection to the same broker, to be closed on its own."""
        other = MemoryBus()
        other._broker = self._broker
        return other

    # What only tests do.

    def go_away(self) -> None:
        """Be unreachable: sends raise `Transient`, polls are silent, until `come_back`."""
        self._broker.away = True

    def come_back(self) -> None:
        """Be reachable again, with all that was there."""
        self._broker.away = False
        self._broker.notify()

    def replace_cluster(self, cluster: str) -> None:
        """Play the loss of the broker: topics are gone, groups begin anew, the cluster id is ``cluster``."""
        self._broker.cluster = Cluster(cluster)
        self._broker.notify()

    def recreate(self, topic: str) -> None:
        """Delete ``topic`` and make it again: same cluster, but its offsets begin at 0."""
        topics = self._broker.cluster.topics
        topics[topic] = [Partition() for _ in topics[topic]]
        self._broker.notify()

    def records(self, topic: str, partition: int | None = None) -> list[Message]:
        """All that ``topic`` holds, by partition and offset."""
        partitions = self._broker.cluster.topics.get(topic, [])
        chosen = partitions if partition is None else partitions[partition : partition + 1]
        return [message for each in chosen for message in each.messages]

    def expire(self, topic: str, partition: int, before: int) -> None:
        """Drop records below offset ``before``, as retention would."""
        held = self._broker.cluster.topics[topic][partition]
        dropped = min(max(0, before - held.start), len(held.messages))
        del held.messages[:dropped]
        held.start += dropped


class _MemoryProducer:
    def __init__(self, broker: Broker, cluster: str | None) -> None:
        self._broker = broker
        self._cluster = cluster
        self._closed = False

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        if not records:
            raise ValueError("nothing to send")
        for record in records:
            if record.size > MAX_RECORD_BYTES:
                raise Invalid(
                    "too_large", f"a record of {record.size} bytes, {MAX_RECORD_BYTES} are possible"
                )
        if self._closed:
            raise Transient("the producer is closed")
        # As with a broker, others get a turn before the acknowledgement.
        await asyncio.sleep(0)
        return self._broker.append(topic, partition, records, self._cluster)

    async def close(self) -> None:
        self._closed = True


class _Cursor:
    """Positions in the partitions of a topic, and reading on from them."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self.cluster: str | None = None
        self.next: dict[int, int] = {}
        self.paused: set[int] = set()
        self._turn = 0

    async def poll(self, max_records: int, timeout: float) -> Mapping[int, Sequence[Message]]:
        deadline = asyncio.get_running_loop().time() + timeout
        # Others get a turn. Trap: not after taking, a rebalance could pass between that and the caller.
        await asyncio.sleep(0)
        while True:
            got = self._take(max_records)
            left = deadline - asyncio.get_running_loop().time()
            if got or left <= 0:
                return got
            await self._broker.change(left)

    def _take(self, max_records: int) -> dict[int, Sequence[Message]]:
        if self._broker.away:
            return {}
        partitions = self._broker.reach(self.cluster).topics.get(self._topic, [])
        got: dict[int, Sequence[Message]] = {}
        # Another partition first each time, so that a busy one does not starve the others.
        self._turn += 1
        order = sorted(self.next, key=lambda p: (p + self._turn) % max(1, len(partitions)))
        for partition in order:
            if partition in self.paused or max_records <= 0:
                continue
            # As in Kafka, a place that is gone is given up at once, not when something is found elsewhere.
            self.next[partition] = partitions[partition].within(self.next[partition])
            messages = partitions[partition].read(self.next[partition], max_records)
            if messages:
                got[partition] = messages
                self.next[partition] = messages[-1].offset + 1
                max_records -= len(messages)
        return got


class _MemoryReader:
    def __init__(self, broker: Broker, topic: str, cluster: str | None) -> None:
        self._broker = broker
        self._topic = topic
        self._cluster = cluster
        self._cursor: _Cursor | None = None

    async def start(self, offsets: Mapping[int, int]) -> None:
        cursor = _Cursor(self._broker, self._topic)
        cursor.cluster = self._cluster or self._broker.reach().name
        partitions = self._broker.partitions(self._topic, cursor.cluster)
        cursor.next = {partition: offsets.get(partition, 0) for partition in range(len(partitions))}
        self._cursor = cursor

    async def poll(self, max_records: int, timeout: float) -> Mapping[int, Sequence[Message]]:
        if self._cursor is None:
            raise RuntimeError("poll before start")
        return await self._cursor.poll(max_records, timeout)

    def hurry(self, hurried: bool) -> None:
        """Readers here are told at once in any case."""

    async def close(self) -> None:
        self._cursor = None


class _Member:
    """A group member; whoever joins or leaves carries out the rebalance for all, and waits for it."""

    def __init__(self, broker: Broker, topic: str, group: str, cluster: str | None) -> None:
        self._broker = broker
        self._topic = topic
        self._name = f"{group}/{topic}"
        self._cluster = cluster
        self._group: Group | None = None
        self._cursor = _Cursor(broker, topic)
        self._told: frozenset[int] = frozenset()
        self._failure: Exception | None = None

    async def start(
        self,
        on_revoked: Callable[[frozenset[int]], Awaitable[None]],
        on_assigned: Callable[[Assignment], Awaitable[Mapping[int, int]]],
    ) -> None:
        await self.close()
        cluster = self._broker.reach(self._cluster)
        self._broker.partitions(self._topic, cluster.name)
        self._home = cluster
        self._on_revoked, self._on_assigned = on_revoked, on_assigned
        self._failure = None
        self._cursor = _Cursor(self._broker, self._topic)
        self._cursor.cluster = cluster.name
        self._group = cluster.groups.setdefault(self._name, Group())
        async with self._group.turn:
            self._group.members.append(self)
            await _rebalance(self._group, len(cluster.topics[self._topic]), cluster.name)
        self._broker.notify()

    async def poll(self, max_records: int, timeout: float) -> Mapping[int, Sequence[Message]]:
        if self._group is None:
            raise RuntimeError("poll before start")
        self._raise_failure()
        got = await self._cursor.poll(max_records, timeout)
        self._raise_failure()
        # What was read while the partitions were being taken away is the next owner's.
        return {partition: messages for partition, messages in got.items() if partition in self._cursor.next}

    def seek(self, partition: int, offset: int) -> None:
        if partition in self._told:
            self._cursor.next[partition] = offset

    def pause(self, partitions: frozenset[int]) -> None:
        self._cursor.paused |= partitions & self._told

    def resume(self, partitions: frozenset[int]) -> None:
        self._cursor.paused -= partitions
        self._broker.notify()

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """For display only, and nobody looks."""

    async def close(self) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        async with group.turn:
            group.members.remove(self)
            await self.revoke()
            if group.members:
                await _rebalance(group, len(self._home.topics[self._topic]), self._home.name)
        self._broker.notify()

    async def revoke(self) -> None:
        """Take everything away."""
        told, self._told = self._told, frozenset()
        self._cursor.next = {}
        self._cursor.paused = set()
        if told:
            try:
                await self._on_revoked(told)
            except Exception as error:
                self._failure = error

    async def assign(self, assignment: Assignment) -> None:
        """Give partitions."""
        self._told = assignment.partitions
        self._cursor.paused = set(assignment.partitions)
        try:
            offsets = await self._on_assigned(assignment)
        except Exception as error:
            self._failure = error
            return
        self._cursor.next.update(offsets)
        self._cursor.paused -= set(offsets)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


async def _rebalance(group: Group, partitions: int, cluster: str) -> None:
    """Share out in ranges, as Kafka's range assignor does: everybody gives up everything first."""
    for member in group.members:
        await member.revoke()
    group.generation += 1
    share, more = divmod(partitions, len(group.members))
    begin = 0
    for place, member in enumerate(group.members):
        end = begin + share + (place < more)
        await member.assign(Assignment(frozenset(range(begin, end)), group.generation, cluster))
        begin = end
