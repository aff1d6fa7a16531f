"""Spool, broker, analyzer and PostgreSQL together: what the broker loses, what a process leaves behind."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.local.broker import EmbeddedBroker
from deploy.local.postgres import EmbeddedPostgres
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Bus, Producer, Record
from libs.common.clock import WallClock
from libs.common.contracts.customer_event import Touchpoint
from libs.common.contracts.topics import HEADER_FLOOR, HEADER_SEQ, TOPICS
from libs.common.db import Database
from libs.common.journal import Durability
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.spool.journal import SpoolJournal, open_journal
from services.analyzer.app import create_service
from services.analyzer.handlers.queries import Queries
from services.analyzer.settings import AnalyzerSettings
from services.analyzer.store.reading import PostgresReadStore

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(180)]


class LosingProducer:
    """A real producer whose broker acknowledges some records that it never keeps."""

    def __init__(self, inner: Producer, loses: Callable[[Record], bool]) -> None:
        self._inner = inner
        self._loses = loses

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        kept = [record for record in records if not self._loses(record)]
        return await self._inner.send(topic, partition, kept) if kept else 0

    async def close(self) -> None:
        await self._inner.close()


class LosingBus(KafkaBus):
    loses: Callable[[Record], bool]

    def producer(self, cluster: str | None = None) -> Producer:
        return LosingProducer(super().producer(cluster), self.loses)


class Platform:
    """A broker and a database, the analyzer on them, and journals."""

    def __init__(self, folder: Path, broker: EmbeddedBroker, postgres: EmbeddedPostgres) -> None:
        self.folder = folder
        self.broker = broker
        self.postgres = postgres

    @asynccontextmanager
    async def analyzer(self) -> AsyncIterator[None]:
        settings = AnalyzerSettings(
            data_dir=self.folder, kafka=self.broker.address, postgres=self.postgres.address
        )
        async with running(create_service(settings, bus=KafkaBus(self.broker.address))):
            yield

    @asynccontextmanager
    async def journal(self, bus: Bus) -> AsyncIterator[SpoolJournal]:
        board = ProgressBoard(bus)
        await board.start()
        journal = open_journal(self.folder, "collector", bus, board, WallClock(), pace=0.1)
        await journal.start()
        try:
            yield journal
        finally:
            await journal.stop()
            await board.stop()
            await bus.close()

    async def settled(self, applied: int, seconds: float = 60.0) -> Any:
        """The ledger once it balances with ``applied`` records applied and nothing on its way."""
        database = Database(self.postgres.address, size=1)
        deadline = time.monotonic() + seconds
        try:
            while True:
                ledger = await Queries(PostgresReadStore(database)).ledger()
                if (ledger.applied, ledger.accepted, ledger.in_flight) == (applied, applied, 0):
                    assert ledger.balanced
                    return ledger
                assert time.monotonic() < deadline, ledger
                await asyncio.sleep(0.1)
        finally:
            await database.close()


@pytest.fixture
async def platform(tmp_path: Path, embedded_postgres: EmbeddedPostgres) -> AsyncIterator[Platform]:
    broker = EmbeddedBroker(tmp_path / "broker")
    await broker.start()
    bus = KafkaBus(broker.address)
    await bus.ensure_topics(TOPICS)
    await bus.close()
    database = Database(embedded_postgres.address, size=1)
    async with database.bulk() as connection:
        await connection.execute("DROP SCHEMA IF EXISTS analyzer CASCADE")
    await database.close()
    yield Platform(tmp_path, broker, embedded_postgres)
    await broker.stop()


def visits(prefix: str, count: int) -> list[Touchpoint]:
    at = time.time_ns() // 1_000_000
    return [
        Touchpoint(
            id=f"{prefix}{number}",
            source="shop",
            customer=f"c{number % 97}",
            occurred_at=at,
            recorded_at=at,
            type="visit_completed",
            channel="store",
        )
        for number in range(count)
    ]


async def test_broker_that_loses_what_it_acknowledged_costs_no_event(platform: Platform) -> None:
    lost: Counter[bytes] = Counter()

    def loses(record: Record) -> bool:
        # By number, not by chance, which would hang on the order of what partitions send side by side: the
        # first record of each, and later ones, some of them twice; what is sent as a probe gets through.
        headers = dict(record.headers)
        number, again = int(headers[HEADER_SEQ]), lost[record.value or b""]
        twice = number == 61 and again == 1 and HEADER_FLOOR not in headers
        gone = number % 60 == 1 and (not again or twice)
        lost[record.value or b""] += gone
        return gone

    bus = LosingBus(platform.broker.address)
    bus.loses = loses
    async with platform.analyzer(), platform.journal(bus) as journal:
        for start in range(0, 2_000, 100):
            await journal.durable(journal.append(visits(f"{start}-", 100)), Durability.SPOOL)
            await asyncio.sleep(0.02)
        await platform.settled(2_000)
        assert lost.total() >= 40
        async with asyncio.timeout(20):
            while journal.unapplied():
                await asyncio.sleep(0.05)


async def test_spool_that_a_process_left_is_applied_ended_and_gone_and_the_ledger_balances(
    platform: Platform,
) -> None:
    sibling = AsyncExitStack()
    left = await sibling.enter_async_context(platform.journal(KafkaBus("127.0.0.1:1")))
    async with platform.journal(KafkaBus(platform.broker.address)) as heir, platform.analyzer():
        old = left.append(visits("left-", 300))
        await left.durable(old, Durability.SPOOL)
        await heir.durable(heir.append(visits("heir-", 50)), Durability.SPOOL)
        await platform.settled(50)
        await sibling.aclose()
        await platform.settled(350)
        assert await heir._board.reached(old, None, 10)
        async with asyncio.timeout(30):
            while len(list((platform.folder / "collector").glob("spool-*.sqlite"))) > 1:
                await asyncio.sleep(0.1)
        ledger = await platform.settled(350)
        assert ledger.gaps == 0
