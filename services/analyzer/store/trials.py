"""What falls due in PostgreSQL: records of decisions, and timers of visitors, each with an index by when."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey
from services.analyzer.model.idle import IdleTimer
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


async def put_timers(connection: asyncpg.Connection, schema: str, rows: Sequence[IdleTimer]) -> None:
    """Keep ``rows``; those that are over go."""
    if not rows:
        return
    await connection.execute(
        f"INSERT INTO {schema}.idle_timers (partition, customer, due)"
        " SELECT * FROM unnest($1::smallint[], $2::text[], $3::bigint[])"
        " ON CONFLICT (partition, customer) DO UPDATE SET due = EXCLUDED.due",
        *(list(column) for column in zip(*rows, strict=True)),
    )
    await connection.execute(
        f"DELETE FROM {schema}.idle_timers WHERE partition = $1 AND customer = ANY($2)",
        rows[0].partition,
        [row.customer for row in rows if not row.due],
    )


async def erase_due(
    connection: asyncpg.Connection, schema: str, partition: int, customer: CustomerKey
) -> None:
    """Forget all decisions of ``customer``, and his timer."""
    for table in ("trials", "idle_timers"):
        await connection.execute(
            f"DELETE FROM {schema}.{table} WHERE partition = $1 AND customer = $2", partition, customer
        )


async def due(connection: asyncpg.Connection, schema: str, partition: int, before: Millis, limit: int) -> Due:
    """As `ports.SliceStore.due`."""
    some = "WHERE partition = $1 AND due < $2 ORDER BY due"
    trials = await connection.fetch(
        f"SELECT customer, due FROM {schema}.trials {some} LIMIT $3", partition, before, limit
    )
    if len(trials) >= limit:
        before = trials[-1]["due"] + 1
        trials = await connection.fetch(
            f"SELECT customer, due FROM {schema}.trials {some}", partition, before
        )
    timers = await connection.fetch(
        f"SELECT customer, due FROM {schema}.idle_timers {some}, customer LIMIT $3",
        partition,
        before,
        limit + 1,
    )
    left, timers = timers[limit:], timers[:limit]
    if left:
        before = timers[-1]["due"] + 1
    following = await connection.fetchval(
        f"SELECT least((SELECT min(due) FROM {schema}.trials WHERE partition = $1 AND due >= $2),"
        f" (SELECT min(due) FROM {schema}.idle_timers WHERE partition = $1 AND due >= $2), $3)",
        partition,
        before,
        min((row["due"] for row in left), default=NEVER),
    )
    visitors = {row["customer"]: row["due"] for row in timers}
    customers = visitors.keys() | {row["customer"] for row in trials if row["due"] < before}
    return Due(sorted(customers), before, following, visitors)
