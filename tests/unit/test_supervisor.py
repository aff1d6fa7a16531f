"""The supervisor restarts what dies, gives up after three deaths, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deploy.local.program import Command
from deploy.local.supervisor import GaveUp, RestartLimit, Supervised, Supervisor, describe_exit, tail_of


def shell(name: str, script: str, log: Path, **more: object) -> Supervised:
    return Supervised(name, lambda: Command(("/bin/sh", "-c", script), {}), log / f"{name}.log", **more)  # type: ignore[arg-type]


async def eventually(condition: object, seconds: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.01)


def test_restart_limit_allows_two_deaths_a_minute() -> None:
    limit = RestartLimit()
    assert [limit.died(at) for at in (0.0, 10.0, 59.0)] == [False, False, True]


def test_restart_limit_forgets_deaths_older_than_a_minute() -> None:
    limit = RestartLimit()
    assert not any(limit.died(float(at)) for at in range(0, 1000, 31))


async def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(said.append)
    await supervisor.start(shell("sleeper", "exec sleep 60", tmp_path))
    first = supervisor.pids["sleeper"]
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: supervisor.pids.get("sleeper") not in (None, first), 1.0)
    await supervisor.stop_all()
    assert supervisor.pids == {}
    assert said == ["sleeper died (SIGKILL): starting it again"]


async def test_replacing_what_is_just_dead_hides_no_death(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(said.append)
    await supervisor.start(shell("sleeper", "exec sleep 60", tmp_path))
    for lives in (1, 2):
        pid = supervisor.pids["sleeper"]
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not supervisor.pids)
        supervisor.replace("sleeper")
        await eventually(lambda before=pid: supervisor.pids.get("sleeper") not in (None, before))  # type: ignore[misc]
        assert said == ["sleeper died (SIGKILL): starting it again"] * lives
    await supervisor.stop_all()


async def test_three_deaths_within_a_minute_are_reported_with_the_log(tmp_path: Path) -> None:
    supervisor = Supervisor(lambda line: None)
    await supervisor.start(shell("broken", "echo no database >&2; exit 3", tmp_path))
    gave_up = await asyncio.wait_for(supervisor.failure(), 5)
    assert isinstance(gave_up, GaveUp)
    assert "broken died three times" in str(gave_up)
    assert gave_up.tail().count("no database") == 3
    await supervisor.stop_all()


async def test_the_command_is_made_anew_for_every_start(tmp_path: Path) -> None:
    made: list[int] = []

    def command() -> Command:
        made.append(len(made))
        return Command(("/bin/sh", "-c", "echo life $LIFE; exit 1"), {"LIFE": str(made[-1])})

    supervisor = Supervisor(lambda line: None)
    await supervisor.start(Supervised("lives", command, tmp_path / "lives.log"))
    await asyncio.wait_for(supervisor.failure(), 5)
    assert (tmp_path / "lives.log").read_text() == "life 0\nlife 1\nlife 2\n"


async def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(said.append)
    log = tmp_path / "deaf.log"
    await supervisor.start(
        shell("deaf", "trap '' TERM; echo ready; while :; do sleep 1; done", tmp_path, stop_seconds=0.2)
    )
    await eventually(lambda: "ready" in tail_of(log))
    pid = supervisor.pids["deaf"]
    await supervisor.stop("deaf")
    assert not psutil.pid_exists(pid)
    assert said == ["deaf did not stop in 0.2 s: killing it"]


async def test_a_graceful_stop_waits_for_the_end(tmp_path: Path) -> None:
    supervisor = Supervisor(lambda line: None)
    log = tmp_path / "polite.log"
    script = "trap 'sleep 0.2; echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    await supervisor.start(shell("polite", script, tmp_path))
    await eventually(lambda: "ready" in tail_of(log))
    await supervisor.stop_all()
    assert tail_of(log) == "ready\nbye\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's death signal is Linux only")
def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    script = f"""
import asyncio, pathlib
from deploy.local.program import Command
from deploy.local.supervisor import Supervised, Supervisor
async def main():
    supervisor = Supervisor(print)
    log = pathlib.Path({str(tmp_path)!r}) / "sleeper.log"
    await supervisor.start(Supervised("sleeper", lambda: Command(("sleep", "60"), dict()), log))
    print(supervisor.pids["sleeper"], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _gone, alive = psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=5)
    assert not alive


def test_exit_codes_are_described_in_words() -> None:
    assert [describe_exit(code) for code in (0, 2, -9, -99)] == [
        "exit code 0",
        "exit code 2",
        "SIGKILL",
        "signal 99",
    ]


def test_tail_begins_at_a_whole_line(tmp_path: Path) -> None:
    log = tmp_path / "long.log"
    log.write_text("".join(f"line {n}\n" for n in range(1000)))
    assert tail_of(log, 25) == "line 998\nline 999\n"
    assert tail_of(tmp_path / "missing.log") == ""
