"""The learner in PostgreSQL: it reads lessons and partitions, and owns its row of ``learner_state``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from libs.common.clock import SECOND
from libs.common.contracts.identity import PARTITIONS
from libs.common.db import Database, migrate
from libs.common.errors import Fenced
from services.analyzer.learner.fold import Place
from services.analyzer.learner.ports import Claim, LessonRow, Published
from services.analyzer.store.postgres import MIGRATIONS, SCHEMA

NAME = "learner"
ELECTION_SECONDS = 0.5
_LOCK = "SELECT pg_try_advisory_lock(hashtext($1)::bigint)"
_UNLOCK = "SELECT pg_advisory_unlock(hashtext($1)::bigint)"


class PostgresLearnerStore:
    """Implements `ports.LearnerStore`.

    The election is an advisory lock of one connection, so it ends with the process. The epoch in the row
    is the fence against one that lost its connection without noticing.
    """

    def __init__(self, database: Database, schema: str = SCHEMA) -> None:
        self._database = database
        self._schema = schema
        self._lock = f"{schema}.{NAME}"

    async def prepare(self) -> None:
        """Migrate the analyzer's schema, whoever of its processes comes first."""
        await migrate(self._database, self._schema, MIGRATIONS)

    def leadership(self) -> AbstractAsyncContextManager[Claim]:
        return self._leadership()

    @asynccontextmanager
    async def _leadership(self) -> AsyncIterator[Claim]:
        async with self._database.connection() as connection:
            while not await connection.fetchval(_LOCK, self._lock):
                await asyncio.sleep(ELECTION_SECONDS)
            try:
                yield await self._claim()
            finally:
                # Trap: the connection goes back to a pool, which would keep the lock.
                if not connection.is_closed():
                    await connection.execute(_UNLOCK, self._lock)

    async def _claim(self) -> Claim:
        async with self._database.bulk() as connection:
            row = await connection.fetchrow(
                f"INSERT INTO {self._schema}.learner_state"
                " (name, epoch, cluster_id, second, partition, number, version,"
                " journal_time, orders, trials) VALUES ($1, 1, '', -1, -1, -1, 0, 0, 0, 0)"
                " ON CONFLICT (name) DO UPDATE SET epoch = learner_state.epoch + 1"
                " RETURNING epoch, version, body, cluster_id",
                NAME,
            )
        return Claim(epoch=row[0], version=row[1], checkpoint=row[2], cluster=row[3])

    async def lineage(self) -> Claim | None:
        """What the learner would find if it were elected now; None before the first election."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT epoch, version, body FROM {self._schema}.learner_state WHERE name = $1", NAME
            )
        return None if row is None else Claim(epoch=row[0], version=row[1], checkpoint=row[2])

    async def hand_over(self, place: Place, body: bytes) -> None:
        """Have the learner go on from another state: whoever is elected is not any more."""
        async with self._database.bulk() as connection:
            await connection.execute(
                f"UPDATE {self._schema}.learner_state SET epoch = epoch + 1,"
                " second = $2, partition = $3, number = $4, part = $5, body = $6 WHERE name = $1",
                NAME,
                *place,
                body,
            )

    async def watermark(self) -> int | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT count(*), min(journal_time) FROM {self._schema}.partitions"
            )
        return row[1] // SECOND if row[0] == PARTITIONS else None

    async def lessons(self, after: Place, before: int, limit: int) -> Sequence[LessonRow]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT second, partition, number, part, body FROM {self._schema}.lessons"
                " WHERE (second, partition, number, part) > ($1, $2, $3, $4) AND second < $5"
                " ORDER BY second, partition, number, part LIMIT $6",
                *after,
                before,
                limit,
            )
        return [LessonRow(Place(*row[:4]), row[4]) for row in rows]

    async def checkpoint(self, epoch: int, place: Place, body: bytes) -> None:
        change = "second = $3, partition = $4, number = $5, part = $6, body = $7"
        await self._write(epoch, change, *place, body)

    async def next_version(self, epoch: int) -> int:
        return await self._write(epoch, "version = version + 1")

    async def published(self, epoch: int, cluster: str, published: Published) -> None:
        await self._write(
            epoch,
            "cluster_id = $3, journal_time = $4, orders = $5, trials = $6",
            cluster,
            published.journal_time,
            published.orders,
            published.trials,
        )

    async def _write(self, epoch: int, change: str, *values: object) -> int:
        async with self._database.bulk() as connection:
            version = await connection.fetchval(
                f"UPDATE {self._schema}.learner_state SET {change} WHERE name = $1 AND epoch = $2"
                " RETURNING version",
                NAME,
                epoch,
                *values,
            )
        if version is None:
            raise Fenced(f"epoch {epoch} of the learner is over")
        return int(version)
