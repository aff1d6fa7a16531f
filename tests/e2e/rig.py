"""Runs `closedloop up` for real, on free ports and temporary directories, and talks to it over HTTP."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

ROOT = Path(__file__).parents[2]
READY = "closedloop is ready"
START_SECONDS = 60.0
STOP_SECONDS = 20.0


def free_base() -> int:
    """A port after which five are free."""
    for base in range(21_000 + os.getpid() % 9_000, 60_000, 10):
        with_ports = []
        try:
            for port in range(base + 1, base + 6):
                probe = socket.socket()
                with_ports.append(probe)
                probe.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
        finally:
            for probe in with_ports:
                probe.close()
    raise AssertionError("no five free ports in a row")


def closedloop(*arguments: str, seconds: float = 90.0) -> subprocess.CompletedProcess[str]:
    """Run a command of closedloop to its end."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.local.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


class Up:
    """One `closedloop up`, from its start to its end."""

    def __init__(self, *arguments: str) -> None:
        self.base = free_base()
        self.output = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local.cli", "up", "--port-base", str(self.base), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, seconds: float = START_SECONDS) -> Up:
        """Read what it prints until it says that it is ready."""
        began = time.monotonic()
        while READY not in self.output.splitlines():
            assert self._read(0.2), f"up ended: {self.output}"
            assert time.monotonic() < began + seconds, self.output
        self.seconds = time.monotonic() - began
        self.client = httpx.Client(
            headers={"Authorization": f"Bearer {self.printed('key')}"}, timeout=15, trust_env=False
        )
        return self

    def printed(self, name: str) -> str:
        """A value of the lines before ready."""
        return next(line.split()[1] for line in self.output.splitlines() if line.startswith(name + " "))

    @property
    def data_dir(self) -> Path:
        return Path(self.printed("data"))

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode((self.data_dir / "platform.json").read_bytes())
        return found

    def pid_of(self, name: str) -> int:
        """The process id of a part of the platform at this moment."""
        return int(self.record["processes"][name]["pid"])

    def url(self, service: str) -> str:
        offsets = {"collector": 1, "analyzer": 2, "recommender": 3, "feedback": 4, "learner": 5}
        return f"http://127.0.0.1:{self.base + offsets[service]}"

    def get(self, service: str, path: str) -> httpx.Response:
        return self.client.get(self.url(service) + path)

    def post(self, service: str, path: str, body: Any) -> httpx.Response:
        return self.client.post(self.url(service) + path, content=msgspec.json.encode(body), headers=JSON)

    def put(self, service: str, path: str, body: Any) -> httpx.Response:
        return self.client.put(self.url(service) + path, content=msgspec.json.encode(body), headers=JSON)

    def kill(self, name: str) -> None:
        """kill -9 of one process; returns when another has taken its place and answers."""
        before = self.pid_of(name)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self.record["processes"].get(name, {}).get("pid") not in (None, before), 5.0)

    def ready(self, service: str) -> bool:
        try:
            return self.client.get(self.url(service) + "/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """Ctrl-C; the exit status, and no later than promised."""
        children = psutil.Process(self.pid).children(recursive=True) if self._process.poll() is None else []
        self._process.send_signal(signal.SIGINT)
        try:
            self._drain(STOP_SECONDS)
            status = self._process.wait(STOP_SECONDS)
        finally:
            self.close()
        assert not [child for child in children if alive(child)], "a process outlived its platform"
        return status

    def wait(self, seconds: float) -> int:
        """Wait until it ends by itself."""
        self._drain(seconds)
        return self._process.wait(seconds)

    def murder(self) -> list[psutil.Process]:
        """kill -9 of `up` itself; what it had started."""
        children = psutil.Process(self.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        self.close()
        return children

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if hasattr(self, "client"):
            self.client.close()

    def _drain(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._read(0.2):
            assert time.monotonic() < deadline, self.output

    def _read(self, seconds: float) -> bool:
        assert self._process.stdout is not None
        there, _, _ = select.select([self._process.stdout], [], [], seconds)
        if not there:
            return True
        chunk = os.read(self._process.stdout.fileno(), 65_536)
        self.output += chunk.decode()
        return bool(chunk)


JSON = {"Content-Type": "application/json"}


def alive(process: psutil.Process) -> bool:
    """Whether a process still runs."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Ask until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
