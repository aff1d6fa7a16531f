"""What an erasure takes out of the tables of one partition, and what it leaves there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import asyncpg

from libs.common.clock import DAY
from libs.common.contracts.identity import CustomerKey
from libs.common.db import Database
from services.analyzer.model.erasures import Erased, EventRow, Notice, SuppressedRow
from services.analyzer.model.facts import OWNED
from services.analyzer.ports import (
    StoredEvent,
)
from services.analyzer.store.days import spans
from services.analyzer.store.trials import erase_due

NOTICE_COLUMNS = "partition, erasure, mark, target, linked, owned, recorded_at"

ERASE_SECONDS = 600.0
"""How long one statement about one customer may take: he may have a million events."""

PURGED_AT_ONCE = 5_000


async def erase(connection: asyncpg.Connection, schema: str, partition: int, erased: Erased) -> None:
    """Delete what ``erased`` names, within the transaction of its slice, and note how much that was."""
    numbers = [event.number for event in erased.events]
    lessons = await connection.execute(
        f"DELETE FROM {schema}.lessons WHERE partition = $1 AND number = ANY($2)",
        partition,
        numbers,
        timeout=ERASE_SECONDS,
    )
    await connection.execute(
        f"DELETE FROM {schema}.facts WHERE partition = $1"
        " AND (number = ANY($2) OR (number = ANY($3) AND kind = $4))",
        partition,
        numbers,
        [event.number for event in erased.rewritten],
        OWNED,
        timeout=ERASE_SECONDS,
    )
    events = await _erase_events(connection, schema, partition, erased)
    await connection.execute(
        f"DELETE FROM {schema}.event_ids WHERE partition = $1 AND hash = ANY($2)",
        partition,
        erased.ids,
        timeout=ERASE_SECONDS,
    )
    await _erase_open(connection, schema, partition, erased)
    letters = await connection.execute(
        f"DELETE FROM {schema}.dead_letters WHERE partition = $1 AND md5(key) = md5($2::bytea) AND key = $2"
        " AND ($3 = ''::bytea OR position($3 in value) > 0)",
        partition,
        erased.customer.encode("utf-8", "surrogatepass"),
        erased.naming,
    )
    await connection.execute(
        f"INSERT INTO {schema}.suppressed (partition, hash, erasure) VALUES ($1, $2, $3)"
        " ON CONFLICT DO NOTHING",
        partition,
        erased.suppressed,
        erased.erasure,
    )
    await connection.execute(
        f"INSERT INTO {schema}.erasures (partition, erasure, mark, whole, recorded_at, journal_time, events,"
        " lessons, dead_letters) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " ON CONFLICT (partition, erasure, mark) DO NOTHING",
        partition,
        erased.erasure,
        erased.mark,
        erased.whole,
        erased.recorded_at,
        erased.journal_time,
        events,
        _count(lessons),
        _count(letters),
    )


async def _erase_events(connection: asyncpg.Connection, schema: str, partition: int, erased: Erased) -> int:
    events = 0
    for day, numbered in _by_day(erased.events):
        # Trap: day by day. A statement over all of them would lock every table there is.
        events += _count(
            await connection.execute(
                f"DELETE FROM {schema}.events WHERE recorded_at >= {day * DAY} AND recorded_at <"
                f" {(day + 1) * DAY} AND partition = $1 AND customer = $2 AND number = ANY($3)",
                partition,
                erased.customer,
                list(numbered),
                timeout=ERASE_SECONDS,
            )
        )
    for day, numbered in _by_day(erased.rewritten):
        await connection.execute(
            f"UPDATE {schema}.events AS event SET body = anew.body"
            " FROM unnest($2::bigint[], $3::bytea[]) AS anew (number, body)"
            f" WHERE recorded_at >= {day * DAY} AND recorded_at < {(day + 1) * DAY}"
            " AND partition = $1 AND event.number = anew.number",
            partition,
            list(numbered),
            list(numbered.values()),
            timeout=ERASE_SECONDS,
        )
    return events


def _by_day(events: Iterable[EventRow]) -> list[tuple[int, dict[int, bytes]]]:
    """Bodies of ``events`` by their numbers, day by day."""
    days: dict[int, dict[int, bytes]] = {}
    for event in events:
        days.setdefault(event.recorded_at // DAY, {})[event.number] = event.body
    return sorted(days.items())


async def _erase_open(connection: asyncpg.Connection, schema: str, partition: int, erased: Erased) -> None:
    if erased.whole:
        await erase_due(connection, schema, partition, erased.customer)
    for since, until in erased.times:
        await connection.execute(
            f"DELETE FROM {schema}.waiting_outcomes"
            " WHERE partition = $1 AND customer = $2 AND journal_time BETWEEN $3 AND $4",
            partition,
            erased.customer,
            since,
            until,
        )


async def put_notices(connection: asyncpg.Connection, schema: str, notices: Sequence[Notice]) -> None:
    """Keep ``notices`` until they are acted on."""
    await connection.executemany(
        f"INSERT INTO {schema}.erasure_notices ({NOTICE_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)"
        " ON CONFLICT DO NOTHING",
        notices,
    )


class PostgresErasureStore:
    """Implements `ports.ErrandStore`, and what of `ports.RestoreStore` is not a slice's."""

    def __init__(self, database: Database, schema: str) -> None:
        self._database = database
        self._schema = schema

    async def notices(self, partitions: Sequence[int]) -> list[Notice]:
        schema = self._schema
        async with self._database.connection() as connection:
            await connection.execute(
                f"DELETE FROM {schema}.erasure_notices AS notice USING {schema}.erasures AS done"
                " WHERE notice.partition = ANY($1::smallint[]) AND done.erasure = notice.erasure"
                " AND done.mark = notice.mark",
                list(partitions),
            )
            rows = await connection.fetch(
                f"SELECT {NOTICE_COLUMNS} FROM {schema}.erasure_notices"
                " WHERE partition = ANY($1::smallint[]) ORDER BY partition, erasure, mark LIMIT 500",
                list(partitions),
            )
        return [Notice(*row) for row in rows]

    async def purge(self, partition: int, published: int, long_ago: int) -> bool:
        async with self._database.connection() as connection:
            over = (
                "partition = $1 AND withdrawn AND revision <= CASE WHEN dropped THEN $3::bigint ELSE $2 END"
            )
            gone = PURGED_AT_ONCE
            # Trap: some at a time. Of all visitors who were dropped in an hour at once it may time out, and
            # would do so for ever. Asked twice, as somebody may come back between finding and deleting.
            while gone >= PURGED_AT_ONCE:
                status = await connection.execute(
                    f"DELETE FROM {self._schema}.models WHERE {over} AND ctid = ANY(ARRAY("
                    f"SELECT ctid FROM {self._schema}.models WHERE {over} LIMIT $4))",
                    partition,
                    published,
                    long_ago,
                    PURGED_AT_ONCE,
                )
                gone = _count(status)
            left = await connection.fetchval(
                f"SELECT EXISTS (SELECT FROM {self._schema}.models"
                " WHERE partition = $1 AND withdrawn AND NOT dropped)",
                partition,
            )
        return bool(left)

    async def suppressed(self, partition: int) -> dict[bytes, str]:
        """As `ports.SliceStore.suppressed`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT hash, erasure FROM {self._schema}.suppressed WHERE partition = $1", partition
            )
        return {row["hash"]: row["erasure"] for row in rows}

    async def events_of(self, partition: int, customer: CustomerKey) -> list[StoredEvent]:
        """As `ports.SliceStore.events_of`."""
        found: list[StoredEvent] = []
        async with self._database.connection() as connection:
            async for span in spans(connection, self._schema):
                rows = await connection.fetch(
                    "SELECT partition, number, recorded_at, journal_time, occurred_at, customer, kind, id,"
                    f" body FROM {self._schema}.events"
                    f" WHERE customer = $2 AND partition = $1 AND {span}",
                    partition,
                    customer,
                    timeout=ERASE_SECONDS,
                )
                found += [StoredEvent(*row) for row in rows]
        return sorted(found, key=lambda event: event.number)

    @asynccontextmanager
    async def restoring(self) -> AsyncIterator[None]:
        """As `ports.RestoreStore.restoring`."""
        async with self._database.connection() as connection:
            try:
                await connection.execute("SELECT pg_advisory_lock(hashtext($1))", f"{self._schema}.restore")
                yield
            finally:
                # Trap: not back to the pool, which would keep the lock.
                connection.terminate()

    async def suppress(self, rows: Iterable[SuppressedRow]) -> None:
        """As `ports.RestoreStore.suppress`."""
        async with self._database.bulk() as connection:
            await connection.executemany(
                f"INSERT INTO {self._schema}.suppressed (partition, hash, erasure) VALUES ($1, $2, $3)"
                " ON CONFLICT DO NOTHING",
                list(rows),
            )

    async def keys_in(self, partition: int) -> list[CustomerKey]:
        keys: set[str] = set()
        async with self._database.connection() as connection:
            async for span in spans(connection, self._schema):
                rows = await connection.fetch(
                    f"SELECT DISTINCT customer FROM {self._schema}.events WHERE partition = $1 AND {span}",
                    partition,
                    timeout=ERASE_SECONDS,
                )
                keys |= {row["customer"] for row in rows}
            rows = await connection.fetch(
                f"SELECT DISTINCT customer FROM {self._schema}.models WHERE partition = $1",
                partition,
                timeout=ERASE_SECONDS,
            )
            keys |= {row["customer"] for row in rows}
            rows = await connection.fetch(
                f"SELECT DISTINCT key FROM {self._schema}.dead_letters WHERE partition = $1", partition
            )
            keys |= {row["key"].decode("utf-8", "replace") for row in rows}
        return sorted(keys)


def _count(status: str) -> int:
    """How many rows a command's status says it touched."""
    return int(status.rpartition(" ")[2])
