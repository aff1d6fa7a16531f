"""What slices read and write, on PostgreSQL: few statements, each for the whole slice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg

from libs.common.clock import DAY, Millis
from libs.common.contracts.identity import CustomerKey
from libs.common.db import Database, migrate
from libs.common.errors import Fenced, Transient
from services.analyzer.model.erasures import SuppressedRow
from services.analyzer.model.facts import FactRow
from services.analyzer.model.letters import Buried, DeadLetter
from services.analyzer.model.trials.rows import Due
from services.analyzer.ports import (
    GENERATION_SECONDS,
    LessonRow,
    ModelRow,
    PartitionState,
    Seen,
    SliceWrite,
    StoredEvent,
    WaitingOutcome,
)
from services.analyzer.store import trials
from services.analyzer.store.days import LAST_DAY, table_of
from services.analyzer.store.erasing import PostgresErasureStore, erase, put_notices
from services.analyzer.store.fenced import Rows, fenced, following, rows_of
from services.analyzer.store.statements import statements

SCHEMA = "analyzer"
MIGRATIONS = Path(__file__).parent.parent / "migrations"

_LOCK_DAYS = 0x636C6461
"""Advisory lock under which tables of days are made."""

DAYS_AHEAD = 7

COPIED = {"events": StoredEvent._fields, "lessons": LessonRow._fields, "facts": FactRow._fields}
"""Tables whose rows are new, with their columns."""
COPIED_FROM = 100
"""Rows of one of these from which on COPY is worth further statements."""

FORGOTTEN_AT_ONCE = 5_000
"""Rows that one slice may delete because they are old: a day of them at once would hold it up."""


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
        self._stale: dict[int, Millis] = {}
        self._schema = schema
        self._sql = statements(schema)
        self._erasures = PostgresErasureStore(database, schema)

    async def prepare(self) -> None:
        """Make or migrate the schema."""
        await migrate(self._database, self._schema, MIGRATIONS)

    async def claim(self, partition: int, generation: int, cluster: str) -> PartitionState:
        async with self._database.bulk() as connection:
            await connection.execute(self._sql["found"], partition, cluster)
            row = await connection.fetchrow(self._sql["lock"], partition)
            newer = row["cluster_id"] == cluster and generation < row["generation"]
            if newer and row["silent"] < GENERATION_SECONDS:
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

    async def known_ids(self, partition: int, hashes: Sequence[bytes]) -> dict[bytes, Seen]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["known"], partition, hashes)
        return {row["hash"]: Seen(row["journal_time"], row["content"]) for row in rows}

    async def waiting(
        self, partition: int, decisions: Sequence[tuple[CustomerKey, str]]
    ) -> list[WaitingOutcome]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["waiting"], partition, *columns(decisions))
        return [WaitingOutcome(*row) for row in rows]

    async def asked(self, partition: int, limit: int) -> list[Buried]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["asked"], partition, limit)
        return [buried_of(row) for row in rows]

    async def decided(self, partition: int, spools: Sequence[str]) -> dict[str, int]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["decided"], partition, spools)
        return {row["spool"]: row["amount"] for row in rows}

    async def models(self, partition: int, customers: Sequence[CustomerKey]) -> list[ModelRow]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["models"], partition, customers)
        return [ModelRow(*row) for row in rows]

    async def due(self, partition: int, before: Millis, limit: int) -> Due:
        async with self._database.connection() as connection:
            return await trials.due(connection, self._schema, partition, before, limit)

    async def unpublish(self, partition: int, epoch: int) -> None:
        await self._change(self._sql["unpublish"], partition, epoch)

    async def rewind(self, partition: int, epoch: int, offset: int) -> None:
        await self._change(self._sql["rewind"], partition, epoch, offset)

    async def _change(self, statement: str, partition: int, *values: int) -> None:
        async with self._database.bulk() as connection:
            status = await connection.execute(statement, partition, *values)
        if status != "UPDATE 1":
            raise Fenced(f"partition {partition} has another owner")

    async def unpublished(
        self, partition: int, above: int, after: tuple[CustomerKey, str], limit: int
    ) -> list[ModelRow]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["unpublished"], partition, above, *after, limit)
        return [ModelRow(*row) for row in rows]

    async def suppressed(self, partition: int) -> dict[bytes, str]:
        return await self._erasures.suppressed(partition)

    async def events_of(self, partition: int, customer: CustomerKey) -> list[StoredEvent]:
        return await self._erasures.events_of(partition, customer)

    def restoring(self) -> AbstractAsyncContextManager[None]:
        return self._erasures.restoring()

    async def seize(self, partition: int) -> PartitionState:
        async with self._database.bulk() as connection:
            await connection.execute(self._sql["found"], partition, "")
            return state_of(await connection.fetchrow(self._sql["seize"], partition))

    async def keys_in(self, partition: int) -> list[CustomerKey]:
        return await self._erasures.keys_in(partition)

    async def suppress(self, rows: Iterable[SuppressedRow]) -> None:
        await self._erasures.suppress(rows)

    async def write(self, slice_: SliceWrite) -> None:
        days = {event.recorded_at // DAY for event in slice_.events}
        if not days <= self._days:
            await self._make_days(days - self._days)
        rows = rows_of(slice_)
        if not self._is_more(slice_) and all(len(rows.get(table, ())) < COPIED_FROM for table in COPIED):
            async with self._database.connection() as connection:
                await self._pass(connection, slice_, rows)
            return
        async with self._database.bulk() as connection:
            copied = {table: rows.pop(table) for table in COPIED if table in rows}
            if slice_.erased is None:
                await self._pass(connection, slice_, rows)
            else:
                # What goes, goes before what comes.
                await self._pass(connection, slice_, {})
                await erase(connection, self._schema, slice_.state.partition, slice_.erased)
                await connection.execute(*following(self._schema, rows))
            for table, some in copied.items():
                await self._copy(connection, table, some)
            await self._write_more(connection, slice_)

    async def _pass(self, connection: asyncpg.Connection, slice_: SliceWrite, rows: Rows) -> None:
        """Pass the fence, together with ``rows``; raises `Fenced`, or `Transient`."""
        state = slice_.state
        if await connection.fetchval(*fenced(self._schema, state, slice_.before, rows)):
            return
        row = await connection.fetchrow(self._sql["load"], state.partition)
        if row is not None and row["epoch"] == state.epoch:
            raise Transient(
                f"partition {state.partition} went on: by a write given up for lost, or a rebuild"
            )
        raise Fenced(f"partition {state.partition} has another owner than epoch {state.epoch}")

    def _is_more(self, slice_: SliceWrite) -> bool:
        """Whether there is more to do than to write rows, see `_write_more`."""
        return bool(
            slice_.erased is not None
            or slice_.notices
            or slice_.waiting
            or slice_.met
            or slice_.replays
            or slice_.dead_letters
            or slice_.forget_before is not None
            or slice_.state.partition in self._stale
        )

    async def _write_more(self, connection: asyncpg.Connection, slice_: SliceWrite) -> None:
        partition = slice_.state.partition
        if slice_.notices:
            await put_notices(connection, self._schema, slice_.notices)
        if slice_.waiting:
            await connection.execute(self._sql["wait"], *columns(slice_.waiting))
        if slice_.met:
            _, customers, decisions, hashes, *_ = columns(slice_.met)
            await connection.execute(self._sql["meet"], partition, customers, decisions, hashes)
        if slice_.replays:
            await connection.execute(
                self._sql["replayed"], partition, slice_.state.journal_time, *columns(slice_.replays)
            )
        if slice_.dead_letters:
            await connection.execute(self._sql["dead_letters"], *columns(slice_.dead_letters))
        if slice_.forget_before is not None:
            await connection.execute(self._sql["give_up"], partition, slice_.state.journal_time - DAY)
            self._stale[partition] = slice_.forget_before
        if (before := self._stale.get(partition)) is not None:
            await self._forget(connection, partition, before)

    async def _forget(self, connection: asyncpg.Connection, partition: int, before: Millis) -> None:
        """Delete a part of what is too old to matter; the slices that follow delete the rest."""
        forgotten = [
            await connection.execute(self._sql[name], partition, before, FORGOTTEN_AT_ONCE)
            for name in ("forget_ids", "forget_letters")
        ]
        if f"DELETE {FORGOTTEN_AT_ONCE}" not in forgotten:
            del self._stale[partition]

    async def _copy(
        self,
        connection: asyncpg.Connection,
        table: str,
        rows: Sequence[tuple[object, ...]],
    ) -> None:
        """Rows that cannot be there yet, many of them: half the work of a statement with arrays."""
        await connection.copy_records_to_table(
            table, schema_name=self._schema, columns=COPIED[table], records=rows
        )

    async def _make_days(self, days: set[int]) -> None:
        """Make tables for ``days`` and some after them, because time goes on and each commit takes its time.

        Attached after they are made: that lets others go on writing.
        """
        days = {day + ahead for day in days for ahead in range(DAYS_AHEAD) if day + ahead <= LAST_DAY}
        async with self._database.bulk() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK_DAYS)
            rows = await connection.fetch(self._sql["days"], list(days))
            for day in sorted(days - {row["day"] for row in rows}):
                name = table_of(self._schema, day)
                await connection.execute(
                    f"CREATE TABLE {name} (LIKE {self._schema}.events INCLUDING ALL);"
                    f"ALTER TABLE {self._schema}.events ATTACH PARTITION {name}"
                    f" FOR VALUES FROM ({day * DAY}) TO ({(day + 1) * DAY});"
                    f"INSERT INTO {self._schema}.event_days VALUES ({day})"
                )
        self._days |= days


def columns(rows: Iterable[tuple[object, ...]]) -> list[list[object]]:
    """Rows turned into columns, as unnest wants them."""
    return [list(column) for column in zip(*rows, strict=True)]


def buried_of(row: Any) -> Buried:
    """A row of ``dead_letters``."""
    id_, asked, attempts, replayed_at, *letter = row
    return Buried(id_, DeadLetter(*letter), asked, attempts, replayed_at)


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
        losses=row["losses"],
        leaves=json.loads(row["leaves"]),
    )
