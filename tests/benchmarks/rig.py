"""The platform under test, started as a user starts it, with the measured process alone on one core."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEY = "bench-key-0123456789"
SERVED, REST = {0}, {1}
"""Cores: what is measured, and everything else (load, broker, PostgreSQL, the other services)."""


def free_port_base() -> int:
    """A base whose following ports are free at this moment."""
    for base in range(20_000, 40_000, 100):
        try:
            for port in range(base + 1, base + 20):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError("no free ports")


@dataclass
class Rig:
    """A running platform: base of its ports and the process ids by name."""

    base: int
    pids: dict[str, int]
    data_dir: Path
    seconds_to_ready: float

    def port(self, service: str) -> int:
        """Port of a service of the contract."""
        return (
            self.base
            + {"collector": 1, "analyzer": 2, "recommender": 3, "feedback": 4, "learner": 5}[service]
        )

    def alone(self, service: str) -> None:
        """Give ``service`` the first core for itself, everything else the second."""
        for name, pid in self.pids.items():
            _place(pid, SERVED if name == service else REST)

    def everywhere(self) -> None:
        """Let everything run on both cores."""
        for pid in self.pids.values():
            _place(pid, SERVED | REST)

    def cpu_seconds(self, service: str) -> float:
        """CPU time the service has used so far."""
        fields = Path(f"/proc/{self.pids[service]}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def call(
        self, service: str, path: str, body: object = None, method: str | None = None
    ) -> dict[str, object]:
        """One JSON request, for preparation and checks."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port(service)}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
            method=method or ("GET" if body is None else "POST"),
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            data: dict[str, object] = json.load(answer)
            return data


def _place(pid: int, cores: set[int]) -> None:
    for thread in threads(pid):
        try:
            os.sched_setaffinity(thread, cores)
        except ProcessLookupError:
            continue


def threads(pid: int) -> list[int]:
    """A process, its children and all their threads (PostgreSQL forks)."""
    found: list[int] = []
    try:
        found = [int(task) for task in os.listdir(f"/proc/{pid}/task")]
        for task in list(found):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            for child in children:
                found += threads(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


@contextmanager
def platform(*options: str) -> Iterator[Rig]:
    """`closedloop up` in a temporary data directory, stopped at the end."""
    base = free_port_base()
    with tempfile.TemporaryDirectory(prefix="closedloop-bench-") as folder:
        data_dir = Path(folder) / "data"
        begin = time.perf_counter()
        process = subprocess.Popen(
            [
                # Both cores, whatever this process was given; `alone` parts them where a row asks for it.
                *("taskset", "-c", "0,1"),
                str(Path(sys.executable).with_name("closedloop")),
                "up",
                "--data-dir",
                str(data_dir),
                "--port-base",
                str(base),
                *options,
            ],
            env={**os.environ, "CLOSEDLOOP_DEV_KEY": KEY},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "closedloop is ready" in line:
                    break
            else:
                raise RuntimeError(f"closedloop up ended with {process.wait()}")
            seconds = time.perf_counter() - begin
            yield Rig(base, _pids(data_dir), data_dir, seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _pids(data_dir: Path) -> dict[str, int]:
    """Process ids by name, as `up` notes them."""
    noted = json.loads((data_dir / "platform.json").read_text())
    return {name: int(process["pid"]) for name, process in noted["processes"].items()}
