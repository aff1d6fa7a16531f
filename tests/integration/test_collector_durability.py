"""Real processes, a spool on disk, a broker that comes late: what was answered with 202 is never lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.broker import EmbeddedBroker
from deploy.local.program import free_port
from libs.common.bus.kafka import KafkaBus
from libs.common.contracts.customer_event import Outcome, Tick, Touchpoint, decode_event
from libs.common.contracts.topics import CUSTOMER_EVENTS, TOPICS
from libs.common.journal import origin_of
from libs.common.position import Position

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).parents[2]
KEY = {"authorization": "Bearer dev-key"}


class Process:
    """A service as its own process, and a caller."""

    def __init__(self, name: str, data_dir: Path, kafka: str, **env: str) -> None:
        self.name = name
        self.port = free_port()
        self.env = {
            "CLOSEDLOOP_DATA_DIR": str(data_dir),
            "CLOSEDLOOP_KAFKA": kafka,
            "CLOSEDLOOP_DEV_KEY": "dev-key",
            f"CLOSEDLOOP_{name.upper()}_PORT": str(self.port),
            **env,
        }
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=KEY, timeout=10)
        self.process: asyncio.subprocess.Process | None = None

    async def spawn(self) -> asyncio.subprocess.Process:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOSEDLOOP_")}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"services.{self.name}",
            cwd=ROOT,
            env={**clean, **self.env},
            stderr=asyncio.subprocess.PIPE,
        )
        return self.process

    async def start(self) -> None:
        """Spawn, and wait until it says it is ready."""
        await self.spawn()
        deadline = time.monotonic() + 45
        while True:
            try:
                if (await self.http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "not ready in time"
            await asyncio.sleep(0.05)

    async def end(self, how: signal.Signals) -> tuple[int, str]:
        """Send a signal, wait; exit status and what was logged."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        _, logged = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, logged.decode()


@asynccontextmanager
async def process(name: str, data_dir: Path, kafka: str, **env: str) -> AsyncIterator[Process]:
    one = Process(name, data_dir, kafka, **env)
    try:
        yield one
    finally:
        if one.process is not None and one.process.returncode is None:
            await one.end(signal.SIGKILL)
        await one.http.aclose()


def visit(number: int) -> dict[str, Any]:
    return {
        "id": f"i{number}",
        "type": "visit_completed",
        "channel": "store",
        "customer_id": f"c{number % 50}",
    }


async def journal(address: str, enough: Callable[[list[Any]], bool]) -> list[tuple[int, Any]]:
    """Read the journal from its start until ``enough``: the events with their sequence numbers checked."""
    bus = KafkaBus(address)
    found: list[tuple[int, Any]] = []
    seen: dict[tuple[int, str], int] = {}
    reader = bus.reader(CUSTOMER_EVENTS)
    try:
        await bus.ensure_topics(TOPICS)
        await reader.start({})
        deadline = time.monotonic() + 30
        while not enough([event for _, event in found]):
            assert time.monotonic() < deadline, f"only {len(found)} records arrived"
            for partition, messages in (await reader.poll(1_000, 0.5)).items():
                for message in messages:
                    origin = origin_of(message)
                    assert origin is not None
                    # In order; what was sent twice is repeated, never left out.
                    last = seen.get((partition, origin.spool), 0)
                    assert origin.seq <= last + 1
                    seen[partition, origin.spool] = max(last, origin.seq)
                    found.append((partition, decode_event(message.value or b"")))
    finally:
        await reader.close()
        await bus.close()
    return found


def ids(events: list[Any]) -> set[str]:
    return {event.id for event in events if isinstance(event, Touchpoint | Outcome)}


async def test_events_survive_a_kill_and_reach_a_broker_that_comes_late(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "broker")
    await asyncio.to_thread(broker.prepare)
    async with process("collector", tmp_path / "data", broker.address) as collector:
        await collector.start()
        for number in range(20):
            answer = await collector.http.post("/v1/touchpoints", json=visit(number))
            assert answer.status_code == 202
        lines = "\n".join(json.dumps(visit(number)) for number in range(20, 320))
        headers = {"content-type": "application/x-ndjson", "closedloop-durability": "bus"}
        answer = await collector.http.post("/v1/touchpoints", content=lines, headers=headers)
        assert (answer.status_code, answer.json()["durability"]) == (202, "spool")
        before = Position.decode(answer.json()["position"])
        await collector.end(signal.SIGKILL)

        await collector.start()
        answer = await collector.http.post("/v1/touchpoints", json=visit(320))
        assert answer.status_code == 202
        after = Position.decode(answer.json()["position"])
        assert after.spool == before.spool
        assert before.covered_by(after.heads)
        await broker.start()
        try:
            events = await journal(broker.address, lambda seen: len(ids(seen)) >= 321)
            assert ids([event for _, event in events]) == {f"i{number}" for number in range(321)}
            status, _ = await collector.end(signal.SIGTERM)
            assert status == 0
        finally:
            await broker.stop()


async def test_everything_answered_before_a_kill_in_full_swing_is_there(
    tmp_path: Path, embedded_broker: EmbeddedBroker
) -> None:
    prefix = tmp_path.name
    accepted: set[str] = set()
    async with process("collector", tmp_path / "data", embedded_broker.address) as collector:
        await collector.start()

        async def caller(lane: int) -> None:
            for number in range(10_000):
                item = {**visit(number), "id": f"{prefix}-{lane}-{number}"}
                try:
                    answer = await collector.http.post("/v1/touchpoints", json=item)
                except httpx.TransportError:
                    return
                assert answer.status_code == 202
                accepted.add(item["id"])

        callers = [asyncio.create_task(caller(lane)) for lane in range(8)]
        while len(accepted) < 150:
            await asyncio.sleep(0.01)
        await collector.end(signal.SIGKILL)
        await asyncio.gather(*callers)
        await collector.start()
        events = await journal(embedded_broker.address, lambda seen: accepted <= ids(seen))
        assert accepted <= ids([event for _, event in events])
        await collector.end(signal.SIGTERM)


def ticks(events: list[Any]) -> list[int]:
    """Times of the ticks of one partition, each once: with nobody to apply them, the first is sent again to
    find out whether it was lost."""
    return sorted({event.recorded_at for event in events if isinstance(event, Tick) and event.partition == 3})


async def test_ticks_do_not_pile_up_while_the_broker_is_away(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "broker")
    await asyncio.to_thread(broker.prepare)
    async with process("collector", tmp_path / "data", broker.address) as collector:
        await collector.start()
        await asyncio.sleep(4)
        await broker.start()
        try:
            events = await journal(broker.address, lambda seen: len(ticks(seen)) >= 2)
            first = ticks([event for _, event in events])
            assert first[1] - first[0] > 2_000
            await collector.end(signal.SIGTERM)
        finally:
            await broker.stop()


async def test_journal_clock_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    async with process(
        "collector", tmp_path, f"127.0.0.1:{free_port()}", CLOSEDLOOP_CLOCK="journal"
    ) as collector:
        await collector.start()
        answer = await collector.http.post(
            "/v1/touchpoints", json={**visit(1), "occurred_at": "2017-03-01T10:00:00Z"}
        )
        assert answer.status_code == 202
        await collector.end(signal.SIGKILL)
        await collector.start()
        # 500 days on is a leap for who remembers, and the first event for who does not.
        leap = {**visit(2), "occurred_at": "2018-07-14T10:00:00Z"}
        answer = await collector.http.post("/v1/touchpoints", json=leap)
        assert answer.status_code == 202
        status, _ = await collector.end(signal.SIGTERM)
        assert status == 0
    (spool,) = (tmp_path / "collector").glob("spool-*.sqlite")
    blob = b"".join(
        path.read_bytes() for path in (tmp_path / "collector").iterdir() if path.name.startswith(spool.name)
    )
    assert b"out_of_window" in blob
    assert sqlite3.connect(spool).execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("name", ["collector", "feedback"])
async def test_service_starts_accepts_and_stops_without_a_broker(tmp_path: Path, name: str) -> None:
    async with process(name, tmp_path, f"127.0.0.1:{free_port()}") as service:
        await service.start()
        if name == "collector":
            answer = await service.http.post("/v1/touchpoints", json=visit(1))
        else:
            outcome = {"decision_id": "d", "offer_id": "o", "customer_id": "c", "outcome": "clicked"}
            answer = await service.http.post("/v1/outcomes", json=outcome)
        assert answer.status_code == 202
        ready = (await service.http.get("/readyz")).json()
        assert "not acknowledged" in ready["notes"]["bus"]
        begin = time.monotonic()
        status, logged = await service.end(signal.SIGTERM)
        assert (status, time.monotonic() - begin < 15) == (0, True)
        assert "dev-key" not in logged


async def test_outcomes_survive_a_kill(tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    async with process("feedback", tmp_path, f"127.0.0.1:{free_port()}") as feedback:
        await feedback.start()
        decision = tmp_path.name
        outcome = {"decision_id": decision, "offer_id": "o", "customer_id": "c", "outcome": "clicked"}
        assert (await feedback.http.post("/v1/outcomes", json=outcome)).status_code == 202
        await feedback.end(signal.SIGKILL)
    async with process("feedback", tmp_path, embedded_broker.address) as feedback:
        await feedback.start()
        await journal(embedded_broker.address, lambda seen: f"{decision}/o/clicked" in ids(seen))
        await feedback.end(signal.SIGTERM)


@pytest.mark.parametrize("name", ["collector", "feedback"])
async def test_port_in_use_is_one_line_that_helps(tmp_path: Path, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        async with process(name, tmp_path, "127.0.0.1:1", **{f"CLOSEDLOOP_{name.upper()}_PORT": port}) as one:
            await one.spawn()
            status, logged = await one.end(signal.SIGCONT)
    assert status == 2
    complaint = [line for line in logged.splitlines() if not line.startswith("{")]
    assert len(complaint) == 1
    assert port in complaint[0]


@pytest.mark.parametrize("name", ["collector", "feedback"])
async def test_data_directory_that_cannot_be_used_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("not a directory")
    async with process(name, tmp_path / "file", "127.0.0.1:1") as one:
        await one.spawn()
        status, logged = await one.end(signal.SIGCONT)
    assert status == 2
    complaint = [line for line in logged.splitlines() if not line.startswith("{")]
    assert len(complaint) == 1, logged
    assert "Traceback" not in logged
