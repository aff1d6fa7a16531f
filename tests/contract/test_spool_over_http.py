"""What a caller hears of the spool behind a service: how safe his event is, or that there is no room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common import outlet
from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Producer, Record
from libs.common.contracts.customer_event import Tick, Touchpoint, decode_event
from libs.common.contracts.topics import CUSTOMER_EVENTS, TOPICS
from libs.common.runtime import running
from libs.common.spool.file import SpoolFile
from services.collector.app import create_service as create_collector
from services.collector.settings import CollectorSettings
from services.feedback.app import create_service as create_feedback
from services.feedback.settings import FeedbackSettings
from tests.contract.recommender_world import ask, stocked

POSTS: dict[str, tuple[str, Any]] = {
    "/v1/touchpoints": ("collector", {"type": "t_done", "channel": "web", "customer_id": "c"}),
    "/v1/identities": ("collector", {"customer_id": "c", "anonymous_id": "a"}),
    "/v1/consents": ("collector", {"customer_id": "c", "purpose": "personalisation", "granted": False}),
    "/v1/erasures": ("collector", {"customer_id": "c"}),
    "/v1/outcomes": (
        "feedback",
        {"decision_id": "d", "offer_id": "o", "customer_id": "c", "outcome": "clicked"},
    ),
}


@asynccontextmanager
async def services(
    folder: Path, bus: MemoryBus, **settings: Any
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Collector and feedback with real spools in ``folder``."""
    made = (
        create_collector(CollectorSettings(data_dir=folder, dev_key="k", **settings), bus=bus.connect()),
        create_feedback(FeedbackSettings(data_dir=folder, dev_key="k", **settings), bus=bus.connect()),
    )
    headers = {"authorization": "Bearer k"}
    async with running(made[0]), running(made[1]):
        clients = [
            httpx.AsyncClient(
                transport=httpx.ASGITransport(one.app), base_url="http://x", headers=headers, timeout=20
            )
            for one in made
        ]
        async with clients[0], clients[1]:
            yield {"collector": clients[0], "feedback": clients[1]}


class SlowProducer:
    """Acknowledges after a pause, or never."""

    def __init__(self, inner: Producer, pause: asyncio.Event) -> None:
        self._inner = inner
        self._pause = pause

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        offset = await self._inner.send(topic, partition, records)
        await self._pause.wait()
        return offset

    async def close(self) -> None:
        await self._inner.close()


class SlowBus(MemoryBus):
    """Takes everything and acknowledges once ``answering`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answering = asyncio.Event()

    def connect(self) -> SlowBus:
        other = SlowBus()
        other._broker, other.answering = self._broker, self.answering
        return other

    def producer(self, cluster: str | None = None) -> Producer:
        return SlowProducer(super().producer(cluster), self.answering)


async def post_all(
    clients: dict[str, httpx.AsyncClient], level: str | None
) -> dict[str, tuple[int, str | None, int]]:
    """Each endpoint that appends, all at once: status, durability, accepted."""
    headers = {} if level is None else {"Closedloop-Durability": level}
    answers = await asyncio.gather(
        *(clients[service].post(path, json=body, headers=headers) for path, (service, body) in POSTS.items())
    )
    return {
        path: (answer.status_code, answer.json().get("durability"), answer.json()["accepted"])
        for path, answer in zip(POSTS, answers, strict=True)
    }


async def test_every_endpoint_waits_for_the_bus_where_asked(tmp_path: Path) -> None:
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    async with services(tmp_path, bus) as clients:
        assert await post_all(clients, "bus") == dict.fromkeys(POSTS, (202, "bus", 1))
        on_the_bus = len(bus.records(CUSTOMER_EVENTS))
        assert on_the_bus >= len(POSTS)
        assert await post_all(clients, "spool") == dict.fromkeys(POSTS, (202, "spool", 1))
        assert await post_all(clients, None) == dict.fromkeys(POSTS, (202, None, 1))
        for path, (service, body) in POSTS.items():
            answer = await clients[service].post(path, json=body, headers={"Closedloop-Durability": "tape"})
            assert (answer.status_code, answer.json()["code"]) == (422, "wrong_type")


@pytest.mark.parametrize("hanging", [False, True])
async def test_bus_that_does_not_answer_in_time_costs_the_level_and_not_the_answer(
    tmp_path: Path, hanging: bool
) -> None:
    bus = SlowBus()
    await bus.ensure_topics(TOPICS)
    if not hanging:
        bus.answering.set()
        bus.go_away()
    async with services(tmp_path, bus) as clients:
        async with asyncio.timeout(10):
            assert await post_all(clients, "bus") == dict.fromkeys(POSTS, (202, "spool", 1))
        bus.answering.set()
        bus.come_back()
        assert await post_all(clients, "bus") == dict.fromkeys(POSTS, (202, "bus", 1))


async def test_nothing_is_called_compacted_while_records_wait_to_be_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet, "RELEASED_WITHIN", 0.1)
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    async with services(tmp_path, bus) as clients:
        assert await post_all(clients, "bus") == dict.fromkeys(POSTS, (202, "bus", 1))
        for service, client in clients.items():
            answer = await client.post(f"/v1/compactions/{service}")
            assert (answer.status_code, "not applied" in answer.json()["detail"]) == (503, True)


async def test_full_spool_refuses_with_503_and_goes_on_ticking(tmp_path: Path) -> None:
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    async with services(tmp_path, bus, spool_free_bytes=1 << 60) as clients:
        for path, (service, body) in POSTS.items():
            answer = await clients[service].post(path, json=[body, body])
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["code"] == "spool_full"
        for client in clients.values():
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            assert "disk" in ready.json()["checks"]["spool"]
        async with asyncio.timeout(5):
            while not bus.records(CUSTOMER_EVENTS, 11):
                await asyncio.sleep(0.01)
        events = [decode_event(message.value or b"") for message in bus.records(CUSTOMER_EVENTS)]
        assert any(isinstance(event, Tick) for event in events)
        assert not any(isinstance(event, Touchpoint) for event in events)


async def test_recommender_answers_with_a_full_spool_and_says_what_it_lacks(tmp_path: Path) -> None:
    world = await stocked(tmp_path)
    world.journal = None  # type: ignore[assignment]
    world.progress()
    async with world.up(spool_free_bytes=1 << 60) as client:
        answer = await ask(client, decision_id="mine")
        assert answer["degraded"] == ["unrecorded"]
        assert len(answer["offers"]) == 5
        assert {offer["token"] for offer in answer["offers"]} == {None}
        batch = await client.post(
            "/v1/recommendations/batch", json={"requests": [{"placement": "sure"}, {"placement": "lucky"}]}
        )
        assert [one["degraded"] for one in batch.json()["answers"]] == [answer["degraded"]] * 2
        assert (await client.get("/v1/decisions/mine")).status_code == 404
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert "disk" in ready.json()["notes"]["spool"]
    (path,) = (tmp_path / "recommender").glob("spool-*.sqlite")
    file = SpoolFile(path, 1 << 30)
    assert file.read(0, 1 << 30) == []
    assert file.local_rows(10) == []
    file.close()
