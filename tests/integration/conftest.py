"""An analyzer that tests of this folder share, on memory and on the one PostgreSQL of the run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from deploy.local.postgres import EmbeddedPostgres
from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Assignment
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.topics import CUSTOMER_MODELS, TOPICS
from libs.common.db import Database
from libs.common.view import MemoryView
from services.analyzer.store.memory import MemoryAnalyzerStore
from services.analyzer.store.postgres import PostgresAnalyzerStore
from services.analyzer.store.reading import PostgresReadStore
from tests.integration.analyzer_world import Rig, Stores, make_rig, word
from tests.integration.erasure_world import World
from tests.integration.rebuild_world import Live


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.embedded)])
async def stores(
    request: pytest.FixtureRequest, embedded_postgres: EmbeddedPostgres
) -> AsyncIterator[Stores]:
    """The analyzer's store: in memory, or a schema that no other test has used."""
    if request.param == "memory":
        memory = MemoryAnalyzerStore()
        yield Stores(memory, memory)
        return
    database = Database(embedded_postgres.address, size=4)
    schema = f"analyzer_{word()}"
    slices = PostgresAnalyzerStore(database, schema)
    await slices.prepare()
    yield Stores(slices, PostgresReadStore(database, schema))
    await database.close()


@pytest.fixture
async def bus() -> MemoryBus:
    """A bus with all topics and nothing on them."""
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    return bus


@pytest.fixture
async def rig(stores: Stores, bus: MemoryBus) -> AsyncIterator[Rig]:
    """An analyzer that has claimed nothing yet; it publishes until the test ends."""
    rig = make_rig(stores, bus)
    running = asyncio.create_task(rig.publisher.run())
    yield rig
    await rig.processor.release(frozenset(range(12)))
    running.cancel()
    await asyncio.wait([running])


@pytest.fixture
async def world(rig: Rig) -> World:
    """An analyzer of all partitions, fed from the bus."""
    await rig.claim(*range(PARTITIONS))
    return World(rig)


@pytest.fixture
async def live(embedded_postgres: EmbeddedPostgres) -> AsyncIterator[Live]:
    """An analyzer at work on a database of this test's own."""
    name = f"rebuild_{uuid.uuid4().hex}"
    server = Database(embedded_postgres.address, size=1)
    async with server.connection() as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    await server.close()
    database = Database(embedded_postgres.url(name), size=6)
    slices = PostgresAnalyzerStore(database)
    await slices.prepare()
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    view = MemoryView(bus, CUSTOMER_MODELS)
    await view.start()
    rig = make_rig(Stores(slices, PostgresReadStore(database)), bus)
    publishing = asyncio.create_task(rig.publisher.run())
    everything = Assignment(frozenset(range(PARTITIONS)), 1, await bus.cluster_id())
    await rig.processor.claim(everything)
    yield Live(embedded_postgres.url(name), database, rig, bus, view)
    await rig.processor.release(frozenset(range(PARTITIONS)))
    publishing.cancel()
    await asyncio.wait([publishing])
    await view.stop()
    await database.close()
