"""Commands for whoever looks after a platform: dead letters, and the rebuild of all customer models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from deploy.local.client import PlatformClient
from deploy.local.running import running_platform
from libs.common.errors import ClosedloopError


def dead_letter_lines(data_dir: Path, limit: int, **which: str | int | None) -> list[str]:
    """A line for each dead letter, newest first; ``which`` are filters of the API, None where not given."""
    query = urlencode({"limit": limit, **{name: value for name, value in which.items() if value is not None}})
    with PlatformClient(data_dir) as client:
        letters = client.get("analyzer", f"/v1/dead-letters?{query}")["dead_letters"]
    return [
        f"{letter['id']}  {letter['journal_time']}  partition {letter['partition']}"
        f" offset {letter['offset']}  {letter['source'] or 'unknown source'}"
        f"  {letter['code']}: {letter['reason']}{_state(letter)}"
        for letter in letters
    ]


def _state(letter: dict[str, Any]) -> str:
    if letter["replayed_at"] is not None:
        return "  (replayed)"
    return "  (asked to be replayed)" if letter["asked"] else ""


def dead_letter(data_dir: Path, id_: int) -> dict[str, Any]:
    """One dead letter with its content."""
    with PlatformClient(data_dir) as client:
        return dict(client.get("analyzer", f"/v1/dead-letters/{id_}"))


def replay_dead_letters(data_dir: Path, **which: str | int | None) -> int:
    """Have dead letters taken again; how many."""
    body = json.dumps({name: value for name, value in which.items() if value is not None}).encode()
    with PlatformClient(data_dir) as client:
        return int(client.post("analyzer", "/v1/dead-letters/replay", body)["asked"])


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
