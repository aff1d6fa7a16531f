"""What the HTTP side reads from PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from libs.common.contracts.identity import CustomerKey, partition_of
from libs.common.db import Database
from services.analyzer.model.erasures import ErasedRow, ErasureRows
from services.analyzer.model.facts import DECIDED, KINDS, FactRow
from services.analyzer.model.letters import Buried, DeadLetter, LetterFilter
from services.analyzer.ports import (
    LearnedState,
    LedgerRow,
    LedgerRows,
    LessonRow,
    ModelRow,
    Place,
    SpoolReport,
    StoredEvent,
)
from services.analyzer.store.days import spans
from services.analyzer.store.postgres import SCHEMA, buried_of, state_of
from services.analyzer.store.rebuild_statements import DIGEST
from services.analyzer.store.statements import BURIED_COLUMNS, LISTED_COLUMNS, STATE_COLUMNS

EVENTS_AT_ONCE = 2_000
FACTS_AT_ONCE = 5_000
FACTS_SECONDS = 600.0
"""Patience for one read of facts: the first of a kind may have to sort tens of millions."""

_FACT = "partition, number, customer, at, kind, body"
_FIRST_FACT = "partition, min(number) AS number, customer, min(at) AS at, kind, body"

_EVENT = "partition, number, recorded_at, journal_time, occurred_at, customer, kind, id"


class PostgresReadStore:
    """Implements `ports.ReadStore`."""

    def __init__(self, database: Database, schema: str = SCHEMA) -> None:
        self._database = database
        self._schema = schema

    async def customer(self, keys: Sequence[CustomerKey]) -> list[ModelRow]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT partition, customer, part, revision, body FROM {self._schema}.models"
                " WHERE partition = ANY($1::smallint[]) AND customer = ANY($2) AND body <> ''::bytea"
                " UNION ALL SELECT partition, customer, 'trials/' || decision, number, body"
                f" FROM {self._schema}.trials WHERE partition = ANY($1::smallint[]) AND customer = ANY($2)",
                sorted({partition_of(key) for key in keys}),
                list(keys),
            )
        return [ModelRow(*row) for row in rows]

    async def timeline(
        self, keys: Sequence[CustomerKey], before: Place | None, limit: int
    ) -> list[StoredEvent]:
        bound = ""
        if before is not None:
            bound = (
                " AND occurred_at <= $3"
                " AND (occurred_at, recorded_at, partition, number) < ($3, $4, $5::smallint, $6)"
            )
        found: list[StoredEvent] = []
        async with self._database.connection() as connection:
            async for span in spans(connection, self._schema):
                rows = await connection.fetch(
                    f"SELECT {_EVENT}, body FROM {self._schema}.events"
                    f" WHERE customer = ANY($1) AND kind <> 'internal' AND {span}{bound}"
                    " ORDER BY occurred_at DESC, recorded_at DESC, partition DESC, number DESC LIMIT $2",
                    list(keys),
                    limit,
                    *(before or ()),
                )
                # Trap: an import is recorded today and happened years ago, so no span of recorded days
                # can be left out before all have been asked.
                found = sorted([*found, *(StoredEvent(*row) for row in rows)], key=place_of, reverse=True)
                del found[limit:]
        return found

    async def same_ids(self, keys: Sequence[CustomerKey], ids: Sequence[str]) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        async with self._database.connection() as connection:
            async for span in spans(connection, self._schema):
                rows = await connection.fetch(
                    f"SELECT {_EVENT}, ''::bytea AS body FROM {self._schema}.events"
                    f" WHERE customer = ANY($1) AND id = ANY($2) AND kind <> 'internal' AND {span}",
                    list(keys),
                    list(ids),
                )
                found += [StoredEvent(*row) for row in rows]
        return found

    async def ledger(self) -> LedgerRows:
        async with self._snapshot() as connection:
            fates = await connection.fetch(
                f"SELECT partition, spool, source, fate, count FROM {self._schema}.fates"
            )
            reports = await connection.fetch(
                f"SELECT partition, spool, service, recorded_at, accepted FROM {self._schema}.spool_reports"
            )
            states = await connection.fetch(f"SELECT {STATE_COLUMNS} FROM {self._schema}.partitions")
        return LedgerRows(
            fates=[LedgerRow(*row) for row in fates],
            reports=[_report(row) for row in reports],
            states=[state_of(row) for row in states],
        )

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[asyncpg.Connection]:
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    async def digest(self, partition: int) -> bytes:
        async with self._database.connection() as connection:
            return bytes(await connection.fetchval(DIGEST.format(schema=self._schema), partition))

    async def learned(self) -> LearnedState | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT version, journal_time, orders, trials FROM {self._schema}.learner_state"
                " WHERE version > 0 ORDER BY version DESC LIMIT 1"
            )
        return None if row is None else LearnedState(*row)

    async def facts(self) -> AsyncIterator[Sequence[FactRow]]:
        """All facts, as `model.facts.KINDS` orders them; of equal decisions of a customer only the first."""
        async with self._snapshot() as connection:
            for kind in KINDS:
                asked = f"SELECT {_FACT} FROM {self._schema}.facts WHERE kind = $1 ORDER BY partition, number"
                if kind == DECIDED:
                    # A hundredth of the rows: of decisions that say the same only the first matters.
                    asked = (
                        f"SELECT {_FIRST_FACT} FROM {self._schema}.facts WHERE kind = $1"
                        " GROUP BY partition, customer, kind, body"
                    )
                cursor = await connection.cursor(asked, kind, timeout=FACTS_SECONDS)
                while rows := await cursor.fetch(FACTS_AT_ONCE, timeout=FACTS_SECONDS):
                    yield [FactRow(*row) for row in rows]

    async def dead_letters(self, which: LetterFilter, before: int | None, limit: int) -> list[Buried]:
        where, values = _where(which)
        # Only who asks for one sees what it says: a page of them may be a gigabyte.
        columns = BURIED_COLUMNS if which.id is not None else LISTED_COLUMNS
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {columns} FROM {self._schema}.dead_letters"
                f" WHERE {where} AND ($6::bigint IS NULL OR id < $6) ORDER BY id DESC LIMIT $7",
                *values,
                before,
                limit,
            )
        return [buried_of(row) for row in rows]

    async def ask_replay(self, which: LetterFilter) -> int:
        where, values = _where(which)
        async with self._database.connection() as connection:
            status = await connection.execute(
                f"UPDATE {self._schema}.dead_letters SET asked = true WHERE {where} AND replayed_at IS NULL",
                *values,
            )
        return int(status.rpartition(" ")[2])

    async def unsent(self, partitions: Sequence[int], limit: int) -> list[Buried]:
        """As `letters.LetterStore.unsent`."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {BURIED_COLUMNS} FROM {self._schema}.dead_letters"
                " WHERE NOT sent AND partition = ANY($1::smallint[]) ORDER BY id LIMIT $2",
                list(partitions),
                limit,
            )
        return [buried_of(row) for row in rows]

    async def mark_sent(self, ids: Sequence[int]) -> None:
        """As `letters.LetterStore.mark_sent`."""
        async with self._database.connection() as connection:
            await connection.execute(
                f"UPDATE {self._schema}.dead_letters SET sent = true WHERE id = ANY($1)", list(ids)
            )

    async def dead_letters_of(self, keys: Sequence[CustomerKey]) -> list[DeadLetter]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT partition, cluster_id, log_offset, spool, seq, source, code, reason, journal_time,"
                f" key, value FROM {self._schema}.dead_letters"
                " WHERE partition = ANY($1::smallint[]) AND key = ANY($2::bytea[])"
                " AND md5(key) = ANY(ARRAY(SELECT md5(of) FROM unnest($2::bytea[]) AS of))"
                " ORDER BY journal_time",
                sorted({partition_of(key) for key in keys}),
                [key.encode("utf-8", "surrogatepass") for key in keys],
            )
        return [DeadLetter(*row) for row in rows]

    async def all_events(self, keys: Sequence[CustomerKey]) -> AsyncIterator[Sequence[StoredEvent]]:
        async with self._database.connection() as connection, connection.transaction(readonly=True):
            conditions = [span async for span in spans(connection, self._schema)]
            for span in reversed(conditions):
                cursor = await connection.cursor(
                    f"SELECT {_EVENT}, body FROM {self._schema}.events"
                    f" WHERE customer = ANY($1) AND {span} ORDER BY recorded_at, partition, number",
                    list(keys),
                )
                while rows := await cursor.fetch(EVENTS_AT_ONCE):
                    yield [StoredEvent(*row) for row in rows]

    async def lessons_of(self, events: Sequence[StoredEvent]) -> list[LessonRow]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT partition, number, second, kind, body, part FROM {self._schema}.lessons"
                " JOIN unnest($1::smallint[], $2::bigint[]) AS wanted (partition, number)"
                " USING (partition, number) ORDER BY partition, number, part",
                [event.partition for event in events],
                [event.number for event in events],
            )
        return [LessonRow(*row) for row in rows]

    async def erasure(self, id_: str) -> ErasureRows:
        async with self._snapshot() as connection:
            done = await connection.fetch(
                "SELECT partition, erasure, mark, whole, recorded_at, journal_time, events, lessons,"
                f" dead_letters FROM {self._schema}.erasures WHERE erasure = $1 ORDER BY partition, mark",
                id_,
            )
            waiting = await connection.fetchval(
                f"SELECT count(*) FROM {self._schema}.erasure_notices WHERE erasure = $1", id_
            )
            unpublished = await connection.fetchval(
                f"SELECT count(*) FROM {self._schema}.models WHERE withdrawn AND NOT dropped"
            )
        return ErasureRows([ErasedRow(*row) for row in done], waiting, unpublished)


def _where(which: LetterFilter) -> tuple[str, tuple[object, ...]]:
    """A condition on parameters $1 to $5, and those."""
    return (
        "($1::bigint IS NULL OR id = $1) AND ($2::text IS NULL OR code = $2)"
        " AND ($3::smallint IS NULL OR partition = $3) AND ($4::bigint IS NULL OR journal_time >= $4)"
        " AND ($5::bigint IS NULL OR journal_time < $5)",
        tuple(which),
    )


def _report(row: Any) -> SpoolReport:
    accepted = json.loads(row["accepted"])
    return SpoolReport(row["partition"], row["spool"], row["service"], row["recorded_at"], accepted)


def place_of(event: StoredEvent) -> Place:
    """Where an event stands in the timeline."""
    return Place(event.occurred_at, event.recorded_at, event.partition, event.number)
