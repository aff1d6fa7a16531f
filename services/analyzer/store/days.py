"""The tables of days that the events lie in: which there are, and few of them at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

import asyncpg

from libs.common.clock import DAY

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

LAST_DAY = date.max.toordinal() - _EPOCH_ORDINAL
DAYS_AT_ONCE = 64
"""Tables of days one statement may touch: each takes locks, of which a server has some thousand."""


def table_of(schema: str, day: int) -> str:
    """The table of ``day``, counted since 1970."""
    return f"{schema}.events_{date.fromordinal(_EPOCH_ORDINAL + day).isoformat().replace('-', '')}"


async def spans(connection: asyncpg.Connection, schema: str) -> AsyncIterator[str]:
    """Conditions that together cover all days there are, newest first, written out so that the planner
    can prune."""
    rows = await connection.fetch(f"SELECT day FROM {schema}.event_days ORDER BY day DESC")
    days = [row["day"] for row in rows]
    for first in range(0, len(days), DAYS_AT_ONCE):
        span = days[first : first + DAYS_AT_ONCE]
        yield f"recorded_at >= {span[-1] * DAY} AND recorded_at < {(span[0] + 1) * DAY}"
