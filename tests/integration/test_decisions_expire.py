"""Decisions that are too old leave the recommender's table, however many they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random

import asyncpg
import pytest

from libs.common.db import Database
from libs.common.errors import Transient
from libs.common.spool.memory import MemoryJournal
from libs.common.telemetry import Metrics
from services.recommender import pools
from services.recommender.forgetting import Forgetting
from services.recommender.memory import MemoryDecisionStore
from services.recommender.metrics import RecommenderMetrics
from services.recommender.pools import PoolKeeper
from services.recommender.ports import KeptDecision
from services.recommender.store import PostgresDecisionStore, Schema


class Nobody:
    """A view in which nobody was deleted."""

    def gone(self) -> list[bytes]:
        return []

    async def forget(self, keys: Sequence[bytes]) -> None:
        raise AssertionError(keys)

    def was_deleted(self, key: bytes) -> bool:
        return False


class Watched(PostgresDecisionStore):
    """Notes how many each deletion took."""

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema)
        self.deletions: list[int] = []

    async def expire(self, days: int, limit: int) -> int:
        self.deletions.append(await super().expire(days, limit))
        return self.deletions[-1]


class Unable(MemoryDecisionStore):
    """Keeps decisions, and cannot delete any."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def expire(self, days: int, limit: int) -> int:
        self.asked += 1
        raise Transient("busy")


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[Watched]:
    database = Database(postgres_url)
    yield Watched(Schema(database))
    await database.close()


async def test_old_decisions_go_a_few_at_a_time_until_none_is_left(
    store: Watched, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "EXPIRED_AT_ONCE", 10)
    monkeypatch.setattr(pools, "PAUSE", 0.001)
    old = [f"old-{n}" for n in range(35)]
    young = [f"young-{n}" for n in range(3)]
    await store.keep([KeptDecision(name, "c", 1, b"", b"") for name in (*old, *young)])
    plain = await asyncpg.connect(postgres_url)
    age = "UPDATE recommender.decisions SET stored_at = now() - make_interval(days => $1)"
    await plain.execute(f"{age} WHERE decision_id = ANY($2)", 31, old)
    await plain.execute(f"{age} WHERE decision_id = ANY($2)", 29, young)
    await plain.close()
    metrics = RecommenderMetrics(Metrics("recommender"))
    keeper = PoolKeeper(MemoryJournal(), store, metrics, Random(1), 30, Forgetting(Nobody, store, metrics))
    running = asyncio.create_task(keeper.run())
    try:
        async with asyncio.timeout(30):
            while sum(store.deletions) < len(old):
                await asyncio.sleep(0.01)
        # It has seen that none is left, and looks no more for an hour.
        assert await keeper.passed(10)
        assert await keeper.passed(10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert store.deletions == [10, 10, 10, 5]
    assert sorted(await store.find([*old, *young])) == young


async def test_nobody_waits_for_old_decisions_that_cannot_be_deleted_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "PAUSE", 0.001)
    store, metrics = Unable(), RecommenderMetrics(Metrics("recommender"))
    keeper = PoolKeeper(MemoryJournal(), store, metrics, Random(1), 30, Forgetting(Nobody, store, metrics))
    running = asyncio.create_task(keeper.run())
    try:
        for _ in range(5):
            assert await keeper.passed(10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert store.asked == 1, "not again in every round"
