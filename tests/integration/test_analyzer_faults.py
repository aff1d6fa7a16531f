"""Analyzers as processes, stopped, killed and shuffled, and a database that goes away: counts stay exact."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from deploy.local.postgres import EmbeddedPostgres
from deploy.local.program import free_port
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Record
from libs.common.contracts.topics import CUSTOMER_EVENTS, CUSTOMER_MODELS
from libs.common.runtime import running
from services.analyzer.app import create_service
from services.analyzer.rebuild.run import rebuild
from services.analyzer.rebuild.workers import Plan
from services.analyzer.settings import AnalyzerSettings
from tests.freezing import freeze, thaw
from tests.integration.test_analyzer_loop import Platform, many, platform

__all__ = ["platform"]
pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]


@asynccontextmanager
async def process(platform: Platform, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """An analyzer as a process of its own; killed at the end, whatever state it is in."""
    port = free_port()
    environment = {
        **os.environ,
        "CLOSEDLOOP_DATA_DIR": str(folder),
        "CLOSEDLOOP_KAFKA": platform.broker.address,
        "CLOSEDLOOP_POSTGRES": platform.postgres.address,
        "CLOSEDLOOP_ANALYZER_PORT": str(port),
    }
    with (folder / f"analyzer-{time.monotonic_ns()}.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.analyzer", env=environment, stdout=log, stderr=log
        )
        try:
            await _ready(port)
            yield child
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()


async def _ready(port: int) -> None:
    async with httpx.AsyncClient() as http:
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise AssertionError("the analyzer does not get ready")


async def rebuilds_the_same(platform: Platform) -> None:
    outcome = await rebuild(Plan(postgres=platform.postgres.address, kafka=platform.broker.address))
    assert outcome.live == outcome.rebuilt


async def last_is_newest(platform: Platform) -> int:
    """What compaction would leave of ``customer-models``: for each key the last record has the highest
    revision. Returns how many keys there are."""
    bus = KafkaBus(platform.broker.address)
    reader = bus.reader(CUSTOMER_MODELS)
    await reader.start({})
    last: dict[bytes, int] = {}
    highest: dict[bytes, int] = {}
    quiet, deadline = 0, time.monotonic() + 20
    while quiet < 5 and time.monotonic() < deadline:
        polled = await reader.poll(1_000, 0.2)
        quiet = 0 if polled else quiet + bool(last)
        for message in (m for messages in polled.values() for m in messages):
            revision = message.header("revision")
            if revision is not None:
                last[message.key] = int(revision)
                highest[message.key] = max(highest.get(message.key, 0), int(revision))
    await reader.close()
    await bus.close()
    assert last == highest
    return len(last)


async def test_zombie_commits_nothing_and_publishes_nothing_that_wins(
    platform: Platform, tmp_path: Path
) -> None:
    """Stopped for longer than its session lasts, in the middle of work, it finds a heir when it wakes up."""
    async with process(platform, tmp_path) as zombie:
        await platform.post(*many("a", 300))
        await platform.settled(300)
        async with process(platform, tmp_path):
            sent = 300
            for wave in range(3):
                await platform.post(*many(f"b{wave}", 400))
                sent += 400
                await asyncio.sleep(0.05 * wave)
                freeze(zombie.pid)
                await platform.post(*many(f"c{wave}", 100))
                sent += 100
                await platform.settled(sent)
                thaw(zombie.pid)
                await platform.post(*many(f"d{wave}", 200))
                sent += 200
            await platform.settled(sent)
            await asyncio.sleep(3)
            assert zombie.returncode is None
            assert await last_is_newest(platform) == 100
            await platform.settled(sent)
    await rebuilds_the_same(platform)


@pytest.mark.parametrize("members", [1, 2, 4])
async def test_rebalances_lose_and_double_nothing(platform: Platform, members: int) -> None:
    """Members come and go every second while events flow."""
    sent = 0
    async with AsyncExitStack() as stack:
        for n in range(members):
            await stack.enter_async_context(running(platform.analyzer(f"member-{n}")))
        for wave in range(4):
            async with running(platform.analyzer(f"guest-{wave}")):
                for part in range(4):
                    events = many(f"{wave}-{part}", 60)
                    await platform.post(*events, *events[:5])
                    sent += 60
                    await asyncio.sleep(0.25)
        ledger = await platform.settled(sent)
        for _ in range(100):
            if ledger.duplicate == 4 * 4 * 5:
                break
            await asyncio.sleep(0.05)
            ledger = await platform.ledger()
        assert (ledger.applied, ledger.duplicate, ledger.gaps) == (sent, 80, 0)
        assert await last_is_newest(platform) == 100
    await rebuilds_the_same(platform)


async def test_database_away_at_start_and_in_the_middle(platform: Platform, tmp_path: Path) -> None:
    """Stopped, killed and hanging: the analyzer waits, and goes on where it was."""
    server = EmbeddedPostgres(tmp_path / "own")
    away = Platform(tmp_path, platform.broker, server)
    # Its database is there from the beginning: one that is missing is no fault that passes.
    await server.start(60)
    await server.stop()
    async with running(away.analyzer("only")) as service:
        await away.post(*many("a", 100))
        await asyncio.sleep(0.5)
        assert "away" in service.app.lifecycle.report()[1]["checks"]["journal"]
        await server.start(60)
        try:
            async with asyncio.timeout(40):
                while not service.app.lifecycle.report()[0]:
                    await asyncio.sleep(0.05)
            await away.settled(100)
            await away.post(*many("b", 200))
            await server.kill()
            await away.post(*many("c", 100))
            await asyncio.sleep(1)
            await server.start(60)
            await away.settled(400)
            assert server.pid is not None
            freeze(server.pid)
            await away.post(*many("d", 100))
            await asyncio.sleep(2)
            thaw(server.pid)
            await away.settled(500)
            await server.stop()
            await away.post(*many("e", 100))
            await server.start(60)
            await away.settled(600)
            await rebuilds_the_same(away)
        finally:
            await server.stop()


async def test_burst_of_poison_stops_consuming_and_says_so(platform: Platform, tmp_path: Path) -> None:
    settings = AnalyzerSettings(
        data_dir=tmp_path, kafka=platform.broker.address, postgres=platform.postgres.address
    )
    service = create_service(settings, bus=KafkaBus(platform.broker.address, client_id="only"))
    async with running(service):
        await platform.post(*many("a", 50))
        await platform.settled(50)
        bus = KafkaBus(platform.broker.address)
        headers = (("schema", b"customer-event/1"),)
        await bus.producer().send(CUSTOMER_EVENTS, 3, [Record(b"k", b"{", headers)] * 3_000)
        await bus.close()
        deadline = time.monotonic() + 30
        while service.app.lifecycle.report()[0] and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        ready, report = service.app.lifecycle.report()
        assert not ready
        assert "cannot be processed" in report["checks"]["journal"]
        buried = (await platform.ledger()).dead_lettered
        assert buried < 1_000
        await asyncio.sleep(1)
        assert (await platform.ledger()).dead_lettered == buried
