"""The recommender's tables in PostgreSQL: catalogue with outbox, and decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from libs.common.clock import Millis
from libs.common.contracts.catalogue import CatalogueEntry, Withdrawn, decode_entry, encode_entry
from libs.common.contracts.identity import CustomerKey
from libs.common.db import Database, migrate
from services.recommender.ports import KeptDecision, Outgoing

SCHEMA = "recommender"

# Trap: the revision is drawn anew in the update, after the row is locked. One drawn for the refused insert
# could be lower than that of a writer who got in between, and readers would keep his entry for ever.
_PUT = """
INSERT INTO recommender.catalogue AS held (kind, id, body, withdrawn)
SELECT $1, entry.id, entry.body, false
FROM unnest($2::text[], $3::bytea[]) AS entry (id, body)
ORDER BY entry.id
ON CONFLICT (kind, id) DO UPDATE
SET body = excluded.body, withdrawn = false, revision = nextval('recommender.catalogue_revisions')
WHERE held.body <> excluded.body
"""

_WITHDRAW = """
UPDATE recommender.catalogue
SET body = $3, withdrawn = true, revision = nextval('recommender.catalogue_revisions')
WHERE kind = $1 AND id = $2 AND NOT withdrawn
RETURNING revision
"""

_OUTGOING = """
SELECT kind, id, body, revision FROM recommender.catalogue
WHERE published < revision ORDER BY revision LIMIT $1
"""

_SENT = """
UPDATE recommender.catalogue AS held SET published = sent.revision
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS sent (kind, id, revision)
WHERE held.kind = sent.kind AND held.id = sent.id AND held.published < sent.revision
"""

_CLUSTER = """
INSERT INTO recommender.clusters AS held (cluster) VALUES ($1)
ON CONFLICT (one) DO UPDATE SET cluster = excluded.cluster, number = held.number + 1, marked = false
WHERE held.cluster <> excluded.cluster OR $2
RETURNING cluster
"""

_KEEP = """
INSERT INTO recommender.decisions (decision_id, customer, decided_at, answer, pool)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bytea[])
ON CONFLICT (decision_id) DO NOTHING
"""

_FIND = """
SELECT decision_id, customer, decided_at, answer, pool FROM recommender.decisions
WHERE decision_id = ANY($1::text[])
"""

_OF_CUSTOMER = """
SELECT decision_id, customer, decided_at, answer, pool FROM recommender.decisions
WHERE customer = ANY($1::text[]) AND (decided_at, decision_id) > ($2, $3)
ORDER BY decided_at, decision_id LIMIT $4
"""


# Trap: some at a time. A statement over all that is old would time out where there is much of it, as after
# an hour of many decisions or once fewer days are asked for, and be tried again with even more.
_EXPIRE = """
DELETE FROM recommender.decisions WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM recommender.decisions
    WHERE stored_at < now() - make_interval(days => $1) LIMIT $2))
"""


class Schema:
    """The recommender's schema in a database, brought up to date when it is first needed.

    Not at start: the recommender serves what its views hold while the database is away.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ready = False
        self._lock = asyncio.Lock()

    async def database(self) -> Database:
        """The database with all tables there; raises `Transient` where it is away."""
        if not self._ready:
            async with self._lock:
                if not self._ready:
                    await migrate(self._database, SCHEMA, Path(__file__).parent / "migrations")
                    self._ready = True
        return self._database


class PostgresCatalogueStore:
    """Implements `ports.CatalogueStore`."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    async def put(self, kind: str, entries: Sequence[tuple[str, CatalogueEntry]]) -> None:
        bodies = {entry_id: encode_entry(entry) for entry_id, entry in entries}
        async with (await self._schema.database()).bulk() as connection:
            await connection.execute(_PUT, kind, list(bodies), list(bodies.values()))

    async def get(self, kind: str, entry_id: str) -> CatalogueEntry | None:
        async with (await self._schema.database()).connection() as connection:
            body = await connection.fetchval(
                "SELECT body FROM recommender.catalogue WHERE kind = $1 AND id = $2 AND NOT withdrawn",
                kind,
                entry_id,
            )
        return None if body is None else decode_entry(body)

    async def withdraw(self, kind: str, entry_id: str, at: Millis) -> bool:
        body = encode_entry(Withdrawn(at=at))
        async with (await self._schema.database()).bulk() as connection:
            return await connection.fetchval(_WITHDRAW, kind, entry_id, body) is not None

    async def outgoing(self, limit: int) -> list[Outgoing]:
        async with (await self._schema.database()).connection() as connection:
            return [Outgoing(*row) for row in await connection.fetch(_OUTGOING, limit)]

    async def sent(self, entries: Sequence[Outgoing], cluster: str) -> bool:
        async with (await self._schema.database()).bulk() as connection:
            # Trap: what a lost broker acknowledged must not be taken for published to the one after it.
            same = "SELECT true FROM recommender.clusters WHERE cluster = $1 FOR SHARE"
            if not await connection.fetchval(same, cluster):
                return False
            await connection.execute(
                _SENT,
                [entry.kind for entry in entries],
                [entry.entry_id for entry in entries],
                [entry.revision for entry in entries],
            )
        return True

    async def version(self) -> int:
        async with (await self._schema.database()).connection() as connection:
            return int(
                await connection.fetchval("SELECT coalesce(max(revision), 0) FROM recommender.catalogue")
            )

    async def on_cluster(self, cluster: str, lost: bool = False) -> bool:
        async with (await self._schema.database()).bulk() as connection:
            changed = await connection.fetchval(_CLUSTER, cluster, lost) is not None
            if changed:
                await connection.execute("UPDATE recommender.catalogue SET published = 0")
            return changed

    async def unmarked(self, cluster: str) -> int | None:
        async with (await self._schema.database()).connection() as connection:
            number = await connection.fetchval(
                "SELECT number FROM recommender.clusters WHERE cluster = $1 AND NOT marked", cluster
            )
        return None if number is None else int(number)

    async def marked(self, cluster: str, number: int) -> None:
        async with (await self._schema.database()).bulk() as connection:
            await connection.execute(
                "UPDATE recommender.clusters SET marked = true WHERE cluster = $1 AND number = $2",
                cluster,
                number,
            )


class PostgresDecisionStore:
    """Implements `ports.DecisionStore`."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    async def keep(self, decisions: Sequence[KeptDecision]) -> None:
        if not decisions:
            return
        columns = [list(column) for column in zip(*decisions, strict=True)]
        async with (await self._schema.database()).bulk() as connection:
            await connection.execute(_KEEP, *columns)

    async def find(self, decision_ids: Sequence[str]) -> dict[str, KeptDecision]:
        async with (await self._schema.database()).connection() as connection:
            rows = await connection.fetch(_FIND, list(decision_ids))
        return {row[0]: KeptDecision(*row) for row in rows}

    async def of_customer(
        self, customers: Sequence[CustomerKey], after: tuple[Millis, str], limit: int
    ) -> list[KeptDecision]:
        async with (await self._schema.database()).connection() as connection:
            rows = await connection.fetch(_OF_CUSTOMER, list(customers), *after, limit)
        return [KeptDecision(*row) for row in rows]

    async def erase(self, customers: Sequence[CustomerKey]) -> list[str]:
        async with (await self._schema.database()).bulk() as connection:
            rows = await connection.fetch(
                "DELETE FROM recommender.decisions WHERE customer = ANY($1) RETURNING decision_id",
                list(customers),
            )
        return [row[0] for row in rows]

    async def expire(self, days: int, limit: int) -> int:
        async with (await self._schema.database()).bulk() as connection:
            status = await connection.execute(_EXPIRE, days, limit)
        return int(status.rpartition(" ")[2])
