"""The recommender as a process on real PostgreSQL and the embedded broker: seconds, restarts, outages."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from deploy.local.broker import EmbeddedBroker
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.program import free_port
from services.recommender.app import PostgresStores
from services.recommender.model.entries import ProductIn, product_of
from services.recommender.ports import KeptDecision

DEV = "development-key-development-key"
PRODUCT: dict[str, Any] = {
    "name": "One", "category": "a/b", "price": 10, "currency": "EUR",
}  # fmt: skip


class Recommender:
    """A recommender process, and a client for it."""

    def __init__(self, folder: Path, kafka: str, postgres: str) -> None:
        self.port = free_port()
        self.log = folder / "recommender.log"
        self.environment = os.environ | {
            "CLOSEDLOOP_DATA_DIR": str(folder / "data"),
            "CLOSEDLOOP_KAFKA": kafka,
            "CLOSEDLOOP_POSTGRES": postgres,
            "CLOSEDLOOP_DEV_KEY": DEV,
            "CLOSEDLOOP_HOLDOUT": "0,0",
            "CLOSEDLOOP_RECOMMENDER_PORT": str(self.port),
        }
        headers = {"authorization": f"Bearer {DEV}"}
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=10)
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.recommender", env=self.environment, stderr=log, stdout=log
            )
        await within(20, self._ready)

    async def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()
        try:
            return (await self.http.get("/readyz")).status_code == 200
        except httpx.HTTPError:
            return False

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        return await asyncio.wait_for(self.process.wait(), 20)

    async def ask(self, **body: Any) -> dict[str, Any]:
        response = await self.http.post("/v1/recommendations", json={"placement": "p"} | body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def offers(self, *wanted: str) -> bool:
        answer = await self.ask(limit=100, dry_run=True)
        return sorted(offer["product_id"] for offer in answer["offers"]) == sorted(wanted)

    async def put(self, product_id: str, **more: Any) -> None:
        response = await self.http.put(f"/v1/products/{product_id}", json=PRODUCT | more)
        assert response.status_code == 200, response.text


async def within(seconds: float, holds: Callable[[], Awaitable[bool]]) -> float:
    """Wait until it holds; answers how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """A broker of one's own, that a test may kill."""
    made = EmbeddedBroker(tmp_path / "broker")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def database(embedded_postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database of one's own, that nobody has migrated yet."""
    name = f"recommender_{os.urandom(6).hex()}"
    admin = await asyncpg.connect(embedded_postgres.url("postgres"))
    await admin.execute(f"create database {name}")
    yield embedded_postgres.url(name)
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture
async def recommender(tmp_path: Path, broker: EmbeddedBroker, database: str) -> AsyncIterator[Recommender]:
    made = Recommender(tmp_path, broker.address, database)
    await made.start()
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.stop(signal.SIGKILL)
    await made.http.aclose()


async def is_kept(recommender: Recommender, decision_id: str, database: str) -> bool:
    connection = await asyncpg.connect(database)
    try:
        query = "select count(*) from recommender.decisions where decision_id = $1"
        return bool(await connection.fetchval(query, decision_id))
    finally:
        await connection.close()


@pytest.mark.embedded
async def test_stored_is_served_within_a_second_and_decided_is_readable_within_two(
    recommender: Recommender, database: str
) -> None:
    await recommender.put("first")
    await within(10, lambda: recommender.offers("first"))
    for number in range(3):
        await recommender.put(f"p{number}")
        names = ["first", *(f"p{n}" for n in range(number + 1))]
        assert await within(5, lambda names=names: recommender.offers(*names)) < 1.0
    answer = await recommender.ask(customer_id="c1", decision_id="d1")
    shown = await recommender.http.get("/v1/decisions/d1")
    assert shown.status_code == 200
    assert [sum(c["propensity"] for c in slot["pool"]) for slot in shown.json()["slots"]] == pytest.approx(
        [1.0] * len(answer["offers"])
    )
    assert await within(5, lambda: is_kept(recommender, "d1", database)) < 2.0
    assert (await recommender.http.get("/v1/decisions/d1")).json() == shown.json()


@pytest.mark.embedded
async def test_killed_recommender_remembers_its_answers_and_serves_at_once(
    recommender: Recommender, database: str
) -> None:
    await recommender.put("a")
    await recommender.put("b", price=7)
    await within(10, lambda: recommender.offers("a", "b"))
    first = await recommender.ask(decision_id="d1")
    assert await recommender.stop(signal.SIGKILL) != 0
    await recommender.start()
    assert await recommender.offers("a", "b"), "from the view, before anything is read"
    assert await recommender.ask(decision_id="d1", limit=1) == first
    await within(5, lambda: is_kept(recommender, "d1", database))
    assert await recommender.stop() == 0


@pytest.mark.embedded
async def test_broker_that_comes_back_empty_gets_the_catalogue_again(
    recommender: Recommender, broker: EmbeddedBroker
) -> None:
    await recommender.put("a")
    await within(10, lambda: recommender.offers("a"))
    await broker.stop()
    assert await recommender.offers("a")
    await recommender.put("b")
    assert (await recommender.ask(decision_id="away"))["offers"], "no broker costs no answer"
    await broker.start()
    await within(15, lambda: recommender.offers("a", "b"))


@pytest.mark.embedded
async def test_views_are_served_while_the_database_is_away(
    tmp_path: Path, recommender: Recommender, broker: EmbeddedBroker
) -> None:
    await recommender.put("a")
    await within(10, lambda: recommender.offers("a"))
    await recommender.stop()
    recommender.environment["CLOSEDLOOP_POSTGRES"] = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    await recommender.start()
    assert await recommender.offers("a")
    answer = await recommender.ask(decision_id="d1")
    assert await recommender.ask(decision_id="d1") == answer
    assert (await recommender.http.get("/v1/decisions/d1")).status_code == 200, "from the spool"
    refused = await recommender.http.put("/v1/products/b", json=PRODUCT)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert (await recommender.http.get("/v1/decisions/unknown")).status_code == 503
    await broker.stop()
    assert await recommender.ask(decision_id="d1") == answer
    await recommender.stop(signal.SIGKILL)
    await recommender.start()
    assert await recommender.offers("a"), "from the view alone, broker and database away"
    assert await recommender.ask(decision_id="d1") == answer
    late = await recommender.ask(decision_id="d2")
    assert late["offers"][0]["token"], "it is recorded"


async def test_store_keeps_outbox_revisions_and_first_decisions(database: str) -> None:
    stores = PostgresStores(database)
    store = stores.catalogue
    try:
        entries = [
            (name, product_of(ProductIn(product_id=name, **PRODUCT), "EUR")) for name in ("b", "a", "b")
        ]
        await store.put("product", entries)
        assert not await store.sent(await store.outgoing(10), "one"), "no cluster has been met yet"
        assert await store.on_cluster("one")
        assert not await store.on_cluster("one")
        first = await store.outgoing(10)
        assert sorted(entry.entry_id for entry in first) == ["a", "b"]
        await store.put("product", entries)
        assert await store.outgoing(10) == first, "word for word is no change"
        assert await store.sent(first, "one")
        assert await store.outgoing(10) == []
        assert await store.withdraw("product", "a", 1)
        assert not await store.withdraw("product", "a", 1)
        assert await store.get("product", "a") is None
        [gone] = await store.outgoing(10)
        await store.sent(first, "one")
        assert await store.outgoing(10) == [gone], "an older acknowledgement does not hide a newer change"
        assert gone.revision > max(entry.revision for entry in first)
        assert await store.version() == gone.revision
        await store.sent([gone], "one")
        assert await store.unmarked("one") == 1
        await store.marked("one", 1)
        assert await store.unmarked("one") is None
        assert await store.on_cluster("two")
        everything = await store.outgoing(10)
        assert len(everything) == 2
        assert not await store.sent(everything, "one"), "acknowledged by a broker that is lost"
        assert await store.outgoing(10) == everything
        await store.marked("one", 1)
        assert await store.unmarked("two") == 2
        assert await store.sent(everything, "two")
        assert await store.on_cluster("two", lost=True)
        assert await store.unmarked("two") == 3
        assert await store.outgoing(10) == everything
        kept = KeptDecision("d", "c", 1, b"answer", b"pool")
        await stores.decisions.keep([kept])
        await stores.decisions.keep([kept._replace(answer=b"other")])
        assert await stores.decisions.find(["d", "e"]) == {"d": kept}
        assert await stores.decisions.expire(1, 10) == 0
    finally:
        await stores.close()


async def test_writers_of_one_entry_at_once_leave_the_newest_revision(database: str) -> None:
    stores = [PostgresStores(database) for _ in range(3)]
    try:
        await asyncio.gather(
            *(
                store.catalogue.put(
                    "product",
                    [(f"p{n}", product_of(ProductIn(product_id=f"p{n}", **(PRODUCT | {"price": i})), "EUR"))
                     for n in (range(20) if i % 2 else range(19, -1, -1))],
                )
                for i, store in enumerate(stores * 10)
            )
        )  # fmt: skip
        entries = await stores[0].catalogue.outgoing(100)
        assert len({entry.revision for entry in entries}) == len(entries) == 20
    finally:
        for store in stores:
            await store.close()
