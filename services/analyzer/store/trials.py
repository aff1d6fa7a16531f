"""Records of decisions in PostgreSQL: table ``trials``, with an index by what falls due next."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey
from services.analyzer.model.trials.record import NEVER
from services.analyzer.model.trials.rows import Due, TrialRow

COLUMNS = "partition, customer, decision, number, due, body"


async def put_trials(
    connection: asyncpg.Connection, schema: str, partition: int, rows: Sequence[TrialRow]
) -> None:
    """Keep ``rows``; those without a body go."""
    kept = [row for row in rows if row.body]
    if kept:
        await connection.execute(
            f"INSERT INTO {schema}.trials ({COLUMNS}) SELECT * FROM unnest($1::smallint[], $2::text[],"
            " $3::text[], $4::bigint[], $5::bigint[], $6::bytea[])"
            " ON CONFLICT (partition, customer, decision) DO UPDATE SET number = EXCLUDED.number,"
            " due = EXCLUDED.due, body = EXCLUDED.body",
            *(list(column) for column in zip(*kept, strict=True)),
        )
    gone = [(row.customer, row.decision) for row in rows if not row.body]
    if gone:
        await connection.execute(
            f"DELETE FROM {schema}.trials WHERE partition = $1"
            " AND (customer, decision) IN (SELECT * FROM unnest($2::text[], $3::text[]))",
            partition,
            *(list(column) for column in zip(*gone, strict=True)),
        )


async def erase_trials(
    connection: asyncpg.Connection, schema: str, partition: int, customer: CustomerKey
) -> None:
    """Forget all decisions of ``customer``."""
    await connection.execute(
        f"DELETE FROM {schema}.trials WHERE partition = $1 AND customer = $2", partition, customer
    )


async def due(connection: asyncpg.Connection, schema: str, partition: int, before: Millis, limit: int) -> Due:
    """As `ports.SliceStore.due`."""
    rows = await connection.fetch(
        f"SELECT customer, due FROM {schema}.trials WHERE partition = $1 AND due < $2 ORDER BY due LIMIT $3",
        partition,
        before,
        limit,
    )
    if len(rows) == limit:
        before = rows[-1]["due"] + 1
        rows = await connection.fetch(
            f"SELECT customer FROM {schema}.trials WHERE partition = $1 AND due < $2", partition, before
        )
    following = await connection.fetchval(
        f"SELECT due FROM {schema}.trials WHERE partition = $1 AND due >= $2 ORDER BY due LIMIT 1",
        partition,
        before,
    )
    return Due(sorted({row["customer"] for row in rows}), before, NEVER if following is None else following)
