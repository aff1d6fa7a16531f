"""Reading the whole long memory, and writing models anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from libs.common.db import Database, migrate
from libs.common.errors import Misconfigured
from services.analyzer.ports import LessonRow, ModelRow, StoredEvent
from services.analyzer.store.postgres import MIGRATIONS, SCHEMA, columns

ROWS_AT_ONCE = 5_000


class PostgresRebuildStore:
    """Implements `ports.RebuildStore`."""

    def __init__(self, database: Database, schema: str = SCHEMA) -> None:
        self._database = database
        self._schema = schema

    async def prepare(self) -> None:
        """Make or migrate the schema."""
        await migrate(self._database, self._schema, MIGRATIONS)

    async def drop(self) -> None:
        """Remove a scratch schema with all that is in it; the live one is never touched."""
        if self._schema == SCHEMA:
            raise Misconfigured(f"{SCHEMA} holds the live models and is not dropped")
        async with self._database.bulk() as connection:
            await connection.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE")

    async def events_stored(self) -> int:
        """How many events all slices have stored so far."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT coalesce(sum(number), 0)::bigint FROM {self._schema}.partitions"
            )
        return int(row[0])

    def events(self, partition: int) -> AsyncIterator[Sequence[StoredEvent]]:
        return self._events(partition)

    async def _events(self, partition: int) -> AsyncIterator[Sequence[StoredEvent]]:
        async with self._database.connection() as connection, connection.transaction(readonly=True):
            cursor = await connection.cursor(
                "SELECT partition, number, recorded_at, journal_time, occurred_at, customer, kind, id, body"
                f" FROM {self._schema}.events WHERE partition = $1 ORDER BY number",
                partition,
            )
            while rows := await cursor.fetch(ROWS_AT_ONCE):
                yield [StoredEvent(*row) for row in rows]

    def all_models(self) -> AsyncIterator[Sequence[ModelRow]]:
        return self._all_models()

    async def _all_models(self) -> AsyncIterator[Sequence[ModelRow]]:
        async with self._database.connection() as connection, connection.transaction(readonly=True):
            cursor = await connection.cursor(
                f"SELECT partition, customer, part, revision, body FROM {self._schema}.models"
                " WHERE body <> ''::bytea ORDER BY customer, part"
            )
            while rows := await cursor.fetch(ROWS_AT_ONCE):
                yield [ModelRow(*row) for row in rows]

    async def models(self, partition: int, customers: Sequence[str]) -> list[ModelRow]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT partition, customer, part, revision, body FROM {self._schema}.models"
                " WHERE partition = $1 AND customer = ANY($2)",
                partition,
                list(customers),
            )
        return [ModelRow(*row) for row in rows]

    async def put(self, models: Sequence[ModelRow], lessons: Sequence[LessonRow]) -> None:
        async with self._database.bulk() as connection:
            if models:
                await connection.execute(
                    f"INSERT INTO {self._schema}.models (partition, customer, part, revision, body)"
                    " SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[], $4::bigint[], $5::bytea[])"
                    " ON CONFLICT (partition, customer, part) DO UPDATE"
                    " SET revision = EXCLUDED.revision, body = EXCLUDED.body",
                    *columns(models),
                )
            if lessons:
                await connection.execute(
                    f"INSERT INTO {self._schema}.lessons (partition, number, second, kind, body)"
                    " SELECT * FROM"
                    " unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[])",
                    *columns(lessons),
                )

    async def is_empty(self) -> bool:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT EXISTS (SELECT FROM {self._schema}.models) OR"
                f" EXISTS (SELECT FROM {self._schema}.lessons)"
            )
        return not row[0]
