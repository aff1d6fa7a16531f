"""What slices read and write, on PostgreSQL: few statements, each for the whole slice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg

from libs.common.clock import DAY, Millis
from libs.common.contracts.identity import CustomerKey
from libs.common.db import Database, migrate
from libs.common.errors import Fenced
from services.analyzer.ports import ModelRow, PartitionState, SliceWrite

SCHEMA = "analyzer"
MIGRATIONS = Path(__file__).parent.parent / "migrations"

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_LOCK_DAYS = 0x636C6461
"""Advisory lock under which tables of days are made."""

STATE_COLUMNS = (
    "partition, epoch, cluster_id, next_offset, number, journal_time, applied, counters, notes,"
    " published, models_offset"
)


class PostgresAnalyzerStore:
    """Implements `ports.SliceStore`.

    Parameters
    ----------
    database:
        Where the schema lies; closed by whoever opened it.
    schema:
        Another name than `SCHEMA` only for a rebuild beside the live tables.
    """

    def __init__(self, database: Database, schema: str = SCHEMA) -> None:
        self._database = database
        self._days: set[int] = set()
        self._schema = schema
        self._sql = _statements(schema)

    async def prepare(self) -> None:
        """Make or migrate the schema."""
        await migrate(self._database, self._schema, MIGRATIONS)

    async def claim(self, partition: int, generation: int, cluster: str) -> PartitionState:
        async with self._database.bulk() as connection:
            await connection.execute(self._sql["found"], partition, cluster)
            row = await connection.fetchrow(self._sql["lock"], partition)
            if row["cluster_id"] == cluster and generation < row["generation"]:
                raise Fenced(f"partition {partition} was claimed by generation {row['generation']}")
            same = row["cluster_id"] == cluster
            claimed = await connection.fetchrow(
                self._sql["claim"], partition, generation, cluster, "same" if same else "other"
            )
            return state_of(claimed)

    async def load(self, partition: int, epoch: int) -> PartitionState:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(self._sql["load"], partition)
        if row is None or row["epoch"] != epoch:
            raise Fenced(f"partition {partition} has another owner")
        return state_of(row)

    async def known_ids(self, partition: int, hashes: Sequence[bytes]) -> dict[bytes, Millis]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["known"], partition, hashes)
        return {row["hash"]: row["journal_time"] for row in rows}

    async def models(self, partition: int, customers: Sequence[CustomerKey]) -> list[ModelRow]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["models"], partition, customers)
        return [ModelRow(*row) for row in rows]

    async def unpublished(
        self, partition: int, above: int, after: tuple[CustomerKey, str], limit: int
    ) -> list[ModelRow]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["unpublished"], partition, above, *after, limit)
        return [ModelRow(*row) for row in rows]

    async def write(self, slice_: SliceWrite) -> None:
        days = {event.recorded_at // DAY for event in slice_.events}
        if not days <= self._days:
            await self._make_days(days - self._days)
        async with self._database.bulk() as connection:
            await self._fence(connection, slice_.state)
            await self._write_rows(connection, slice_)

    async def _fence(self, connection: asyncpg.Connection, state: PartitionState) -> None:
        status = await connection.execute(
            self._sql["fence"],
            state.partition,
            state.epoch,
            state.next_offset,
            state.number,
            state.journal_time,
            json.dumps(state.applied),
            json.dumps(state.counters),
            json.dumps(state.notes),
            state.published,
            state.models_offset,
        )
        if status != "UPDATE 1":
            raise Fenced(f"partition {state.partition} has another owner than epoch {state.epoch}")

    async def _write_rows(self, connection: asyncpg.Connection, slice_: SliceWrite) -> None:
        partition = slice_.state.partition
        if slice_.events:
            await connection.execute(self._sql["events"], *columns(slice_.events))
        if slice_.ids:
            await connection.execute(self._sql["ids"], partition, list(slice_.ids), list(slice_.ids.values()))
        if slice_.models:
            await connection.execute(self._sql["put_models"], *columns(slice_.models))
        if slice_.lessons:
            await connection.execute(self._sql["lessons"], *columns(slice_.lessons))
        if slice_.dead_letters:
            await connection.execute(self._sql["dead_letters"], *columns(slice_.dead_letters))
        for report in slice_.reports:
            accepted = json.dumps(report.accepted)
            await connection.execute(self._sql["report"], *report[:-1], accepted)
        if slice_.fates:
            await connection.execute(
                self._sql["fates"], partition, *columns(slice_.fates), list(slice_.fates.values())
            )
        if slice_.forget_before is not None:
            await connection.execute(self._sql["forget"], partition, slice_.forget_before)

    async def _make_days(self, days: set[int]) -> None:
        """Make tables for ``days``; attached afterwards, because that lets others go on writing."""
        async with self._database.bulk() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_DAYS)
            rows = await connection.fetch(self._sql["days"], list(days))
            for day in sorted(days - {row["day"] for row in rows}):
                name = f"{self._schema}.events_{_date(day)}"
                await connection.execute(
                    f"CREATE TABLE {name} (LIKE {self._schema}.events INCLUDING ALL);"
                    f"ALTER TABLE {self._schema}.events ATTACH PARTITION {name}"
                    f" FOR VALUES FROM ({day * DAY}) TO ({(day + 1) * DAY});"
                    f"INSERT INTO {self._schema}.event_days VALUES ({day})"
                )
        self._days |= days


def _date(day: int) -> str:
    return date.fromordinal(_EPOCH_ORDINAL + day).isoformat().replace("-", "")


def columns(rows: Iterable[tuple[object, ...]]) -> list[list[object]]:
    """Rows turned into columns, as unnest wants them."""
    return [list(column) for column in zip(*rows, strict=True)]


def state_of(row: Any) -> PartitionState:
    """A row of ``partitions``."""
    return PartitionState(
        partition=row["partition"],
        epoch=row["epoch"],
        cluster=row["cluster_id"],
        next_offset=row["next_offset"],
        number=row["number"],
        journal_time=row["journal_time"],
        applied=json.loads(row["applied"]),
        counters=json.loads(row["counters"]),
        notes=json.loads(row["notes"]),
        published=row["published"],
        models_offset=row["models_offset"],
    )


def _statements(schema: str) -> dict[str, str]:
    models = "partition, customer, part, revision, body"
    return {
        "found": f"""
            INSERT INTO {schema}.partitions (partition, epoch, generation, cluster_id, next_offset, number,
                journal_time, applied, counters, notes, models_offset, published)
            VALUES ($1, 0, -1, $2, 0, 0, 0, '{{}}', '{{}}', '{{}}', 0, 0) ON CONFLICT DO NOTHING""",
        "lock": f"SELECT cluster_id, generation FROM {schema}.partitions WHERE partition = $1 FOR UPDATE",
        # Another cluster is empty: its offsets begin at 0, and all models are to be published again.
        "claim": f"""
            UPDATE {schema}.partitions SET epoch = epoch + 1, generation = $2, cluster_id = $3,
                next_offset = CASE WHEN $4 = 'same' THEN next_offset ELSE 0 END,
                models_offset = CASE WHEN $4 = 'same' THEN models_offset ELSE 0 END,
                published = CASE WHEN $4 = 'same' THEN published ELSE 0 END
            WHERE partition = $1 RETURNING {STATE_COLUMNS}""",
        "load": f"SELECT {STATE_COLUMNS} FROM {schema}.partitions WHERE partition = $1",
        "known": f"SELECT hash, journal_time FROM {schema}.event_ids WHERE partition = $1 AND hash = ANY($2)",
        "models": f"SELECT {models} FROM {schema}.models WHERE partition = $1 AND customer = ANY($2)",
        "unpublished": f"""
            SELECT {models} FROM {schema}.models
            WHERE partition = $1 AND revision > $2 AND (customer, part) > ($3, $4)
            ORDER BY customer, part LIMIT $5""",
        "fence": f"""
            UPDATE {schema}.partitions SET next_offset = $3, number = $4, journal_time = $5, applied = $6,
                counters = $7, notes = $8, published = $9, models_offset = $10
            WHERE partition = $1 AND epoch = $2""",
        "events": f"""
            INSERT INTO {schema}.events (partition, number, recorded_at, journal_time, occurred_at, customer,
                kind, id, body)
            SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
                $6::text[], $7::text[], $8::text[], $9::bytea[])""",
        "ids": f"""
            INSERT INTO {schema}.event_ids (partition, hash, journal_time)
            SELECT $1, * FROM unnest($2::bytea[], $3::bigint[])
            ON CONFLICT (partition, hash) DO UPDATE SET journal_time = EXCLUDED.journal_time""",
        "put_models": f"""
            INSERT INTO {schema}.models ({models})
            SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[], $4::bigint[], $5::bytea[])
            ON CONFLICT (partition, customer, part) DO UPDATE SET revision = EXCLUDED.revision,
                body = EXCLUDED.body""",
        "lessons": f"""
            INSERT INTO {schema}.lessons (partition, number, second, kind, body)
            SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[])""",
        "dead_letters": f"""
            INSERT INTO {schema}.dead_letters (partition, cluster_id, log_offset, spool, seq, source, code,
                reason, journal_time, key, value)
            SELECT * FROM unnest($1::smallint[], $2::text[], $3::bigint[], $4::text[], $5::bigint[],
                $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bytea[], $11::bytea[])
            ON CONFLICT DO NOTHING""",
        "report": f"""
            INSERT INTO {schema}.spool_reports (partition, spool, service, recorded_at, accepted)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT (partition, spool) DO UPDATE
                SET service = EXCLUDED.service, recorded_at = EXCLUDED.recorded_at,
                accepted = EXCLUDED.accepted""",
        "fates": f"""
            INSERT INTO {schema}.fates AS known (partition, spool, source, fate, count)
            SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[])
            ON CONFLICT (partition, spool, source, fate) DO UPDATE
                SET count = known.count + EXCLUDED.count""",
        "forget": f"DELETE FROM {schema}.event_ids WHERE partition = $1 AND journal_time < $2",
        "days": f"SELECT day FROM {schema}.event_days WHERE day = ANY($1)",
    }
