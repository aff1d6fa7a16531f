"""How long readers let the embedded broker wait, which looks for new records three times a wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest

from libs.common.bus.kafka import session
from libs.common.bus.kafka.client import BoundClient
from libs.common.bus.ports import Assignment, Bus, GroupConsumer
from tests.conformance.test_sending import numbered


@pytest.fixture
def kind() -> str:
    return "embedded"


pytestmark = pytest.mark.embedded


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Milliseconds of the fetches that really went out."""
    sent: list[int] = []
    send = BoundClient.send

    async def noted(client: BoundClient, node: Any, request: Any, **options: Any) -> Any:
        if isinstance(request, FetchRequest):
            sent.append(request._max_wait_ms)
        return await send(client, node, request, **options)

    monkeypatch.setattr(BoundClient, "send", noted)
    return sent


async def test_reader_asks_often_only_while_somebody_waits(
    bus: Bus, topic: str, waits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = bus.reader(topic)
    await reader.start({})
    try:
        await reader.poll(10, 0.5)
        assert set(waits) == {session.IDLE_MS}
        reader.hurry(True)
        await _until(waits, session.HURRIED_MS)
        reader.hurry(False)
        await reader.poll(10, 0.1)
        await _until(waits, session.CALM_MS)
        monkeypatch.setattr(session, "LATELY", 0.0)
        await reader.poll(10, 0.1)
        await _until(waits, session.IDLE_MS)
    finally:
        await reader.close()


@pytest.fixture
async def member(bus: Bus, topic: str) -> AsyncIterator[GroupConsumer]:
    consumer = bus.consumer(topic, f"{topic}-group")

    async def given_up(partitions: frozenset[int]) -> None:
        pass

    async def assigned(assignment: Assignment) -> Mapping[int, int]:
        return dict.fromkeys(assignment.partitions, 0)

    await consumer.start(given_up, assigned)
    yield consumer
    await consumer.close()


async def test_group_asks_often_while_something_comes(
    bus: Bus, topic: str, member: GroupConsumer, waits: list[int]
) -> None:
    await bus.producer().send(topic, 1, numbered(1))
    while not await member.poll(10, 0.2):
        pass
    await _until(waits, session.HURRIED_MS)
    assert not await member.poll(10, 0.2)
    await _until(waits, session.CALM_MS)


async def _until(waits: list[int], wanted: int) -> None:
    """Wait for the next fetch that waits as long as ``wanted``."""
    waits.clear()
    async with asyncio.timeout(20):
        while wanted not in waits:
            await asyncio.sleep(0.01)
