"""A program of others, run as a process of ours: how to prepare it, its command line, whether it answers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """What a supervisor must start: arguments, environment to add, and the system user (None = ours)."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    user: str | None = None


class Program(ABC):
    """A server on this machine.

    A supervisor calls `prepare` once (blocking: run it in a thread), then for each start takes a fresh
    `command` and `spawn`s it, and asks `ready` until that is true. Tests use `start` and `stop`.
    """

    name: str
    log: Path

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients connect: ``host:port`` of a broker, the URL of a database."""

    @property
    def pid(self) -> int | None:
        """Process id while it runs, started by this object."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def start(self, timeout: float = 30.0) -> str:
        """Prepare, spawn, wait until ready; return the address."""
        raise NotImplementedError

    async def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until ready; raises `Misconfigured` with the end of the log where it died or took too long."""
        raise NotImplementedError

    async def stop(self, timeout: float = 10.0) -> None:
        """Ask it to end, kill it after ``timeout`` seconds; nothing happens where it does not run."""
        raise NotImplementedError

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        raise NotImplementedError
