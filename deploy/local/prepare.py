"""What servers need before services use them, and at each upgrade: topics on Kafka, tables in PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from libs.common.bus.kafka import KafkaBus
from libs.common.contracts.topics import TOPICS
from libs.common.db import Database, migrate
from libs.common.errors import Misconfigured, Transient
from libs.common.settings import CommonSettings, load_settings

PATIENCE = 120.0
"""Seconds a server may take to come up; started together, the broker is the slowest."""

SERVICES = Path(__file__).parents[2] / "services"


def make_topics(patience: float = PATIENCE) -> list[str]:
    """Make the topics that are missing on the cluster that the settings name; the names of all."""
    settings = load_settings(CommonSettings)
    asyncio.run(_topics(settings, patience))
    return [topic.name for topic in TOPICS]


def migrate_schemas(patience: float = PATIENCE) -> list[str]:
    """Bring the schema of every service that has one up to date; the names of all."""
    settings = load_settings(CommonSettings)
    schemas = {folder.parent.name: folder for folder in sorted(SERVICES.glob("*/migrations"))}
    asyncio.run(_migrations(settings, schemas, patience))
    return list(schemas)


async def _topics(settings: CommonSettings, patience: float) -> None:
    bus = KafkaBus(settings.kafka, client_id="closedloop-topics", replication=settings.kafka_replication)
    try:
        await _patiently(
            lambda: bus.ensure_topics(TOPICS), f"no Kafka serves us at {settings.kafka}", patience
        )
    finally:
        await bus.close()


async def _migrations(settings: CommonSettings, schemas: dict[str, Path], patience: float) -> None:
    database = Database(settings.postgres.get_secret_value(), size=1)
    try:
        for schema, folder in schemas.items():
            await _patiently(
                lambda schema=schema, folder=folder: migrate(database, schema, folder),  # type: ignore[misc]
                f"no PostgreSQL serves us at {database.place}",
                patience,
            )
    finally:
        await database.close()


async def _patiently(work: Callable[[], Awaitable[None]], otherwise: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            return await work()
        except Transient as error:
            if time.monotonic() > deadline:
                raise Misconfigured(f"{otherwise}: {error}") from None
            await asyncio.sleep(0.5)
