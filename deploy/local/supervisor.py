"""Keeps processes running: starts them, starts them again, gives up loudly, stops them in turn."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import pwd
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy.local.program import Command
from libs.common.errors import ClosedloopError

RESTARTS_WITHIN = 60.0
RESTARTS_ALLOWED = 2
PAUSE_BEFORE_RESTART = 0.2
TAIL_BYTES = 4_000
ROTATE_BYTES = 20_000_000
_PR_SET_PDEATHSIG = 1


class GaveUp(ClosedloopError):
    """A process died three times within a minute: the platform cannot run like this."""

    def __init__(self, name: str, how: str, log: Path) -> None:
        super().__init__(f"{name} died three times within a minute ({how}); its log is {log}")
        self.name = name
        self.log = log

    def tail(self) -> str:
        """The last lines the process wrote."""
        return tail_of(self.log)


@dataclass(frozen=True)
class Supervised:
    """One process to keep running.

    Parameters
    ----------
    command:
        Makes the command line; asked again before every start, because some programs must not be
        started twice with the same one (the embedded broker gets a fresh cluster id).
    stop_signal, stop_seconds:
        How to ask it to end, and how long it may take before it is killed.
    death_signal:
        What it gets from the kernel when this very process vanishes (Linux).
    """

    name: str
    command: Callable[[], Command]
    log: Path
    cwd: Path | None = None
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 10.0
    death_signal: int = signal.SIGKILL


class RestartLimit:
    """Counts deaths: more than ``allowed`` within ``within`` seconds are too many."""

    def __init__(self, allowed: int = RESTARTS_ALLOWED, within: float = RESTARTS_WITHIN) -> None:
        self._allowed = allowed
        self._within = within
        self._deaths: deque[float] = deque(maxlen=allowed + 1)

    def died(self, at: float) -> bool:
        """Note a death at ``at`` (seconds, monotonic); whether that was one too many."""
        self._deaths.append(at)
        return len(self._deaths) > self._allowed and at - self._deaths[0] <= self._within


@dataclass
class _Running:
    program: Supervised
    process: asyncio.subprocess.Process
    limit: RestartLimit
    watcher: asyncio.Task[None] | None = None
    stopping: bool = False
    replacing: bool = False


class Supervisor:
    """Runs programs until told to stop.

    Parameters
    ----------
    say:
        Hears one line for each thing a person should know of.
    changed:
        Called whenever a process was started or ended, so that the record of pids can be kept.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._changed = changed
        self._monotonic = monotonic
        self._running: dict[str, _Running] = {}
        self._failure: asyncio.Future[GaveUp] = asyncio.get_running_loop().create_future()

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each program that is alive now."""
        return {
            name: running.process.pid
            for name, running in self._running.items()
            if running.process.returncode is None
        }

    async def start(self, program: Supervised) -> None:
        """Start ``program`` and keep it running from now on."""
        process = await _spawn(program)
        running = _Running(program, process, RestartLimit())
        self._running[program.name] = running
        running.watcher = asyncio.create_task(self._watch(running), name=f"watch {program.name}")
        self._changed()

    async def failure(self) -> GaveUp:
        """Wait until a program has died too often; says which. Never returns on a healthy platform."""
        return await asyncio.shield(self._failure)

    def replace(self, name: str) -> None:
        """Kill ``name`` and start it again at once; that does not count as a death."""
        running = self._running.get(name)
        if running is not None and not running.stopping and running.process.returncode is None:
            running.replacing = True
            _signal(running.process, signal.SIGKILL)

    async def stop(self, *names: str) -> None:
        """Ask the programs called ``names`` to end, all at once, and kill what does not listen."""
        chosen = [self._running[name] for name in names if name in self._running]
        for running in chosen:
            running.stopping = True
        await asyncio.gather(*(self._end(running) for running in chosen))
        for running in chosen:
            self._running.pop(running.program.name, None)
        self._changed()

    async def stop_all(self) -> None:
        """Stop whatever still runs."""
        await self.stop(*self._running)

    async def _watch(self, running: _Running) -> None:
        name = running.program.name
        while True:
            how = describe_exit(await running.process.wait())
            if running.stopping:
                return
            if not running.replacing:
                if running.limit.died(self._monotonic()):
                    if not self._failure.done():
                        self._failure.set_result(GaveUp(name, how, running.program.log))
                    return
                self._say(f"{name} died ({how}): starting it again")
                await asyncio.sleep(PAUSE_BEFORE_RESTART)
                if running.stopping:
                    return
            try:
                running.process = await _spawn(running.program)
            except (OSError, ClosedloopError) as error:
                if not self._failure.done():
                    self._failure.set_result(GaveUp(name, str(error), running.program.log))
                return
            running.replacing = False
            self._changed()

    async def _end(self, running: _Running) -> None:
        # Trap: look at the process only after each await, the watcher may just have put a new one there.
        deadline = self._monotonic() + running.program.stop_seconds
        _signal(running.process, running.program.stop_signal)
        while running.process.returncode is None and self._monotonic() < deadline:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(running.process.wait(), deadline - self._monotonic())
        if running.process.returncode is None:
            self._say(
                f"{running.program.name} did not stop in {running.program.stop_seconds:g} s: killing it"
            )
            _signal(running.process, signal.SIGKILL)
            await running.process.wait()
        if running.watcher is not None:
            running.watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running.watcher
        # The watcher may have been between two lives when it was told to stop.
        _signal(running.process, signal.SIGKILL)


async def _spawn(program: Supervised) -> asyncio.subprocess.Process:
    program.log.parent.mkdir(parents=True, exist_ok=True)
    _rotate(program.log)
    command = program.command()
    with program.log.open("ab") as log:
        # Trap: the death signal is tied to the *thread* that forks, so this must be the main thread,
        # never an executor's.
        return await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **command.env},
            cwd=program.cwd,
            user=command.user,
            group=_group_of(command.user),
            extra_groups=None if command.user is None else [],
            start_new_session=True,
            preexec_fn=die_with_parent(program.death_signal),
        )


def _group_of(user: str | None) -> int | None:
    return None if user is None else pwd.getpwnam(user).pw_gid


def die_with_parent(death_signal: int) -> Callable[[], None] | None:
    """What a child does between fork and exec so that it does not outlive us; None where there is no way.

    On systems other than Linux leftovers are found by their pids at the next start.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return partial(_set_death_signal, prctl, death_signal, os.getpid())


def _set_death_signal(prctl: Callable[..., int], death_signal: int, parent: int) -> None:
    # Trap: a change of user clears the setting, so this must run after it; preexec_fn does.
    prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _signal(process: asyncio.subprocess.Process, which: int) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(which)


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > ROTATE_BYTES:
        log.replace(log.with_suffix(log.suffix + ".1"))


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def tail_of(log: Path, limit: int = TAIL_BYTES) -> str:
    """The last lines of ``log``, at most ``limit`` bytes."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(0, size - limit))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return text if size <= limit else text.partition("\n")[2]
