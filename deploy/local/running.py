"""What runs on a data directory: its record in platform.json, its lock, and what a crash has left behind."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

import msgspec
import psutil  # type: ignore[import-untyped]
from msgspec import Struct

from libs.common.errors import Misconfigured
from libs.common.settings import CommonSettings, load_settings

FILE = "platform.json"
LOCK = "platform.lock"
URLS = "CLOSEDLOOP_URLS"
"""Where the services are, for commands that work on a platform which others keep running."""

SERVICES = ("collector", "analyzer", "recommender", "feedback", "learner")
_STARTED_WITHIN = 2.0


class ProcessRecord(Struct, frozen=True):
    """A process of ours: its id, and when it began, because ids are used again."""

    pid: int
    started: float


class PlatformRecord(Struct, frozen=True, kw_only=True):
    """platform.json: where everything of a running platform is.

    Parameters
    ----------
    urls:
        Base URL by service.
    processes:
        Every process by name; ``up`` is the one that supervises.
    ready:
        Whether all services were ready once.
    broker_recycled:
        How often the embedded broker was replaced because it had grown too large.
    """

    clock: str
    urls: dict[str, str]
    kafka: str
    postgres: str
    processes: dict[str, ProcessRecord]
    ready: bool = False
    holdout: str = ""
    broker_recycled: int = 0

    @property
    def alive(self) -> bool:
        """Whether the supervising process lives."""
        up = self.processes.get("up")
        return up is not None and _find(up) is not None


def process_record(pid: int) -> ProcessRecord | None:
    """The record of a process that runs now."""
    try:
        return ProcessRecord(pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def read_record(data_dir: Path) -> PlatformRecord | None:
    """What platform.json says, whether or not it still runs; None where there is none to be read."""
    try:
        return msgspec.json.decode((data_dir / FILE).read_bytes(), type=PlatformRecord)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
    except OSError as error:
        raise unreadable(data_dir, error) from None


def running_platform(data_dir: Path) -> PlatformRecord:
    """The platform that runs on ``data_dir``, or that ``CLOSEDLOOP_URLS`` names.

    Raises `Misconfigured` where none does.
    """
    record = elsewhere()
    if record is not None:
        return record
    record = read_record(data_dir)
    if record is None or not record.alive:
        raise Misconfigured(
            f"no platform is running on {data_dir}: start one with  closedloop up --data-dir {data_dir}"
        )
    return record


def elsewhere() -> PlatformRecord | None:
    """A platform that others keep running, in containers or on other hosts; None where none is named.

    ``CLOSEDLOOP_URLS`` is ``collector=URL,analyzer=URL,…``; the rest are the settings that services have too.
    """
    named = os.environ.get(URLS)
    if named is None:
        return None
    pairs = (pair.strip().partition("=") for pair in named.split(",") if pair.strip())
    urls = {name.strip(): url.strip().rstrip("/") for name, _, url in pairs}
    if set(urls) - set(SERVICES) or not all(url.startswith(("http://", "https://")) for url in urls.values()):
        raise Misconfigured(f"{URLS}: write  collector=http://HOST:8001,analyzer=http://HOST:8002, and so on")
    settings = load_settings(CommonSettings)
    return PlatformRecord(
        clock=settings.clock,
        urls=urls,
        kafka=settings.kafka,
        postgres=settings.postgres.get_secret_value(),
        processes={},
        ready=True,
        holdout=",".join(map(str, settings.holdout)),
    )


def write_record(data_dir: Path, record: PlatformRecord) -> None:
    """Replace platform.json at once, readable by the owner alone (it holds the database's password)."""
    handle, name = tempfile.mkstemp(dir=data_dir, prefix=".platform-")
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=2))
    Path(name).replace(data_dir / FILE)


def forget_record(data_dir: Path) -> None:
    """Remove platform.json: nothing runs any more."""
    (data_dir / FILE).unlink(missing_ok=True)


def unreadable(data_dir: Path, error: OSError) -> Misconfigured:
    """The one line for a data directory that cannot be used."""
    return Misconfigured(
        f"the data directory {data_dir} cannot be used ({error.strerror}): "
        "give yourself access to it or choose another with --data-dir"
    )


def claim(data_dir: Path) -> IO[bytes]:
    """Make the data directory and lock it for as long as the returned file is open."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / LOCK).open("ab")
    except OSError as error:
        raise unreadable(data_dir, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise Misconfigured(
            f"a platform is already running on {data_dir}: stop it first or choose another --data-dir"
        ) from None
    return lock


def stop_leftovers(data_dir: Path, seconds: float = 10.0) -> list[str]:
    """End what a killed platform has left running on this data directory; return the names.

    Only processes of platform.json that began when it says they did: anything else with such an id is
    somebody else's.
    """
    record = read_record(data_dir)
    if record is None:
        return []
    found = {
        name: process
        for name, known in record.processes.items()
        if name != "up" and (process := _find(known)) is not None
    }
    for process in found.values():
        _end(process.terminate)
    _, deaf = psutil.wait_procs(list(found.values()), timeout=seconds)
    for process in deaf:
        _end(process.kill)
    psutil.wait_procs(deaf, timeout=seconds)
    return sorted(found)


def check_ports(ports: dict[str, int]) -> None:
    """Raise `Misconfigured` where one of the ports is taken."""
    for name, port in ports.items():
        if not port_is_free(port):
            raise Misconfigured(
                f"port {port} ({name}) is in use: stop what listens there or choose another --port-base"
            )


def port_is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _find(known: ProcessRecord) -> psutil.Process | None:
    try:
        process = psutil.Process(known.pid)
        if abs(process.create_time() - known.started) > _STARTED_WITHIN:
            return None
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _end(ask: object) -> None:
    assert callable(ask)
    try:
        ask()
    except psutil.NoSuchProcess:
        pass
