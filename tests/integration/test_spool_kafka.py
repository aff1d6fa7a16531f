"""The spool on a real broker: what was accepted arrives in order, broker gone or not."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.broker import ApacheBroker, EmbeddedBroker
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Bus, Message, Record
from libs.common.clock import WallClock
from libs.common.contracts.customer_event import Touchpoint, decode_event
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.topics import CUSTOMER_EVENTS, CUSTOMER_MODELS, TOPICS
from libs.common.errors import Misconfigured, Transient
from libs.common.journal import Durability, origin_of
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.spool.journal import SpoolJournal, open_journal
from libs.common.view import View

BrokerProgram = EmbeddedBroker | ApacheBroker


@pytest.fixture(
    params=[
        pytest.param("embedded", marks=pytest.mark.embedded),
        pytest.param("apache", marks=[pytest.mark.apache, pytest.mark.timeout(600)]),
    ]
)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerProgram]:
    program: BrokerProgram = (
        EmbeddedBroker(tmp_path) if request.param == "embedded" else ApacheBroker(tmp_path)
    )
    try:
        await program.start(90)
    except Misconfigured as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    yield program
    await program.stop()


def touch(number: int) -> Touchpoint:
    return Touchpoint(
        id=f"e{number}",
        source="shop",
        customer=f"c{number % 97}",
        occurred_at=number,
        recorded_at=number,
        type="product_viewed",
        channel="web",
        properties={"product_id": f"p{number % 13}"},
    )


async def ensure_topics(bus: Bus) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await bus.ensure_topics(TOPICS)
            except Transient:
                await asyncio.sleep(0.1)
            else:
                return


async def until_on_the_bus(journal: SpoolJournal, position: Position) -> None:
    """However slow the machine is."""
    async with asyncio.timeout(60):
        while await journal.durable(position, Durability.BUS) is not Durability.BUS:
            pass


async def read_all(bus: Bus, journal: SpoolJournal) -> list[Message]:
    """The journal from its start until it holds all that the spool has."""
    reader = bus.reader(CUSTOMER_EVENTS)
    await reader.start({})
    found: list[Message] = []
    seen = dict.fromkeys(range(PARTITIONS), 0)
    async with asyncio.timeout(30):
        while not journal.head().covered_by(seen):
            for partition, messages in (await reader.poll(5_000, 0.5)).items():
                for message in messages:
                    origin = origin_of(message)
                    assert origin is not None
                    assert origin.seq <= seen[partition] + 1, "a gap"
                    seen[partition] = max(seen[partition], origin.seq)
                    found.append(message)
    await reader.close()
    return found


def ids(messages: list[Message]) -> set[str]:
    events = [decode_event(message.value or b"") for message in messages]
    return {event.id for event in events if isinstance(event, Touchpoint)}


async def test_all_arrives_in_order_and_quickly(broker: BrokerProgram, tmp_path: Path) -> None:
    bus = KafkaBus(broker.address)
    await ensure_topics(bus)
    journal = open_journal(tmp_path, "collector", bus, ProgressBoard(), WallClock())
    await journal.start()
    for start in range(0, 5_000, 100):
        await journal.durable(journal.append([touch(n) for n in range(start, start + 100)]), Durability.SPOOL)
    await until_on_the_bus(journal, journal.head())
    waits = []
    for number in range(5_000, 5_050):
        began = time.perf_counter()
        position = journal.append([touch(number)])
        await until_on_the_bus(journal, position)
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    print(
        f"append to acknowledged by the bus: p50 {sorted(waits)[25] * 1e3:.1f} ms, max {max(waits) * 1e3:.1f}"
    )
    assert ids(await read_all(bus, journal)) == {f"e{number}" for number in range(5_050)}
    await journal.stop()
    await bus.close()


async def test_broker_that_dies_costs_no_event(broker: BrokerProgram, tmp_path: Path) -> None:
    bus = KafkaBus(broker.address)
    await ensure_topics(bus)
    journal = open_journal(tmp_path, "collector", bus, ProgressBoard(), WallClock())
    await journal.start()

    async def post() -> None:
        for number in range(0, 3_000, 10):
            position = journal.append([touch(n) for n in range(number, number + 10)])
            assert await journal.durable(position, Durability.SPOOL) is Durability.SPOOL
            await asyncio.sleep(0.005)

    posting = asyncio.create_task(post())
    await asyncio.sleep(0.4)
    await broker.kill()
    await asyncio.sleep(0.5)
    assert await journal.durable(journal.head(), Durability.BUS) is Durability.SPOOL
    await broker.start(90)
    await ensure_topics(bus)
    await posting
    assert ids(await read_all(bus, journal)) == {f"e{number}" for number in range(3_000)}
    await journal.stop()
    await bus.close()


async def test_view_and_board_follow_to_another_start_of_the_broker(
    broker: BrokerProgram, tmp_path: Path
) -> None:
    bus = KafkaBus(broker.address)
    await ensure_topics(bus)
    view = View(bus, CUSTOMER_MODELS, tmp_path / "view")
    board = ProgressBoard(bus)
    await view.start()
    await board.start()

    async def publish(key: bytes, value: bytes, revision: int) -> int:
        producer = bus.producer()
        record = Record(key, value, (("revision", b"%d" % revision),))
        async with asyncio.timeout(30):
            while True:
                try:
                    return 1 + await producer.send(CUSTOMER_MODELS, 3, [record])
                except Transient:
                    await asyncio.sleep(0.1)

    assert await view.reached(3, await publish(b"ann", b"1", 1), 10)
    assert view.get(b"ann") == b"1"
    await broker.kill()
    assert view.get(b"ann") == b"1"
    await broker.start(90)
    await ensure_topics(bus)
    cluster = await bus.cluster_id()
    assert await view.reached(3, await publish(b"ann", b"2", 2), 20, cluster)
    assert view.get(b"ann") == b"2"
    async with asyncio.timeout(10):
        while board.cluster != cluster or not board.caught_up:
            await asyncio.sleep(0.05)
    await view.stop()
    await board.stop()
    await bus.close()
