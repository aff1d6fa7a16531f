"""Commands for whoever looks after a platform: dead letters, and the rebuild of all customer models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def rebuild_and_compare(data_dir: Path) -> tuple[str, str]:
    """Digest of the live customer models, and of those folded anew from the stored events."""
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
        [sys.executable, "-m", "services.analyzer.rebuild"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    digests = dict(line.split()[:2] for line in done.stdout.splitlines() if len(line.split()) >= 2)
    if "live" not in digests or "rebuilt" not in digests:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ClosedloopError(f"the rebuild failed: {last}")
    return digests["live"], digests["rebuilt"]
