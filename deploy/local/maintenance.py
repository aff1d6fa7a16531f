"""Commands that look into the platform's database: dead letters, and the rebuild of all customer models."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from deploy.local.running import running_platform
from libs.common.errors import ClosedloopError, Misconfigured

_DEAD_LETTERS = """
    SELECT journal_time, partition, log_offset, source, code, reason, key
    FROM analyzer.dead_letters ORDER BY journal_time DESC, partition, log_offset DESC LIMIT $1
"""


def dead_letter_lines(data_dir: Path, limit: int) -> list[str]:
    """A line for each dead letter, newest first."""
    return asyncio.run(_dead_letter_lines(running_platform(data_dir).postgres, limit))


async def _dead_letter_lines(url: str, limit: int) -> list[str]:
    import asyncpg

    try:
        connection = await asyncpg.connect(url, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        raise Misconfigured(
            "PostgreSQL does not answer: see logs/postgres.log in the data directory"
        ) from None
    try:
        rows = await connection.fetch(_DEAD_LETTERS, limit)
    finally:
        await connection.close()
    return [
        f"{moment(row['journal_time'])}  partition {row['partition']} offset {row['log_offset']}  "
        f"{row['source'] or 'unknown source'}  {bytes(row['key']).decode('utf-8', 'replace')}  "
        f"{row['code']}: {row['reason']}"
        for row in rows
    ]


def moment(millis: int) -> str:
    """Milliseconds as a readable time in UTC."""
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


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
