"""Processes of a world: started, killed, paused and started again by one keeper thread."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.program import Command
from deploy.local.supervisor import die_with_parent, tail_of

BEAT = 0.05
STOP_SECONDS = 20.0


@dataclass
class Role:
    """A process that should run: ``wanted`` says whether, ``not_before`` from when on (monotonic).

    ``before`` is called before each start.
    """

    name: str
    command: Callable[[], Command]
    log: Path
    stop_signal: int = signal.SIGTERM
    before: Callable[[], None] = lambda: None
    wanted: bool = True
    not_before: float = 0.0
    starts: int = 0
    began: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Keeper:
    """Starts what is wanted and dead, in one thread that lives as long as its children.

    Trap: the kernel's death signal is tied to the thread that forks; any other thread that started a
    process would take it along when it ends.
    """

    def __init__(self, restart_after: float = 0.2) -> None:
        self.roles: dict[str, Role] = {}
        self.kills: list[tuple[float, str, str]] = []
        self._restart_after = restart_after
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def add(self, role: Role) -> None:
        """Keep ``role`` running from now on."""
        with self._lock:
            self.roles[role.name] = role

    def pid(self, name: str) -> int | None:
        """The process id at this moment, None while it is dead."""
        role = self.roles[name]
        return role.process.pid if role.process is not None and role.alive else None

    def kill(self, name: str, down: float | None = None) -> bool:
        """kill -9; it is started again after ``down`` seconds. False where it was dead already."""
        with self._lock:
            role = self.roles[name]
            pause = self._restart_after if down is None else down
            role.not_before = time.monotonic() + pause
            return self._signal(role, signal.SIGKILL, f"kill, down {pause:.1f} s")

    def pause(self, name: str) -> bool:
        """SIGSTOP."""
        with self._lock:
            return self._signal(self.roles[name], signal.SIGSTOP, "stop")

    def resume(self, name: str) -> bool:
        """SIGCONT."""
        with self._lock:
            return self._signal(self.roles[name], signal.SIGCONT, "continue")

    def stop(self, name: str, seconds: float = STOP_SECONDS) -> None:
        """Ask it to end, kill it after ``seconds``; it stays down until `start`."""
        with self._lock:
            role = self.roles[name]
            role.wanted = False
            self._signal(role, signal.SIGCONT, None)
            self._signal(role, role.stop_signal, "ask to end")
        if role.process is None:
            return
        try:
            role.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._signal(role, signal.SIGKILL, "did not end: kill")
            with contextlib.suppress(subprocess.TimeoutExpired):
                role.process.wait(20)

    def start(self, name: str) -> None:
        """Want it again."""
        with self._lock:
            self.roles[name].wanted = True
            self.roles[name].not_before = 0.0

    def close(self, last: tuple[str, ...] = ()) -> None:
        """Stop everything, those named in ``last`` after all others, and end the keeper."""
        names = [name for name in self.roles if name not in last]
        with self._lock:
            for name in names:
                self.roles[name].wanted = False
                self._signal(self.roles[name], signal.SIGCONT, None)
                self._signal(self.roles[name], self.roles[name].stop_signal, None)
        for name in (*names, *(name for name in last if name in self.roles)):
            self.stop(name)
        self._ending.set()
        self._thread.join(5)

    def _signal(self, role: Role, which: int, word: str | None) -> bool:
        if role.process is None or not role.alive:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(role.process.pid, which)
        if word is not None:
            self.kills.append((time.monotonic(), role.name, word))
        return True

    def _run(self) -> None:
        while not self._ending.wait(BEAT):
            with self._lock:
                for role in self.roles.values():
                    self._look_after(role)

    def _look_after(self, role: Role) -> None:
        if not role.wanted or role.alive:
            return
        now = time.monotonic()
        if role.process is not None and role.not_before < role.began:
            role.not_before = now + self._restart_after
        if now >= role.not_before:
            role.before()
            role.began = now
            role.process = _spawn(role)
            role.starts += 1


def _spawn(role: Role) -> subprocess.Popen[bytes]:
    command = role.command()
    role.log.parent.mkdir(parents=True, exist_ok=True)
    with role.log.open("ab") as log:
        return subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **command.env},
            cwd="/" if command.user else str(Path(__file__).parents[2]),
            user=command.user,
            group=None if command.user is None else pwd.getpwnam(command.user).pw_gid,
            extra_groups=None if command.user is None else [],
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )


def tails(roles: dict[str, Role], limit: int = 1_500) -> str:
    """The last lines of all logs, for a trial that failed."""
    return "\n".join(f"--- {role.name}\n{tail_of(role.log, limit)}" for role in roles.values())
