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
A colon before a word is a parameter to alembic and is escaped as ``\\:word``; casts ``x::text`` are not.
The service calls ``await migrate(database, "analyzer", Path(__file__).parent / "migrations")`` at start.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from libs.common.errors import Misconfigured, Transient

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_log = logging.getLogger(__name__)

_PASSING = re.compile(r"08...|40...|53...|57(014|P..)|58...|55P03|25006|25P03|XX001")
"""SQLSTATEs of what may be gone when tried again: connection, conflict, resources, shutdown, failover."""

_IDLE_SECONDS = 20
"""A process that is stopped within a transaction keeps its locks no longer: others wait for them."""

_SCHEMA_NAME = re.compile(r"[a-z][a-z_]{0,30}\Z")


REWRITE_SECONDS = 3_600.0

MIGRATE_SECONDS = 12 * 3_600.0
"""For one statement of a migration, which may write the largest table anew."""

_CLEARING = (
    # Its most common values are copies out of the tables.
    ("VACUUM FULL pg_catalog.pg_statistic", "statistics of the planner: until they are gathered anew"),
    ("SELECT pg_switch_wal()", "write-ahead log: until its files are used again"),
    ("CHECKPOINT", "write-ahead log: until the next checkpoint"),
)


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
        Seconds to wait for a connection.
    statement_timeout:
        Seconds to wait for any one statement; ``timeout`` where nothing is said.
    """

    def __init__(
        self, url: str, *, size: int = 5, timeout: float = 10.0, statement_timeout: float | None = None
    ) -> None:
        try:
            parsed = make_url(url).set(drivername="postgresql+asyncpg")
        except (ArgumentError, ValueError):
            # Trap: what SQLAlchemy says may quote the password.
            raise Misconfigured(
                "the URL of PostgreSQL cannot be read: write postgresql://user:password@host:port/name"
            ) from None
        self._url: URL = parsed
        self._size = size
        self._timeout = timeout
        self._statement_timeout = statement_timeout or timeout
        self._engine: AsyncEngine | None = None
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._unsure: set[int] = set()

    @property
    def url(self) -> str:
        """The URL with its password, for others that connect by themselves."""
        return self._url.set(drivername="postgresql").render_as_string(hide_password=False)

    @property
    def place(self) -> str:
        """Where it is, without user and password: fit to be shown."""
        host = self._url.host or self._url.query.get("host") or "localhost"
        return f"{host}:{self._url.port or 5432}/{self._url.database or ''}"

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction on a SQLAlchemy connection: committed at the end, rolled back on any error."""
        with _fated():
            if self._engine is None:
                self._engine = self._engine_made()
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def bulk(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction on a plain asyncpg connection, for COPY, unnest and other hot statements."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A plain asyncpg connection without a transaction, for single reads."""
        with _fated():
            pool = await self._opened()
            async with pool.acquire(timeout=self._timeout) as connection:
                try:
                    yield connection
                except BaseException as error:
                    if not _lost(connection):
                        self._unsure.add(connection.get_server_pid())
                    elif isinstance(error, asyncpg.InterfaceError):
                        # asyncpg says the same of a lost connection and of a wrong call: ask the connection.
                        raise Transient(f"the database is away: {error}") from error
                    raise

    async def _reset(self, connection: asyncpg.Connection) -> None:
        """Ready ``connection`` for others: for the price of a round trip only where something went wrong.

        Trap: so whatever holds for a session is undone by whoever does it. Nobody does, but for one lock.
        """
        server = connection.get_server_pid()
        if server in self._unsure:
            self._unsure.discard(server)
            await connection.execute(connection.get_reset_query())

    async def ping(self) -> None:
        """Raise `Transient` unless the database answers."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1")

    async def close(self) -> None:
        """Close both pools within three seconds, whatever the server does."""
        self._closed = True
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(1.5):
                if pool is not None:
                    await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if pool is not None:
                pool.terminate()
        try:
            async with asyncio.timeout(1.5):
                if self._engine is not None:
                    await self._engine.dispose()
        except (TimeoutError, OSError):
            _log.warning("the database did not say goodbye")

    def patient(self, statement_timeout: float) -> Database:
        """The same with one connection of its own, on which statements may take that many seconds."""
        return Database(self.url, size=1, timeout=self._timeout, statement_timeout=statement_timeout)

    def _engine_made(self) -> AsyncEngine:
        # Trap: imported late, as alembic below. The processes of a rebuild need neither, and start sooner.
        from sqlalchemy.ext.asyncio import create_async_engine

        return create_async_engine(
            self._url,
            pool_size=self._size,
            max_overflow=0,
            pool_timeout=self._timeout,
            pool_pre_ping=False,
            pool_recycle=1800,
            connect_args={"timeout": self._timeout, "command_timeout": self._statement_timeout},
        )

    async def _opened(self) -> asyncpg.Pool:
        async with self._opening:
            if self._closed:
                raise Transient("the database is being let go")
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self.url,
                    min_size=0,
                    max_size=self._size,
                    timeout=self._timeout,
                    command_timeout=self._statement_timeout,
                    server_settings={"idle_in_transaction_session_timeout": str(_IDLE_SECONDS * 1000)},
                    reset=self._reset,
                )
            return self._pool


def fate(error: BaseException) -> Transient | None:
    """The `Transient` that ``error`` amounts to, or None where it is no passing fault."""
    cause = error
    if isinstance(error, DBAPIError):
        cause = error.orig or error
        if error.connection_invalidated:
            return Transient(f"the database is away: {cause}")
    if isinstance(error, OSError | TimeoutError | PoolTimeout):
        return Transient(f"the database is away: {error or type(error).__name__}")
    if isinstance(cause, asyncpg.InternalClientError):
        # asyncpg loses its place when a connection dies at a bad moment, and drops the connection.
        return Transient(f"the database is away: {cause}")
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str) and _PASSING.fullmatch(state):
        return Transient(f"the database cannot do it now ({state}): {cause}")
    return None


def _lost(connection: asyncpg.Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        # The pool takes a connection back as soon as it is lost.
        return True


@contextmanager
def _fated() -> Iterator[None]:
    try:
        yield
    except Transient:
        raise
    except Exception as error:
        transient = fate(error)
        if transient is None and isinstance(error, asyncpg.InterfaceError):
            # Trap: a connection that broke cannot be given back either, and that hides why it broke.
            transient = _fate_behind(error)
        if transient is not None:
            raise transient from error
        raise


def _fate_behind(error: BaseException) -> Transient | None:
    """The `Transient` among what was being handled when ``error`` came up."""
    behind = error.__context__
    while behind is not None:
        transient = behind if isinstance(behind, Transient) else fate(behind)
        if transient is not None:
            return transient
        behind = behind.__context__
    return None


async def migrate(database: Database, schema: str, folder: Path) -> None:
    """Bring ``schema`` to the newest revision in ``folder``/versions, in one transaction.

    Creates the schema where missing; its version table is ``SCHEMA.migrations``. Processes that start
    together wait for each other (advisory lock). Raises `Transient` where the database is away. It takes as
    long as it takes: the timeout of ``database`` is for connecting alone.
    """
    if not _SCHEMA_NAME.match(schema):
        raise Misconfigured(f"{schema!r} is no name for a schema")
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    patient = database.patient(MIGRATE_SECONDS)
    try:
        async with patient.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": schema})
            await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
            await connection.execute(text(f"SET LOCAL search_path TO {schema}, public"))
            await connection.run_sync(_upgrade, config, schema)
    finally:
        await patient.close()


async def rewrite(database: Database, schema: str) -> list[str]:
    """Write all tables of ``schema`` anew, so that deleted rows leave no bytes in their files.

    Locks one table after the other against everything else. What the server keeps beside (statistics, the
    write-ahead log) is cleared too where the role may; answers in words what was not.
    """
    left: list[str] = []
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT format('%I.%I', nspname, relname) FROM pg_class"
            " JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname = $1 AND relkind = 'r' AND pg_relation_size(pg_class.oid) > 0",
            schema,
        )
        for (table,) in rows:
            await connection.execute(f"VACUUM (FULL, ANALYZE) {table}", timeout=REWRITE_SECONDS)
        for statement, what in _CLEARING:
            try:
                await connection.execute(statement, timeout=REWRITE_SECONDS)
            except asyncpg.InsufficientPrivilegeError:
                left.append(what)
    return left


def _upgrade(connection: Connection, config: Config, schema: str) -> None:
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config)

    def steps(revision: object, context: MigrationContext) -> object:
        return scripts._upgrade_revs("head", revision)  # type: ignore[arg-type]

    with EnvironmentContext(config, scripts, fn=steps) as environment:
        environment.configure(connection=connection, version_table="migrations", version_table_schema=schema)
        # Trap: no transaction of its own: all revisions and the version share ours, so that a crash
        # half-way leaves the schema as it was.
        environment.run_migrations()
