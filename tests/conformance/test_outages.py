"""A broker that hangs, dies, comes back, or comes back as another: bounded waits, no lost connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest

from libs.common.bus.ports import (
    Assignment,
    Bus,
    ClusterChanged,
    GroupConsumer,
    Record,
    TopicReader,
    TopicSpec,
)
from libs.common.errors import Transient

if TYPE_CHECKING:
    from tests.conformance.conftest import Broker

TIMEOUT = 1.0
UNSURE = 100
"""Value of records sent to a broker that does not answer."""

BOUND = TIMEOUT + 2.0
"""A request times out after TIMEOUT, and what is broken is dismantled within two seconds."""


def numbered(count: int, start: int = 0) -> list[Record]:
    return [Record(b"k", b"%d" % number) for number in range(start, start + count)]


async def ignore(partitions: frozenset[int]) -> None: ...


async def from_the_start(assignment: Assignment) -> Mapping[int, int]:
    return dict.fromkeys(assignment.partitions, 0)


async def eventually(attempt: Callable[[], object], seconds: float = 20.0) -> object:
    """What ``attempt`` answers once it stops raising `Transient`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await attempt()  # type: ignore[misc]
        except Transient:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


class Parts:
    """One of each, all of them in use."""

    def __init__(self, bus: Bus, topic: str) -> None:
        self.bus = bus
        self.topic = topic
        self.producer = bus.producer()
        self.reader = bus.reader(topic)
        self.consumer = bus.consumer(topic, f"group-of-{topic}")

    async def use(self) -> None:
        await self.bus.ensure_topics([TopicSpec(self.topic, 2, {})])
        self.bound = self.bus.producer(cluster=await self.bus.cluster_id())
        await self.producer.send(self.topic, 0, numbered(3))
        await self.bound.send(self.topic, 0, numbered(3, 3))
        await self.reader.start({})
        await self.consumer.start(ignore, from_the_start)
        assert await self.values(self.reader, 6) == list(range(6))
        assert await self.values(self.consumer, 6) == list(range(6))

    async def values(self, part: object, count: int) -> list[int]:
        found: list[int] = []
        deadline = time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            try:
                got = await part.poll(100, 0.2)  # type: ignore[attr-defined]
            except Transient:
                await asyncio.sleep(0.1)
                continue
            for messages in got.values():
                # What timed out may have arrived all the same.
                found += [number for m in messages if (number := int(m.value or b"-1")) != UNSURE]
        return found

    async def require_bounded_failures(self) -> None:
        calls: dict[str, Callable[[], object]] = {
            "send": lambda: self.producer.send(self.topic, 0, numbered(1, UNSURE)),
            "bound send": lambda: self.bound.send(self.topic, 0, numbered(1, UNSURE)),
            "cluster_id": self.bus.cluster_id,
            "ensure_topics": lambda: self.bus.ensure_topics([TopicSpec("more", 1, {})]),
            "reader.start": lambda: self.bus.reader(self.topic).start({}),
            "consumer.start": lambda: self.bus.consumer(self.topic, "g2").start(ignore, from_the_start),
        }
        for name, call in calls.items():
            begin = time.monotonic()
            with pytest.raises(Transient):
                await call()  # type: ignore[misc]
            assert time.monotonic() - begin < BOUND, name
        for part in (self.reader, self.consumer):
            begin = time.monotonic()
            try:
                assert await part.poll(10, 0.2) == {}
            except Transient:
                pass
            assert time.monotonic() - begin < BOUND
        begin = time.monotonic()
        await self.consumer.commit({0: 3})
        assert time.monotonic() - begin < BOUND


async def test_a_hanging_broker_is_transient_in_time_and_the_same_parts_work_afterwards(
    broker: Broker, topic: str
) -> None:
    bus = broker.connect(TIMEOUT)
    parts = Parts(bus, topic)
    await parts.use()
    broker.hang()
    try:
        await parts.require_bounded_failures()
        begin = time.monotonic()
        spare = broker.connect(TIMEOUT)
        await spare.close()
        assert time.monotonic() - begin < 2.5
    finally:
        broker.wake()
    assert await eventually(lambda: parts.producer.send(topic, 1, numbered(2, 50))) == 1
    assert await parts.values(parts.reader, 2) == [50, 51]
    assert {50, 51} <= set(await parts.values(parts.consumer, 2))
    await bus.close()


async def test_closing_is_bounded_while_the_broker_hangs(broker: Broker, topic: str) -> None:
    bus = broker.connect(TIMEOUT)
    parts = Parts(bus, topic)
    await parts.use()
    broker.hang()
    try:
        sending = asyncio.create_task(parts.producer.send(topic, 0, numbered(1)))
        await asyncio.sleep(0.05)
        begin = time.monotonic()
        await bus.close()
        assert time.monotonic() - begin < 2.5
        await asyncio.wait([sending])
        assert isinstance(sending.exception(), Transient)
    finally:
        broker.wake()


async def test_a_crashed_broker_is_transient_closes_in_time_and_is_recognised_when_it_comes_back(
    fragile: Broker,
) -> None:
    bus, closing = fragile.connect(TIMEOUT), fragile.connect(TIMEOUT)
    parts = Parts(bus, "crash")
    await parts.use()
    await Parts(closing, "closing").use()
    before = await bus.cluster_id()
    await fragile.crash()
    await parts.require_bounded_failures()
    begin = time.monotonic()
    await closing.close()
    await closing.close()
    assert time.monotonic() - begin < 2.5
    await fragile.restart()
    after = await eventually(bus.cluster_id)
    assert (after == before) is fragile.survives
    if fragile.survives:
        await require_continued(parts)
    else:
        await require_recognised(parts, before, str(after))
    await bus.close()


async def require_continued(parts: Parts) -> None:
    """The same cluster again: everybody goes on where he was."""
    await eventually(lambda: parts.producer.send(parts.topic, 1, numbered(2, 50)))
    await eventually(lambda: parts.bound.send(parts.topic, 1, numbered(1, 52)))
    assert await parts.values(parts.reader, 3) == [50, 51, 52]
    assert {50, 51, 52} <= set(await parts.values(parts.consumer, 3))


async def poll_until_it_raises(part: TopicReader | GroupConsumer) -> None:
    async with asyncio.timeout(15):
        while True:
            assert await part.poll(10, 0.2) == {}


async def require_recognised(parts: Parts, before: str, after: str) -> None:
    """Another, empty cluster: what is bound to the old one says so, and makes no topics there."""
    for part in (parts.reader, parts.consumer):
        with pytest.raises(ClusterChanged) as caught:
            await poll_until_it_raises(part)
        assert (caught.value.expected, caught.value.found) == (before, after)
    with pytest.raises(ClusterChanged):
        await eventually(lambda: parts.bound.send(parts.topic, 0, numbered(1)))
    with pytest.raises(Transient):
        await parts.producer.send(parts.topic, 0, numbered(1))
    await parts.bus.ensure_topics([TopicSpec(parts.topic, 6, {})])
    assert await parts.producer.send(parts.topic, 5, numbered(1, 70)) == 0
    with pytest.raises(ClusterChanged):
        await parts.reader.poll(10, 0.1)
    await parts.reader.close()
    await parts.reader.start({})
    assert await parts.values(parts.reader, 1) == [70]
    await parts.consumer.close()
    await parts.consumer.start(ignore, from_the_start)
    assert await parts.values(parts.consumer, 1) == [70]


async def test_nobody_there_is_transient(kind: str) -> None:
    if kind == "memory":
        return
    from deploy.local.program import free_port
    from libs.common.bus.kafka import KafkaBus

    bus = KafkaBus(f"127.0.0.1:{free_port()}", timeout=TIMEOUT)
    with pytest.raises(Transient):
        await bus.cluster_id()
    with pytest.raises(Transient):
        await bus.reader("any").start({})
    await bus.close()
