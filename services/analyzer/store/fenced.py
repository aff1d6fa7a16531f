"""The fence of a slice and the rows behind it, as one statement: a transaction in a single round trip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from services.analyzer.ports import PartitionState, SliceWrite

Rows = dict[str, Sequence[tuple[object, ...]]]
"""Rows by the name of their `_Part`; none are empty."""


class _Part(NamedTuple):
    """Where rows of one kind go; ``columns`` with their types, the partition first."""

    table: str
    columns: dict[str, str]
    conflict: str = ""


_TIMER_KEY = {"partition": "smallint", "customer": "text"}
_TRIAL_KEY = {**_TIMER_KEY, "decision": "text"}
_PARTS = {
    "events": _Part(
        "events",
        {
            "partition": "smallint",
            "number": "bigint",
            "recorded_at": "bigint",
            "journal_time": "bigint",
            "occurred_at": "bigint",
            "customer": "text",
            "kind": "text",
            "id": "text",
            "body": "bytea",
        },
    ),
    "ids": _Part(
        "event_ids",
        {"partition": "smallint", "hash": "bytea", "journal_time": "bigint", "content": "bytea"},
        "(partition, hash) DO UPDATE SET journal_time = EXCLUDED.journal_time, content = EXCLUDED.content",
    ),
    "models": _Part(
        "models",
        {
            "partition": "smallint",
            "customer": "text",
            "part": "text",
            "revision": "bigint",
            "body": "bytea",
            "dropped": "boolean",
        },
        "(partition, customer, part) DO UPDATE SET revision = EXCLUDED.revision, body = EXCLUDED.body,"
        " dropped = EXCLUDED.dropped",
    ),
    "trials": _Part(
        "trials",
        {**_TRIAL_KEY, "number": "bigint", "due": "bigint", "body": "bytea"},
        "(partition, customer, decision) DO UPDATE SET number = EXCLUDED.number, due = EXCLUDED.due,"
        " body = EXCLUDED.body",
    ),
    "timers": _Part(
        "idle_timers",
        {**_TIMER_KEY, "due": "bigint"},
        "(partition, customer) DO UPDATE SET due = EXCLUDED.due",
    ),
    "lessons": _Part(
        "lessons",
        {
            "partition": "smallint",
            "number": "bigint",
            "second": "bigint",
            "kind": "text",
            "body": "bytea",
            "part": "integer",
        },
    ),
    "facts": _Part(
        "facts",
        {
            "partition": "smallint",
            "number": "bigint",
            "customer": "text",
            "at": "bigint",
            "kind": "text",
            "body": "bytea",
        },
    ),
    "reports": _Part(
        "spool_reports",
        {
            "partition": "smallint",
            "spool": "text",
            "service": "text",
            "recorded_at": "bigint",
            "accepted": "jsonb",
        },
        "(partition, spool) DO UPDATE SET service = EXCLUDED.service, recorded_at = EXCLUDED.recorded_at,"
        " accepted = EXCLUDED.accepted",
    ),
    "fates": _Part(
        "fates",
        {"partition": "smallint", "spool": "text", "source": "text", "fate": "text", "count": "bigint"},
        "(partition, spool, source, fate) DO UPDATE SET count = known.count + EXCLUDED.count",
    ),
}
_GONE = {"trials_gone": _Part("trials", _TRIAL_KEY), "timers_gone": _Part("idle_timers", _TIMER_KEY)}
"""Rows that go, by their keys."""

# Trap: the epoch alone is not enough. A commit whose answer was lost may still be under way when the owner
# has read the state again; this update then waits for it, and must not follow it.
_FENCE = """
    UPDATE SCHEMA.partitions SET next_offset = $3, number = $4, journal_time = $5, applied = $6,
        counters = $7, notes = $8, published = $9, models_offset = $10, leaves = $11, touched_at = now()
    WHERE partition = $1 AND epoch = $2 AND (next_offset, number, journal_time) = ($12, $13, $14)
    RETURNING 1"""
_FENCE_VALUES = 14
_BEHIND = "WHERE EXISTS (SELECT FROM fence)"


def rows_of(slice_: SliceWrite) -> Rows:
    """What of ``slice_`` goes into ordinary tables."""
    partition = slice_.state.partition
    rows: Rows = {
        "events": slice_.events,
        "ids": [(partition, hashed, *seen) for hashed, seen in slice_.ids.items()],
        "models": slice_.models,
        "trials": [row for row in slice_.trials if row.body],
        "trials_gone": [row[:3] for row in slice_.trials if not row.body],
        "timers": [row for row in slice_.timers if row.due],
        "timers_gone": [row[:2] for row in slice_.timers if not row.due],
        "lessons": slice_.lessons,
        "facts": slice_.facts,
        "reports": [(*report[:-1], _json(report.accepted)) for report in slice_.reports],
        "fates": [(partition, *key, amount) for key, amount in slice_.fates.items()],
    }
    return {name: some for name, some in rows.items() if some}


def fenced(schema: str, state: PartitionState, before: PartitionState, rows: Rows) -> list[object]:
    """The statement that turns ``before`` into ``state`` and writes ``rows``, and its values.

    It answers 1; or 0 where ``before`` is not what is stored, and then writes nothing.
    """
    return [
        _text(schema, tuple(rows), True),
        state.partition,
        state.epoch,
        state.next_offset,
        state.number,
        state.journal_time,
        _json(state.applied),
        _json(state.counters),
        _json(state.notes),
        state.published,
        state.models_offset,
        _json(state.leaves),
        before.next_offset,
        before.number,
        before.journal_time,
        *_columns(rows),
    ]


def following(schema: str, rows: Rows) -> list[object]:
    """The statement that writes ``rows`` within a transaction that has passed the fence, and its values."""
    return [_text(schema, tuple(rows), False), *_columns(rows)]


@lru_cache(maxsize=1_000)
def _text(schema: str, names: tuple[str, ...], fence: bool) -> str:
    """Each kind of rows in a WITH of its own, which the fence comes before because they ask for it."""
    taken = _FENCE_VALUES if fence else 0
    steps = [f"fence AS ({_FENCE if fence else 'SELECT 1'})"]
    for name in names:
        part = _GONE.get(name) or _PARTS[name]
        columns = part.columns
        arrays = ", ".join(f"${taken + at}::{type_}[]" for at, type_ in enumerate(columns.values(), 1))
        taken += len(columns)
        if name in _GONE:
            body = (
                f"DELETE FROM SCHEMA.{part.table} {_BEHIND} AND ({', '.join(columns)})"
                f" IN (SELECT * FROM unnest({arrays}))"
            )
        else:
            body = (
                f"INSERT INTO SCHEMA.{part.table} AS known ({', '.join(columns)})"
                f" SELECT * FROM unnest({arrays}) {_BEHIND}"
                + (f" ON CONFLICT {part.conflict}" if part.conflict else "")
            )
        steps.append(f"{name} AS ({body})")
    return f"WITH {', '.join(steps)} SELECT count(*) FROM fence".replace("SCHEMA.", f"{schema}.")


def _columns(rows: Rows) -> Iterable[list[object]]:
    for some in rows.values():
        yield from (list(column) for column in zip(*some, strict=True))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
