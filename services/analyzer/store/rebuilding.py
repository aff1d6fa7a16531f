"""What a rebuild reads and writes: stored events in, models, lessons and facts beside the live ones, and the
switch.

Every read is short: a transaction that lasted as long as the rebuild would keep vacuum from the live tables.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey
from libs.common.db import Database
from libs.common.errors import ClosedloopError
from services.analyzer.model.facts import FactRow
from services.analyzer.model.idle import IdleTimer
from services.analyzer.model.trials.rows import Due, TrialRow
from services.analyzer.ports import LessonRow, ModelRow
from services.analyzer.store import trials
from services.analyzer.store.days import DAYS_AT_ONCE, table_of
from services.analyzer.store.postgres import SCHEMA, columns
from services.analyzer.store.rebuild_statements import DIGEST, rebuild_statements

EVENTS_AT_ONCE = 5_000


async def clear_scratch(database: Database, schema: str = SCHEMA) -> list[str]:
    """Remove what rebuilds that died have left; answers in words what cannot go, because one is under way."""
    store = PostgresRebuildStore(database, f"{schema}_rebuild_none", schema)
    async with store.alone() as nobody_else:
        if not nobody_else:
            return ["tables of a rebuild that is under way: until it ends"]
        await store.clear()
    return []


class ScratchLost(ClosedloopError):
    """What was folded is gone, as after a crash of the server: the rebuild has to begin anew."""


class Reached(NamedTuple):
    """How far a partition is: its last order number, how many erasures it has seen, and its journal time."""

    number: int
    erasures: int
    journal_time: Millis


class Anew(NamedTuple):
    """What was folded anew and is not put away yet."""

    models: Sequence[ModelRow]
    trials: Sequence[TrialRow]
    timers: Sequence[IdleTimer]
    lessons: Sequence[LessonRow]
    facts: Sequence[FactRow]


class PastEvent(NamedTuple):
    """What a fold needs of a stored event."""

    number: int
    journal_time: Millis
    body: bytes


class _Day(NamedTuple):
    """Order numbers of a partition that lie in the table of one day."""

    first: int
    last: int
    day: int


@dataclass(frozen=True)
class Difference:
    """How what was folded anew differs from what was served: digests, and rows written by the switch."""

    live: bytes
    rebuilt: bytes
    models: int = 0
    lessons: int = 0


class PostgresRebuildStore:
    """One rebuild's view of the database.

    Parameters
    ----------
    scratch:
        Schema of what is folded anew, of this rebuild alone.
    schema:
        Schema of what is live.
    """

    def __init__(self, database: Database, scratch: str, schema: str = SCHEMA) -> None:
        self._database = database
        self._scratch = scratch
        self._schema = schema
        self._sql = rebuild_statements(schema, scratch)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Whether no other rebuild runs: an advisory lock of one connection, which ends with the process."""
        async with self._database.connection() as connection:
            mine = await connection.fetchval(self._sql["lock"], self._schema)
            try:
                yield bool(mine)
            finally:
                # Trap: the connection goes back to a pool, which would keep the lock.
                if mine and not connection.is_closed():
                    await connection.execute(self._sql["unlock"], self._schema)

    async def prepare(self) -> None:
        """Remove what rebuilds that died have left, and make the tables of this one."""
        await self.clear()
        async with self._database.bulk() as connection:
            await connection.execute(self._sql["tables"])

    async def clear(self) -> None:
        """Remove what rebuilds that died have left; only for who is `alone`."""
        async with self._database.bulk() as connection:
            for row in await connection.fetch(self._sql["left"], f"{self._schema}_rebuild_%"):
                await connection.execute(f"DROP SCHEMA {row['nspname']} CASCADE")

    async def drop(self) -> None:
        """Remove the tables of this rebuild."""
        async with self._database.bulk() as connection:
            await connection.execute(f"DROP SCHEMA IF EXISTS {self._scratch} CASCADE")

    async def reached(self, partition: int) -> Reached:
        """How far the live partition is."""
        async with self._database.connection() as connection:
            return await self._reached(connection, partition, "reached")

    async def _reached(self, connection: asyncpg.Connection, partition: int, how: str) -> Reached:
        row = await connection.fetchrow(self._sql[how], partition)
        number, journal_time = row or (0, 0)
        return Reached(number, await connection.fetchval(self._sql["erasures"], partition), journal_time)

    async def begin(self, partition: int) -> None:
        """Forget what was folded of ``partition``."""
        async with self._database.bulk() as connection:
            for kind in ("models", "trials", "timers", "lessons", "facts", "folded"):
                await connection.execute(self._sql[f"forget_{kind}"], partition)

    async def events(self, partition: int, after: int, upto: int) -> AsyncIterator[Sequence[PastEvent]]:
        """Events numbered over ``after`` up to ``upto``, in order, some thousand at a time."""
        days = await self._days(partition, after, upto)
        while after < upto:
            last, touched = _span(days, after, upto)
            if touched:
                async with self._database.connection() as connection:
                    yield await self._read(connection, partition, touched, after, last)
            after = last

    async def _days(self, partition: int, after: int, upto: int) -> list[_Day]:
        found: list[_Day] = []
        async with self._database.connection() as connection:
            days = [row["day"] for row in await connection.fetch(self._sql["event_days"])]
            for first in range(0, len(days), DAYS_AT_ONCE):
                span = days[first : first + DAYS_AT_ONCE]
                asked = " UNION ALL ".join(
                    f"SELECT {day}, min(number), max(number) FROM {table_of(self._schema, day)}"
                    " WHERE partition = $1"
                    for day in span
                )
                rows = await connection.fetch(asked, partition)
                found += [_Day(low, high, day) for day, low, high in rows if low is not None]
        return sorted(each for each in found if each.last > after and each.first <= upto)

    async def _read(
        self, connection: asyncpg.Connection, partition: int, days: Sequence[int], after: int, last: int
    ) -> list[PastEvent]:
        asked = " UNION ALL ".join(
            f"SELECT number, journal_time, body FROM {table_of(self._schema, day)}"
            " WHERE partition = $1 AND number > $2 AND number <= $3"
            for day in days
        )
        rows = await connection.fetch(f"{asked} ORDER BY number", partition, after, last)
        return [PastEvent(*row) for row in rows]

    async def models(self, partition: int, customers: Sequence[CustomerKey]) -> list[ModelRow]:
        """What was folded so far of ``customers``."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(self._sql["models"], partition, list(customers))
        return [ModelRow(*row) for row in rows]

    async def due(self, partition: int, before: Millis, limit: int) -> Due:
        """For whom, of what was put away, something falls due, as `ports.SliceStore.due`."""
        async with self._database.connection() as connection:
            return await trials.due(connection, self._scratch, partition, before, limit)

    async def put(self, partition: int, at: Reached, anew: Anew) -> None:
        """Keep what was folded up to ``at``, in one transaction."""
        async with self._database.bulk() as connection:
            await self._put(connection, partition, at, anew)

    async def _put(self, connection: asyncpg.Connection, partition: int, at: Reached, anew: Anew) -> None:
        if anew.models:
            await connection.execute(self._sql["put_models"], *columns(anew.models))
        if anew.trials:
            await trials.put_trials(connection, self._scratch, partition, anew.trials)
        await trials.put_timers(connection, self._scratch, anew.timers)
        if anew.lessons:
            await connection.copy_records_to_table("lessons", schema_name=self._scratch, records=anew.lessons)
        if anew.facts:
            await connection.copy_records_to_table("facts", schema_name=self._scratch, records=anew.facts)
        await connection.execute(self._sql["put_folded"], partition, *at)

    async def folded(self, partition: int) -> Reached:
        """How far ``partition`` was folded; raises `ScratchLost` where nothing is known of it."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(self._sql["folded"], partition)
        if row is None:
            raise ScratchLost(f"what was folded of partition {partition} is lost: start the rebuild again")
        return Reached(*row)

    @asynccontextmanager
    async def settling(self, partition: int) -> AsyncIterator[Settling]:
        """A transaction in which the live partition stands still."""
        async with self._database.bulk() as connection:
            yield Settling(self, connection, partition, await self._reached(connection, partition, "stop"))


class Settling:
    """A partition that stands still: its slices wait for this transaction, and then find it changed."""

    def __init__(
        self, store: PostgresRebuildStore, connection: asyncpg.Connection, partition: int, reached: Reached
    ) -> None:
        self._store = store
        self._connection = connection
        self._partition = partition
        self.reached = reached

    async def events(self, after: int) -> list[PastEvent]:
        """The events over ``after`` to the last."""
        upto = self.reached.number
        days = [each.day for each in await self._store._days(self._partition, after, upto)]
        if not days:
            return []
        return await self._store._read(self._connection, self._partition, days, after, upto)

    async def put(self, anew: Anew) -> None:
        """Keep the last of what was folded."""
        await self._store._put(self._connection, self._partition, self.reached, anew)

    async def compare(self) -> Difference:
        """Both digests, and nothing changed."""
        await self._trust()
        live = await self._connection.fetchval(DIGEST.format(schema=self._store._schema), self._partition)
        anew = await self._connection.fetchval(DIGEST.format(schema=self._store._scratch), self._partition)
        return Difference(live, anew)

    async def switch(self) -> Difference:
        """Serve what was folded anew, where it differs, under a revision over all there were."""
        told = await self.compare()
        revision = self.reached.number + 1
        models = lessons = 0
        for name in ("switch_models", "switch_gone"):
            models += _rows(await self._execute(name, self._partition, revision))
        for name in ("switch_lessons_gone", "switch_lessons"):
            lessons += _rows(await self._execute(name, self._partition))
        for name in ("switch_facts_gone", "switch_facts"):
            await self._execute(name, self._partition)
        for name in ("switch_trials_gone", "switch_trials"):
            models += _rows(await self._execute(name, self._partition))
        await self._execute("switch_timers", self._partition)
        if models:
            # The live slice finds another number than it left, forgets what it knew and publishes.
            await self._execute("number", self._partition, revision)
        return Difference(told.live, told.rebuilt, models, lessons)

    async def _trust(self) -> None:
        row = await self._connection.fetchrow(self._store._sql["folded"], self._partition)
        if row is None or Reached(*row) != self.reached:
            raise ScratchLost(f"what was folded of partition {self._partition} is lost: start again")

    async def _execute(self, name: str, *values: object) -> str:
        return str(await self._connection.execute(self._store._sql[name], *values))


def _rows(status: str) -> int:
    """How many rows a statement touched, from what the server says of it."""
    return int(status.rsplit(" ", 1)[1])


def _span(days: Sequence[_Day], after: int, upto: int) -> tuple[int, list[int]]:
    """Up to which number to read next, and in which tables: not too many rows, nor tables."""
    last = min(upto, after + EVENTS_AT_ONCE)
    there = [each for each in days if each.last > after]
    if there and there[0].first > last:
        # Numbers that no event has any more.
        return there[0].first - 1, []
    if len(there) > DAYS_AT_ONCE:
        last = min(last, max(after + 1, there[DAYS_AT_ONCE].first - 1))
    return last, [each.day for each in there if each.first <= last]
