"""The database of an embedded platform, written to a file and loaded again."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

from deploy.local.postgres import EmbeddedPostgres, binaries
from deploy.local.running import claim, running_platform, stop_leftovers
from libs.common.errors import ClosedloopError, Misconfigured

_EMPTY = b"DROP SCHEMA IF EXISTS analyzer CASCADE; DROP SCHEMA IF EXISTS recommender CASCADE;"


def back_up(data_dir: Path, file: Path) -> None:
    """Dump the database of the platform that runs on ``data_dir``; ``file`` is whole or not there."""
    address = running_platform(data_dir).postgres
    draft = file.with_name(file.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        _run("pg_dump", address, "-n", "analyzer", "-n", "recommender", out=out.fileno())
        os.fsync(out.fileno())
    draft.replace(file)


def restore(data_dir: Path, file: Path) -> None:
    """Put what `back_up` wrote in the place of the embedded database; the platform must not run."""
    if not (data_dir / "postgres").exists():
        raise Misconfigured(f"{data_dir} holds no database of its own: load the dump with psql")
    if not file.exists():
        raise Misconfigured(f"there is no {file}")
    lock = claim(data_dir)
    try:
        stop_leftovers(data_dir)
        asyncio.run(_load(data_dir, file.read_bytes()))
        shutil.rmtree(data_dir / "recommender" / "views", ignore_errors=True)
    finally:
        lock.close()


async def _load(data_dir: Path, dump: bytes) -> None:
    server = EmbeddedPostgres(data_dir)
    await server.start()
    try:
        # One transaction: a dump that is not whole leaves the database as it was.
        script = _EMPTY + dump
        await asyncio.to_thread(_run, "psql", server.address, "-q1v", "ON_ERROR_STOP=1", given=script)
    finally:
        await server.stop()


def _run(
    program: str, address: str, *arguments: str, given: bytes = b"", out: int = subprocess.DEVNULL
) -> None:
    done = subprocess.run(
        [str(binaries() / program), *arguments, address],
        input=given,
        stdout=out,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]
        raise ClosedloopError(f"{program} failed: {last}")
