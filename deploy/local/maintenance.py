"""Commands for whoever looks after a platform: dead letters, and the rebuild of all customer models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from deploy.local.client import PlatformClient
from deploy.local.running import running_platform
from libs.common.errors import ClosedloopError


def dead_letter_lines(data_dir: Path, limit: int) -> list[str]:
    """A line for each dead letter, newest first."""
    with PlatformClient(data_dir) as client:
        letters = client.get("analyzer", f"/v1/dead-letters?limit={limit}")["dead_letters"]
    return [
        f"{letter['journal_time']}  partition {letter['partition']} offset {letter['offset']}  "
        f"{letter['source'] or 'unknown source'}  {letter['code']}: {letter['reason']}"
        for letter in letters
    ]


class Rebuilt(Struct, frozen=True):
    """What ``services.analyzer.rebuild`` prints: digests of all customer models, and what was written."""

    live: str
    rebuilt: str
    models: int
    lessons: int
    learned: bool | None
    events: int
    refused: int


def rebuild(data_dir: Path, *, check: bool) -> Rebuilt:
    """Fold all stored events anew beside the running platform, and unless ``check`` switch to that."""
    record = running_platform(data_dir)
    environment = {
        **os.environ,
        "CLOSEDLOOP_DATA_DIR": str(data_dir.absolute()),
        "CLOSEDLOOP_KAFKA": record.kafka,
        "CLOSEDLOOP_POSTGRES": record.postgres,
        "CLOSEDLOOP_CLOCK": record.clock,
        "CLOSEDLOOP_HOLDOUT": record.holdout,
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.analyzer.rebuild", *(["--check"] if check else [])],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ClosedloopError(f"the rebuild failed: {last}")
    return msgspec.json.decode(done.stdout, type=Rebuilt)
