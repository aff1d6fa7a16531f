"""A real disk that is really full, below a real collector: refusals, no crash, nothing accepted is lost."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.broker import EmbeddedBroker
from tests.integration.test_collector_durability import Process, ids, journal, process

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(180)]

MB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB that holds the collector's spool, 4 MB of it taken by somebody else."""
    folder = tmp_path / "data" / "collector"
    folder.mkdir(parents=True)
    if shutil.which("mount") is None:
        pytest.skip("no mount here")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("only root may mount a small disk")
    (folder / "filler").write_bytes(bytes(4 * MB))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def note(number: int) -> dict[str, Any]:
    return {
        "id": f"i{number}",
        "type": "note_taken",
        "channel": "store",
        "customer_id": f"c{number % 50}",
        "properties": {"text": "x" * 8_000},
    }


async def post_until_refused(collector: Process, start: int, accepted: set[str]) -> None:
    """Eight callers at once, until one of them hears 503."""
    refused = asyncio.Event()

    async def caller(lane: int) -> None:
        for number in range(start + lane, start + 8_000, 8):
            if refused.is_set():
                return
            answer = await collector.http.post("/v1/touchpoints", json=note(number))
            if answer.status_code == 503:
                assert answer.json()["code"] == "spool_full"
                assert int(answer.headers["retry-after"]) >= 1
                refused.set()
                return
            assert answer.status_code == 202, answer.text
            accepted.add(f"i{number}")

    await asyncio.gather(*(caller(lane) for lane in range(8)))
    assert refused.is_set()


async def hears(collector: Process) -> int:
    """What a caller hears of a process that has just been started."""
    deadline = time.monotonic() + 45
    while True:
        try:
            answer = await collector.http.post("/v1/touchpoints", json=note(1))
            if answer.status_code == 202 or answer.json()["code"] == "spool_full":
                return answer.status_code
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def accepts_again(collector: Process, number: int) -> None:
    deadline = time.monotonic() + 45
    while (await collector.http.post("/v1/touchpoints", json=note(number))).status_code != 202:
        assert time.monotonic() < deadline, "did not recover"
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("least_free", [0, 2 * MB])
async def test_full_disk_refuses_loses_nothing_and_is_left_behind(
    tmp_path: Path, disk: Path, least_free: int
) -> None:
    """With ``least_free`` 0 the disk is met at its very end, by a commit that fails."""
    broker = EmbeddedBroker(tmp_path / "broker")
    await asyncio.to_thread(broker.prepare)
    accepted: set[str] = set()
    setting = {"CLOSEDLOOP_SPOOL_FREE_BYTES": str(least_free)}
    async with process("collector", tmp_path / "data", broker.address, **setting) as collector:
        await collector.start()
        await post_until_refused(collector, 0, accepted)
        assert len(accepted) > 300
        ready = await collector.http.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        free = shutil.disk_usage(disk).free
        assert free >= least_free // 2
        # SQLite may just have given its log back, which is moved from 4 MB on and may have 8.
        assert free < least_free + 8 * MB

        # Killed and started on the full disk it neither crashes nor forgets.
        await collector.end(signal.SIGKILL)
        await collector.spawn()
        assert await hears(collector) in (202, 503)

        (disk / "filler").unlink()
        await accepts_again(collector, 100_000)
        accepted.add("i100000")
        await post_until_refused(collector, 20_000, accepted)
        await broker.start()
        try:
            events = await journal(broker.address, lambda seen: accepted <= ids(seen))
            assert accepted <= ids([event for _, event in events])
            status, _ = await collector.end(signal.SIGTERM)
            assert status == 0
        finally:
            await broker.stop()
