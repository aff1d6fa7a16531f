"""What is sent at once to one broker goes in one request, and each batch of it has a fate of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.protocol.produce import ProduceRequest

from libs.common.bus.kafka.client import BoundClient
from libs.common.bus.ports import Bus, Record, TopicSpec
from libs.common.errors import Invalid, Transient
from tests.conformance.conftest import PARTITIONS
from tests.conformance.test_sending import numbered, read, values


@pytest.fixture
def requests(kind: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The produce requests that really went out."""
    if kind == "memory":
        pytest.skip("no requests there")
    sent: list[Any] = []
    send = BoundClient.send

    async def noted(client: BoundClient, node: Any, request: Any, **options: Any) -> Any:
        if isinstance(request, ProduceRequest):
            sent.append(request)
        return await send(client, node, request, **options)

    monkeypatch.setattr(BoundClient, "send", noted)
    return sent


async def test_what_is_sent_at_once_goes_in_one_request(bus: Bus, topic: str, requests: list[Any]) -> None:
    producer = bus.producer()
    # Trap: where a partition has no leader yet, its batch goes out later, in a request of its own.
    for partition in range(PARTITIONS):
        await producer.send(topic, partition, numbered(1))
    requests.clear()
    sends = [producer.send(topic, at, numbered(20, 100 * at)) for at in range(PARTITIONS)]
    assert await asyncio.gather(*sends) == [20] * PARTITIONS
    assert len(requests) == 1
    found = await read(bus, topic, 21 * PARTITIONS)
    for partition in range(PARTITIONS):
        assert values(found[partition]) == [0, *range(100 * partition, 100 * partition + 20)]


async def test_refusal_of_one_batch_is_not_the_others(
    kind: str, bus: Bus, topic: str, requests: list[Any]
) -> None:
    if kind != "apache":
        pytest.skip("refuses nothing")
    narrow = f"{topic}-narrow"
    await bus.ensure_topics([TopicSpec(narrow, 1, {"max.message.bytes": "200"})])
    producer = bus.producer()
    await producer.send(narrow, 0, [Record(b"k", b"small")])
    await producer.send(topic, 1, numbered(1))
    requests.clear()
    wide, thin = await asyncio.gather(
        producer.send(topic, 1, numbered(300, 1)),
        producer.send(narrow, 0, [Record(b"k", bytes(range(256)) * 4)]),
        return_exceptions=True,
    )
    assert len(requests) == 1
    assert wide == 300
    assert isinstance(thin, Invalid)
    assert thin.code == "too_large"
    assert values((await read(bus, topic, 301))[1]) == list(range(301))


async def test_who_gives_up_takes_the_request_along_and_nothing_of_it_comes_late(
    bus: Bus, topic: str, requests: list[Any]
) -> None:
    producer = bus.producer()
    for partition in (1, 2):
        await producer.send(topic, partition, numbered(1))
    requests.clear()
    given_up = asyncio.create_task(producer.send(topic, 1, numbered(1, 7)))
    other = asyncio.create_task(producer.send(topic, 2, numbered(1, 8)))
    while not requests:
        await asyncio.sleep(0)
    given_up.cancel()
    results = await asyncio.gather(given_up, other, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    # It may have arrived all the same; whoever sent it may only not believe so.
    assert isinstance(results[1], Transient)
    assert await producer.send(topic, 2, numbered(1, 9)) >= 0
    assert values((await read(bus, topic, 3))[2])[-1] == 9
