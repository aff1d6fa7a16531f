"""Rebuilds that fail, are killed, meet another or an erasure: the live state stays whole."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from libs.common.contracts.customer_event import Erasure, IdentityLinked, Touchpoint
from libs.common.contracts.identity import PARTITIONS, partition_of
from services.analyzer.handlers import folding
from services.analyzer.rebuild import run
from services.analyzer.rebuild.partition import PartitionRebuild
from services.analyzer.rebuild.run import AnotherRebuild, rebuild
from services.analyzer.rebuild.workers import Plan
from services.analyzer.store.rebuilding import PostgresRebuildStore, ScratchLost, clear_scratch
from tests.integration.rebuild_world import SCRATCH, T0, Live, begun, forgets_mail, story, undisturbed

pytestmark = pytest.mark.embedded


async def test_two_rebuilds_at_once_are_refused(live: Live) -> None:
    await live.take(*story(50))
    store = PostgresRebuildStore(live.database, "analyzer_rebuild_other")
    async with store.alone() as mine:
        assert mine
        with pytest.raises(AnotherRebuild):
            await rebuild(live.plan())
    assert (await rebuild(live.plan())).events == 50


async def test_rebuild_that_fails_keeps_nobody_in_its_tables(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(plan: Plan, scratch: str) -> None:
        raise ScratchLost("on purpose")

    monkeypatch.setattr(run, "in_processes", fails)
    with pytest.raises(ScratchLost):
        await rebuild(live.plan())
    assert not await begun(live)


async def test_compaction_clears_what_killed_rebuilds_left_and_names_one_under_way(live: Live) -> None:
    store = PostgresRebuildStore(live.database, "analyzer_rebuild_killed")
    async with store.alone():
        await store.prepare()
        assert "rebuild" in (await clear_scratch(live.database))[0]
        assert await begun(live)
    assert await clear_scratch(live.database) == []
    assert not await begun(live)


SWITCHED = """
    SELECT 1 FROM analyzer.partitions AS p
    WHERE number > (SELECT count(*) FROM analyzer.events AS e WHERE e.partition = p.partition)"""


async def partly_folded(live: Live) -> bool:
    for (name,) in await live.rows(SCRATCH):
        if await live.rows(f"SELECT 1 FROM {name}.folded"):
            return True
    return False


async def partly_switched(live: Live) -> bool:
    return bool(await live.rows(SWITCHED))


@pytest.mark.parametrize("when", [begun, partly_folded, partly_switched])
async def test_killed_rebuild_leaves_the_live_state_whole(
    live: Live,
    when: Callable[[Live], Awaitable[bool]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    events = story(4_000)
    with monkeypatch.context() as older:
        older.setattr(folding, "fold", forgets_mail(folding.fold))
        await live.take(*events)
    before = await live.digest()
    environment = {**os.environ, "CLOSEDLOOP_POSTGRES": live.url, "CLOSEDLOOP_DATA_DIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.analyzer.rebuild"),
        env=environment,
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        while not await when(live):
            await asyncio.sleep(0.002)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    await process.wait()
    switched = len(await live.rows(SWITCHED))
    assert (await live.digest() == before) == (switched == 0)
    # Each partition is either as it was or as it is anew, and slices go on in both.
    more = story(100, first=4_000)
    await live.take(*more)
    async with asyncio.timeout(30):
        while any(worker.is_running() and worker.status() != "zombie" for worker in workers):
            await asyncio.sleep(0.05)
    outcome = await rebuild(live.plan())
    assert outcome.rebuilt == await live.digest() == await undisturbed([*events, *more])
    assert not await live.rows(SCRATCH)
    print(f"{switched} of {PARTITIONS} partitions had been switched")


async def test_lost_scratch_switches_nothing(live: Live) -> None:
    await live.take(*story(300))
    before = await live.digest()
    store = PostgresRebuildStore(live.database, "analyzer_rebuild_lost")
    await store.prepare()
    partition = partition_of("u-1")
    await PartitionRebuild(store, partition).fold()
    async with live.database.bulk() as connection:
        # As PostgreSQL leaves unlogged tables after a crash.
        await connection.execute(
            "TRUNCATE analyzer_rebuild_lost.models, analyzer_rebuild_lost.lessons,"
            " analyzer_rebuild_lost.folded"
        )
    with pytest.raises(ScratchLost):
        await PartitionRebuild(store, partition).settle(switch=True)
    assert await live.digest() == before


async def test_customer_erased_while_a_rebuild_runs_does_not_come_back(live: Live) -> None:
    await live.take(*story(600))
    store = PostgresRebuildStore(live.database, "analyzer_rebuild_erased")
    await store.prepare()
    partition = partition_of("u-1")
    await PartitionRebuild(store, partition).fold()
    about: dict[str, Any] = {"id": "x", "source": "dpo", "customer": "u-1"}
    await live.take(Erasure(**about, occurred_at=T0, recorded_at=T0 + 700_000))
    his = "SELECT 1 FROM analyzer.models WHERE customer = 'u-1' AND body <> ''"
    assert not await live.rows(his)
    told = await PartitionRebuild(store, partition).settle(switch=True)
    assert (told.live, told.models) == (told.rebuilt, 0)
    assert not await live.rows(his)
    assert await live.rows("SELECT 1 FROM analyzer.models WHERE partition = $1 AND body <> ''", partition)


async def test_mention_erased_while_a_rebuild_runs_does_not_come_back(live: Live) -> None:
    """Of a key that this partition has suppressed before, so that no hash is added."""
    one = "u-1"
    two = next(key for n in range(99) if partition_of(key := f"w-{n}") == partition_of(one))
    about: dict[str, Any] = {"source": "shop", "occurred_at": T0, "recorded_at": T0}
    for n, key in enumerate((one, two)):
        both = {"customer_id": key, "anonymous_id": "v-gone"}
        await live.take(IdentityLinked(**about, id=f"l-{n}", customer=key, **both))
        await live.take(Touchpoint(**about, id=f"v-{n}", customer=key, type="seen", channel="web"))
    notice = {**about, "linked": "anon:v-gone", "erasure": "e"}
    await live.take(Erasure(**notice, id="e-1", customer=one))
    store = PostgresRebuildStore(live.database, "analyzer_rebuild_mention")
    await store.prepare()
    partition = partition_of(one)
    await PartitionRebuild(store, partition).fold()
    await live.take(Erasure(**notice, id="e-2", customer=two))
    told = await PartitionRebuild(store, partition).settle(switch=True)
    assert (told.live, told.models) == (told.rebuilt, 0)
