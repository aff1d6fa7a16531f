"""What is sent arrives once, whole, in order and in the partition that was named."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from libs.common.bus.ports import Bus, ClusterChanged, Message, Record, TopicSpec
from libs.common.errors import Invalid, Transient


async def read(bus: Bus, topic: str, count: int, seconds: float = 10.0) -> dict[int, list[Message]]:
    """At least ``count`` records of ``topic`` from its start, by partition, and what comes a moment later."""
    reader = bus.reader(topic)
    await reader.start({})
    found: dict[int, list[Message]] = {}
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        missing = count - sum(map(len, found.values()))
        got = await reader.poll(5_000, 1.0 if missing > 0 else 0.2)
        if not got and missing <= 0:
            break
        for partition, messages in got.items():
            found.setdefault(partition, []).extend(messages)
    await reader.close()
    return found


def numbered(count: int, start: int = 0) -> list[Record]:
    return [Record(b"k", b"%d" % number) for number in range(start, start + count)]


def values(messages: Sequence[Message]) -> list[int]:
    return [int(message.value or b"-1") for message in messages]


async def test_records_of_a_partition_keep_their_order_over_many_sends(bus: Bus, topic: str) -> None:
    producer = bus.producer()
    lasts = []
    for start, count in ((0, 1), (1, 2_500), (2_501, 10)):
        lasts.append(await producer.send(topic, 2, numbered(count, start)))
    found = await read(bus, topic, 2_511)
    assert list(found) == [2]
    assert values(found[2]) == list(range(2_511))
    assert [message.offset for message in found[2]] == list(range(2_511))
    assert lasts == [0, 2_500, 2_510]


async def test_sends_to_one_partition_at_once_are_taken_in_the_order_of_the_calls(
    bus: Bus, topic: str
) -> None:
    producer = bus.producer()
    # Each in several batches, which must not mix.
    padding = (("padding", random.Random(3).randbytes(30_000)),)
    records = [Record(b"k", b"%d" % number, padding) for number in range(280)]
    await asyncio.gather(*(producer.send(topic, 0, records[at : at + 70]) for at in range(0, 280, 70)))
    assert values((await read(bus, topic, 280))[0]) == list(range(280))


async def test_key_value_and_headers_arrive_byte_for_byte(bus: Bus, topic: str) -> None:
    sent = [
        Record(b"", b""),
        Record("käse".encode(), None, (("schema", b"x/1"), ("seq", b"7"), ("schema", b"again"))),
        Record(bytes(range(256)), bytes(range(255, -1, -1)), (("leer", b""),)),
    ]
    await bus.producer().send(topic, 1, sent)
    found = (await read(bus, topic, 3))[1]
    assert [Record(m.key, m.value, m.headers) for m in found] == sent
    assert {m.topic for m in found} == {topic}
    assert found[1].header("schema") == b"x/1"
    assert found[0].header("schema") is None


async def test_a_batch_over_the_limit_is_split_and_stays_in_order(bus: Bus, topic: str) -> None:
    blob = random.Random(1).randbytes(30_000)
    records = [Record(b"%d" % number, blob) for number in range(100)]
    assert await bus.producer().send(topic, 3, records) == 99
    found = (await read(bus, topic, 100))[3]
    assert [m.key for m in found] == [record.key for record in records]
    assert all(m.value == blob for m in found)


async def test_the_largest_record_passes_even_when_it_cannot_be_compressed(bus: Bus, topic: str) -> None:
    value = random.Random(2).randbytes(1_000_000 - 1)
    await bus.producer().send(topic, 0, [Record(b"k", value)])
    assert [m.value for m in (await read(bus, topic, 1))[0]] == [value]


async def test_a_record_too_large_is_invalid_and_nothing_of_its_batch_is_sent(bus: Bus, topic: str) -> None:
    producer = bus.producer()
    with pytest.raises(Invalid) as caught:
        await producer.send(topic, 0, [*numbered(3), Record(b"k", bytes(1_000_001)), *numbered(3)])
    assert caught.value.code == "too_large"
    await producer.send(topic, 0, numbered(1, 42))
    assert values((await read(bus, topic, 1))[0]) == [42]


async def test_ten_thousand_records_pass_through(bus: Bus, topic: str) -> None:
    producer = bus.producer()

    async def fill(partition: int) -> None:
        for start in range(0, 2_500, 500):
            await producer.send(topic, partition, numbered(500, start))

    await asyncio.gather(*(fill(partition) for partition in range(4)))
    found = await read(bus, topic, 10_000)
    assert {p: values(messages) for p, messages in found.items()} == {p: list(range(2_500)) for p in range(4)}


async def test_an_unknown_topic_is_transient_and_is_not_made(bus: Bus) -> None:
    with pytest.raises(Transient):
        await bus.producer().send("nobody-made-this", 0, numbered(1))
    with pytest.raises(Transient):
        await bus.reader("nobody-made-this").start({})
    with pytest.raises(Transient):
        await bus.reader("nobody-made-this").start({})


async def test_making_a_topic_again_changes_nothing(bus: Bus, topic: str) -> None:
    await bus.producer().send(topic, 3, numbered(1))
    await bus.ensure_topics([TopicSpec(topic, 1, {}), TopicSpec(topic + "-b", 2, {"retention.ms": "1000"})])
    assert values((await read(bus, topic, 1))[3]) == [0]


async def test_nothing_to_send_is_a_mistake_of_the_caller(bus: Bus, topic: str) -> None:
    with pytest.raises(ValueError, match="nothing"):
        await bus.producer().send(topic, 0, [])


async def test_a_producer_bound_to_another_cluster_sends_nothing(bus: Bus, topic: str) -> None:
    producer = bus.producer(cluster="another")
    for _ in range(2):
        with pytest.raises(ClusterChanged) as caught:
            await producer.send(topic, 0, numbered(1))
    assert (caught.value.expected, caught.value.found) == ("another", await bus.cluster_id())
    await bus.producer(cluster=await bus.cluster_id()).send(topic, 0, numbered(1, 7))
    assert values((await read(bus, topic, 1))[0]) == [7]


async def test_a_closed_producer_is_transient(bus: Bus, topic: str) -> None:
    producer = bus.producer()
    await producer.close()
    await producer.close()
    with pytest.raises(Transient):
        await producer.send(topic, 0, numbered(1))
