"""Servers that tests share: started once per run, on free ports of 127.0.0.1, in temporary directories."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from deploy.local.broker import ApacheBroker, EmbeddedBroker
from deploy.local.postgres import EmbeddedPostgres
from libs.common.errors import Misconfigured


async def _start_apache(folder: Path) -> ApacheBroker:
    broker = ApacheBroker(folder)
    try:
        await asyncio.to_thread(broker.prepare)
    except Misconfigured as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    await broker.start(60)
    return broker


@pytest.fixture
def start_apache() -> Callable[[Path], Awaitable[ApacheBroker]]:
    """Starts a Kafka of one's own; skips the test without Java or Maven, but never in CI."""
    return _start_apache


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedBroker]:
    """A running embedded broker; ``address`` says where."""
    broker = EmbeddedBroker(tmp_path_factory.mktemp("embedded"))
    await broker.start()
    yield broker
    await broker.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def apache_broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApacheBroker]:
    """A running Apache Kafka; ``address`` says where."""
    broker = await _start_apache(tmp_path_factory.mktemp("apache"))
    yield broker
    await broker.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def embedded_postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedPostgres]:
    """A running PostgreSQL."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    await server.start(60)
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def postgres_url(embedded_postgres: EmbeddedPostgres) -> str:
    """URL of an empty database, a fresh one for each test module; it goes with the server."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(embedded_postgres.url("postgres"))
    try:
        # Trap: to drop it at the end would have PostgreSQL write and sync all files of the run at once.
        await admin.execute(f"create database {name}")
    finally:
        await admin.close()
    return embedded_postgres.url(name)
