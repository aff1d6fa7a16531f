"""A process that hangs: stopped, and known to be stopped before a test goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def freeze(pid: int, within: float = 10.0) -> None:
    """SIGSTOP, and wait until no thread of it runs: ``kill`` returns before the others have heard of it.

    Raises:
        TimeoutError: a thread still runs after ``within`` seconds.
        ProcessLookupError: there is no such process.
    """
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + within
    while not all(_rests(task) for task in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > end:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(0.001)


def thaw(pid: int) -> None:
    """SIGCONT."""
    os.kill(pid, signal.SIGCONT)


def _rests(task: Path) -> bool:
    """Whether this thread is stopped or has ended."""
    try:
        state = (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "TtZX"
