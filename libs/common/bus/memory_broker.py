"""What a memory bus is connected to: a broker, its cluster, the logs in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from libs.common.bus.ports import Assignment, ClusterChanged, Message, Record
from libs.common.clock import Clock
from libs.common.errors import Transient


class Member(Protocol):
    """A group member, as a rebalance sees it."""

    async def revoke(self) -> None:
        """Take everything away."""
        ...

    async def assign(self, assignment: Assignment) -> None:
        """Give partitions."""
        ...


@dataclass
class Partition:
    """A log: ``messages`` from offset ``start`` on."""

    start: int = 0
    messages: list[Message] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The offset the next record gets."""
        return self.start + len(self.messages)

    def within(self, offset: int) -> int:
        """``offset``, or the earliest one where there is no such any more."""
        return offset if self.start <= offset <= self.end else self.start

    def read(self, offset: int, limit: int) -> list[Message]:
        """At most ``limit`` records from ``offset`` on."""
        return self.messages[offset - self.start : offset - self.start + limit]


@dataclass
class Group:
    """Who shares the partitions of a topic, and the turn in which that is settled."""

    members: list[Member] = field(default_factory=list)
    generation: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Cluster:
    """What is lost when a broker is lost."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.topics: dict[str, list[Partition]] = {}
        self.configs: dict[str, Mapping[str, str]] = {}
        self.groups: dict[str, Group] = {}


class Broker:
    """What all connections share."""

    def __init__(self, clock: Clock | None, cluster: str) -> None:
        self._clock = clock
        self._ticks = count()
        self.cluster = Cluster(cluster)
        self.away = False
        self._changed = asyncio.Event()

    def reach(self, expected: str | None = None) -> Cluster:
        """The cluster, where it can be reached and is the one that is expected."""
        if self.away:
            raise Transient("the memory bus is told to be away")
        if expected is not None and expected != self.cluster.name:
            raise ClusterChanged(expected, self.cluster.name)
        return self.cluster

    def partitions(self, topic: str, expected: str | None) -> list[Partition]:
        """The partitions of ``topic``; `Transient` where there is none."""
        found = self.reach(expected).topics.get(topic)
        if found is None:
            raise Transient(f"topic {topic} is not there (yet)")
        return found

    def append(self, topic: str, partition: int, records: Iterable[Record], expected: str | None) -> int:
        """Put ``records`` at the end of a partition; the offset of the last one."""
        log = self.partitions(topic, expected)[partition]
        for record in records:
            now = next(self._ticks) if self._clock is None else self._clock.now()
            message = Message(topic, partition, log.end, record.key, record.value, record.headers, now)
            log.messages.append(message)
        self.notify()
        return log.end - 1

    def notify(self) -> None:
        """Wake everybody who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, timeout: float) -> None:
        """Wait until something changes, or ``timeout`` seconds."""
        try:
            # Trap: not asyncio.wait_for, it loses a cancellation that comes together with what it waits for.
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            pass
