"""Readers begin where they are told, and miss and repeat nothing."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.bus.ports import Bus, ClusterChanged, Message, Record, TopicReader

TOGETHER = 10.0


def numbered(count: int, start: int = 0) -> list[Record]:
    return [Record(b"k", b"%d" % number) for number in range(start, start + count)]


async def take(reader: TopicReader, count: int, size: int = 1_000) -> dict[int, list[int]]:
    """Poll until ``count`` records have come; their values by partition."""
    found: dict[int, list[int]] = {}
    deadline = asyncio.get_running_loop().time() + TOGETHER
    while sum(map(len, found.values())) < count and asyncio.get_running_loop().time() < deadline:
        for partition, messages in (await reader.poll(size, 0.5)).items():
            assert messages
            found.setdefault(partition, []).extend(number(m) for m in messages)
    return found


def number(message: Message) -> int:
    return int(message.value or b"-1")


async def test_a_reader_begins_at_the_offsets_it_is_given_and_else_at_the_start(bus: Bus, topic: str) -> None:
    for partition in range(3):
        await bus.producer().send(topic, partition, numbered(10))
    reader = bus.reader(topic)
    await reader.start({0: 4, 1: 10})
    assert await take(reader, 16) == {0: [4, 5, 6, 7, 8, 9], 2: list(range(10))}
    await bus.producer().send(topic, 1, numbered(2, 10))
    assert await take(reader, 2) == {1: [10, 11]}


async def test_a_poll_returns_no_more_than_asked_for_and_loses_nothing(bus: Bus, topic: str) -> None:
    for partition in range(4):
        await bus.producer().send(topic, partition, numbered(25))
    reader = bus.reader(topic)
    await reader.start({})
    found: dict[int, list[int]] = {}
    while sum(map(len, found.values())) < 100:
        got = await reader.poll(7, 2.0)
        assert 0 < sum(map(len, got.values())) <= 7
        for partition, messages in got.items():
            found.setdefault(partition, []).extend(number(m) for m in messages)
    assert found == {partition: list(range(25)) for partition in range(4)}


async def test_an_empty_poll_ends_in_time(bus: Bus, topic: str) -> None:
    reader = bus.reader(topic)
    await reader.start({})
    begin = asyncio.get_running_loop().time()
    assert await reader.poll(10, 0.3) == {}
    assert 0.2 < asyncio.get_running_loop().time() - begin < 1.5


async def test_a_record_reaches_a_waiting_reader_soon(bus: Bus, topic: str) -> None:
    reader = bus.reader(topic)
    await reader.start({})
    await reader.poll(10, 0.3)
    waiting = asyncio.create_task(reader.poll(10, 5.0))
    await asyncio.sleep(0.05)
    begin = asyncio.get_running_loop().time()
    await bus.producer().send(topic, 0, numbered(1))
    assert [number(m) for m in (await waiting)[0]] == [0]
    assert asyncio.get_running_loop().time() - begin < 1.0


async def test_a_reader_can_be_started_again(bus: Bus, topic: str) -> None:
    await bus.producer().send(topic, 0, numbered(5))
    reader = bus.reader(topic)
    await reader.start({})
    assert await take(reader, 5) == {0: [0, 1, 2, 3, 4]}
    await reader.close()
    await reader.start({0: 3})
    assert await take(reader, 2) == {0: [3, 4]}


async def test_two_readers_do_not_share(bus: Bus, topic: str) -> None:
    await bus.producer().send(topic, 1, numbered(5))
    first, second = bus.reader(topic), bus.reader(topic)
    await first.start({})
    await second.start({})
    assert await take(first, 5) == await take(second, 5) == {1: [0, 1, 2, 3, 4]}


async def test_an_offset_that_is_no_more_is_read_from_the_earliest(bus: Bus, topic: str, kind: str) -> None:
    await bus.producer().send(topic, 0, numbered(5))
    reader = bus.reader(topic)
    await reader.start({0: 1_000})
    # The embedded broker is silent past the end: there a changed cluster id tells that offsets are void.
    expected = {} if kind == "embedded" else {0: [0, 1, 2, 3, 4]}
    if kind == "embedded":
        assert await reader.poll(10, 0.5) == expected
    else:
        assert await take(reader, 5) == expected


async def test_a_reader_bound_to_another_cluster_reads_nothing(bus: Bus, topic: str) -> None:
    await bus.producer().send(topic, 0, numbered(5))
    with pytest.raises(ClusterChanged):
        await bus.reader(topic, cluster="another").start({0: 3})


async def test_the_cluster_id_stays(bus: Bus) -> None:
    assert await bus.cluster_id() == await bus.cluster_id() != ""
