"""The database: migrations of several processes at once, one transaction each, and the fate of failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from deploy.local.postgres import EmbeddedPostgres
from libs.common.db import Database, migrate
from libs.common.errors import Misconfigured, Transient

pytestmark = pytest.mark.embedded

REVISION = '''"""A step."""

from alembic import op

revision = "{number}"
down_revision = {before}


def upgrade() -> None:
    op.execute("""{sql}""")
'''
KILL = "SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "data")
    await server.start(60)
    yield server
    await server.stop()


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    database = Database(postgres.address)
    yield database
    await database.close()


def revise(folder: Path, number: str, before: str | None, sql: str) -> None:
    versions = folder / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    (versions / f"{number}_step.py").write_text(REVISION.format(number=number, before=repr(before), sql=sql))


async def test_migrations_run_once_and_whole(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    revise(folder, "0001", None, "CREATE TABLE things (id bigint PRIMARY KEY, name text DEFAULT 'a'::text)")
    others = [Database(database.url) for _ in range(3)]
    await asyncio.gather(*(migrate(each, "analyzer", folder) for each in (database, *others)))
    for other in others:
        await other.close()
    revise(folder, "0002", "0001", "INSERT INTO things VALUES (1)")
    await migrate(database, "analyzer", folder)
    await migrate(database, "analyzer", folder)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM analyzer.things") == 1
        assert await connection.fetchval("SELECT version_num FROM analyzer.migrations") == "0002"
    revise(folder, "0003", "0002", "INSERT INTO things VALUES (2); SELECT no_such_column FROM things")
    with pytest.raises(ProgrammingError):
        await migrate(database, "analyzer", folder)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM analyzer.things") == 1
        assert await connection.fetchval("SELECT version_num FROM analyzer.migrations") == "0002"
    with pytest.raises(Misconfigured):
        await migrate(database, "analyzer; DROP", folder)


async def test_migration_may_take_longer_than_any_other_statement(database: Database, tmp_path: Path) -> None:
    hasty = Database(database.url, timeout=0.5)
    folder = tmp_path / "migrations"
    revise(folder, "0001", None, "CREATE TABLE things AS SELECT pg_sleep(1.2)::text AS slept")
    await asyncio.gather(*(migrate(hasty, "analyzer", folder) for _ in range(2)))
    async with hasty.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM analyzer.things") == 1
    with pytest.raises(Transient):
        async with hasty.begin() as transaction:
            await transaction.execute(text("SELECT pg_sleep(5)"))
    await hasty.close()


async def test_transactions_are_whole_or_nothing(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("CREATE TABLE t (n int)"))
    insert = "INSERT INTO t VALUES (1)"

    async def fail_in_begin() -> None:
        async with database.begin() as connection:
            await connection.execute(text(insert))
            raise KeyError

    async def fail_in_bulk() -> None:
        async with database.bulk() as connection:
            await connection.execute(insert)
            raise KeyError

    for fail in (fail_in_begin, fail_in_bulk):
        with pytest.raises(KeyError):
            await fail()
    async with database.bulk() as connection:
        await connection.copy_records_to_table("t", records=[(1,), (2,)])
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM t") == 2


async def test_passing_faults_are_transient_and_bugs_are_not(database: Database) -> None:
    with pytest.raises(Transient):
        async with database.bulk() as connection:
            await connection.execute(KILL)
    with pytest.raises(Transient):
        async with database.begin() as connection:
            await connection.execute(text(KILL))
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.bulk() as connection:
            await connection.execute("SELECT * FROM nothing")
    with pytest.raises(asyncpg.InterfaceError):
        async with database.bulk() as connection:
            await connection.execute("SELECT $1::int", 1, 2)
    with pytest.raises(DBAPIError):
        async with database.begin() as connection:
            await connection.execute(text("SELECT * FROM nothing"))
    await database.ping()


async def test_conflict_of_two_transactions_is_transient(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("CREATE TABLE t (n int)"))
        await connection.execute(text("INSERT INTO t VALUES (0)"))

    async def conflict() -> None:
        async with database.bulk() as one:
            await one.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            await one.fetchval("SELECT sum(n) FROM t")
            async with database.bulk() as two:
                await two.execute("UPDATE t SET n = 1")
            await one.execute("UPDATE t SET n = 2")

    with pytest.raises(Transient, match="40001"):
        await conflict()


async def test_server_that_is_away_is_transient_and_comes_back(
    postgres: EmbeddedPostgres, database: Database
) -> None:
    await database.ping()
    await postgres.kill()
    for _ in range(2):
        with pytest.raises(Transient):
            await database.ping()
        with pytest.raises(Transient):
            async with database.begin() as connection:
                await connection.execute(text("SELECT 1"))
    await postgres.start(60)
    await database.ping()
    async with asyncio.timeout(10):
        while True:
            try:
                async with database.begin() as connection:
                    await connection.execute(text("SELECT 1"))
            except Transient:
                continue
            break
    await asyncio.wait_for(database.close(), 4)
    with pytest.raises(Transient):
        await database.ping()


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        (asyncpg.InternalClientError("cannot switch to state 21"), Transient),
        (ValueError(), asyncpg.InterfaceError),
    ],
)
async def test_connection_that_cannot_be_given_back_hides_no_fault(
    database: Database, said: Exception, raised: type[Exception]
) -> None:
    """What a server that is killed leaves behind: a connection in the middle of something."""
    busy: list[asyncio.Task[str]] = []

    async def break_in_the_middle() -> None:
        async with database.connection() as connection:
            busy.append(asyncio.create_task(connection.execute("SELECT pg_sleep(5)")))
            await asyncio.sleep(0.1)
            raise said

    with pytest.raises(raised):
        await break_in_the_middle()
    assert isinstance((await asyncio.gather(*busy, return_exceptions=True))[0], Exception)
    await database.ping()
