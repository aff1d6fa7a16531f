"""A program of others, run as a process of ours: how to prepare it, its command line, whether it answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import random
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]

from libs.common.errors import Misconfigured

LOOPBACK = "127.0.0.1"
_POLL_SECONDS = 0.05
_TAIL_LINES = 5


class Command(NamedTuple):
    """What a supervisor must start: arguments, environment to add, and the system user (None = ours)."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    user: str | None = None


class Program(ABC):
    """A server on this machine.

    A supervisor calls `prepare` once (blocking: run it in a thread), takes a fresh `command` for each
    start, and asks `ready` until that is true. Tests use `start` and `stop`, which do all of that.
    """

    name: str
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients connect: ``host:port`` of a broker, the URL of a database."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs, started by this object."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @abstractmethod
    def prepare(self) -> None:
        """Make directories, secrets and storage once; raises `Misconfigured` with one line that helps."""

    @abstractmethod
    def command(self) -> Command:
        """The command line of the next start; may differ from start to start (a fresh cluster id)."""

    @abstractmethod
    async def ready(self) -> bool:
        """Whether it answers clients at this moment; bounded by a second or two."""

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start the process in a session of its own, output appended to `log`; does not wait for it."""
        command = self.command()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # Trap: a user alone is not enough, the groups of root would stay.
        drop: dict[str, Any] = {}
        if command.user is not None:
            entry = pwd.getpwnam(command.user)
            drop = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": ()}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **command.env},
                cwd="/",
                start_new_session=True,
                **drop,
            )
        return self._process

    async def start(self, timeout: float = 30.0) -> str:
        """Prepare, spawn, wait until ready; return the address."""
        await asyncio.to_thread(self.prepare)
        await self.spawn()
        try:
            await self.wait_ready(timeout)
        except BaseException:
            await self.kill()
            raise
        return self.address

    async def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until ready; raises `Misconfigured` with the end of the log where it died or took too long."""
        deadline = asyncio.get_running_loop().time() + timeout
        while not await self.ready():
            if self.pid is None:
                raise Misconfigured(f"{self.name} ended at start: {self.tail()}")
            if asyncio.get_running_loop().time() > deadline:
                raise Misconfigured(f"{self.name} not ready after {timeout:.0f} s: {self.tail()}")
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self, timeout: float = 10.0) -> None:
        """Ask it to end, kill it after ``timeout`` seconds; nothing happens where it does not run."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(self.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it and its children at once, as a crash would."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        # Trap: each of them, because PostgreSQL's children have sessions of their own, and outlive a killed
        # parent for a moment: they answer, and keep its shared memory and its port.
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            for one in (parent, *parent.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        await process.wait()

    def tail(self) -> str:
        """The last lines of the log as one line."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return " | ".join(line.strip() for line in lines[-_TAIL_LINES:]) or f"nothing in {self.log}"


QUIET_PORTS = (12_000, 32_000)
"""Above what servers are known by, below what outgoing connections get on Linux."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    # Trap: not one that the kernel would give (port 0). Those are also given to every outgoing connection,
    # so that one may be taken again before a server listens on it.
    draws = random.SystemRandom()
    while True:
        port = draws.randrange(*QUIET_PORTS)
        with contextlib.suppress(Misconfigured):
            require_free(port, "probe")
            return port


def require_free(port: int, what: str) -> None:
    """Raise `Misconfigured` where somebody listens on ``port`` already."""
    with socket.socket() as probe:
        # Trap: not only for connections that are still closing. A process that is forked meanwhile holds
        # a copy of each probe for a moment, and without this such a copy looks like somebody who listens.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise Misconfigured(f"port {port} for {what} cannot be used: {error.strerror}") from None
