"""PostgreSQL: pools, transactions whose failures have a fate, and migrations per schema.

Migrations of a service lie in ``services/NAME/migrations/versions/NNNN_what.py``; nothing else is needed
there, no env.py and no ini file. One revision::

    \"\"\"First tables.\"\"\"

    from alembic import op

    revision = "0001"
    down_revision = None          # "0001" in the next one

    def upgrade() -> None:
        op.execute("CREATE TABLE things (id bigint PRIMARY KEY, name text NOT NULL)")

    def downgrade() -> None:
        op.execute("DROP TABLE things")

Names without a schema land in the service's own (it is first on the search path while migrations run).
The service calls ``await migrate(database, "analyzer", Path(__file__).parent / "migrations")`` at start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection


class Database:
    """Two small pools on one PostgreSQL: SQLAlchemy for ordinary statements, plain asyncpg for bulk work.

    Connects when first used. Whatever may go away again (connection lost, server starting or stopping,
    serialisation failure, deadlock, no room) is raised as `Transient`; everything else is a bug and
    comes through as it is.

    Parameters
    ----------
    url:
        ``postgresql://user:password@host:port/name`` (host may also be a socket directory,
        ``postgresql:///name?host=/path``).
    size:
        Most connections of each of the two pools.
    timeout:
        Seconds to wait for a connection, and for any one statement.
    """

    def __init__(self, url: str, *, size: int = 5, timeout: float = 10.0) -> None: ...

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction on a SQLAlchemy connection: committed at the end, rolled back on any error."""
        yield  # type: ignore[misc]

    @asynccontextmanager
    async def bulk(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction on a plain asyncpg connection, for COPY, unnest and other hot statements."""
        yield

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A plain asyncpg connection without a transaction, for single reads."""
        yield

    async def ping(self) -> None:
        """Raise `Transient` unless the database answers."""

    async def close(self) -> None:
        """Close both pools within three seconds, whatever the server does."""


async def migrate(database: Database, schema: str, folder: Path) -> None:
    """Bring ``schema`` to the newest revision in ``folder``/versions, in one transaction.

    Creates the schema where missing; its version table is ``SCHEMA.migrations``. Processes that start
    together wait for each other (advisory lock). Raises `Transient` where the database is away.
    """


def fate(error: BaseException) -> Any:
    """The `Transient` that ``error`` amounts to, or None where it is no passing fault."""
