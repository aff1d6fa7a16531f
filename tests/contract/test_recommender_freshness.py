"""How fresh an answer is: stale partitions, waiting for a model or a link, clocks, replays."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.bus.ports import Record
from libs.common.clock import DAY, MINUTE, JournalClock, ManualClock
from libs.common.contracts.catalogue import Placement
from libs.common.contracts.customer_model import Decayed, Item, Items, encode_model, model_key
from libs.common.contracts.identity import partition_of
from libs.common.contracts.progress import Progress, encode_progress
from libs.common.contracts.topics import CUSTOMER_MODELS, PROGRESS, TOPICS
from libs.common.keys import KeyFile, Scope
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.times import format_time
from tests.contract.recommender_world import NOW, SPOOL, URL, World, ask, repeats, until


async def test_stale_partition_gets_only_the_non_personal_default(world: World) -> None:
    await world.stores.catalogue.put(
        "placement", [("shy", Placement(placement_id="shy", exploration=0.0, fallback="none"))]
    )
    async with world.up() as client:
        world.knows("c1", "milk")
        world.progress(behind=6 * MINUTE)
        answer = await ask(client, limit=9, customer_id="c1")
        assert (answer["degraded"], answer["fresh"], repeats(answer)) == (["stale"], False, set())
        assert len(answer["offers"]) == 7
        for group in ("treatment", "baseline"):
            body = {"placement": "shy", "customer_id": "c1"}
            response = await client.post(URL, json=body, headers={"closedloop-group": group})
            assert (response.json()["group"], response.json()["offers"]) == (group, [])
        assert len((await ask(client, placement="shy"))["offers"]) == 5
        world.progress(behind=4 * MINUTE)
        answer = await ask(client, limit=9, customer_id="c1")
        assert (answer["degraded"], answer["fresh"], repeats(answer)) == ([], False, {"milk"})
        world.progress(behind=1_000)
        assert (await ask(client, customer_id="c1"))["fresh"] is True


async def test_view_that_stands_still_is_stale_whatever_the_board_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.up() as client:
        world.knows("c1", "milk")
        world.progress(behind=1_000)
        view = world.views[CUSTOMER_MODELS]
        monkeypatch.setattr(view, "lag_seconds", lambda: 301.0)
        answer = await ask(client, limit=9, customer_id="c1")
        assert (answer["degraded"], repeats(answer)) == (["stale"], set())
        assert (await ask(client, limit=9))["degraded"] == []
        monkeypatch.setattr(view, "lag_seconds", lambda: 299.0)
        answer = await ask(client, limit=9, customer_id="c1")
        assert (answer["degraded"], repeats(answer)) == ([], {"milk"})


async def test_waiting_for_a_link_waits_for_the_visitor_it_leads_to(world: World) -> None:
    mine, visitor = (
        partition_of("c1"),
        next(f"anon:v{n}" for n in range(99) if partition_of(f"anon:v{n}") != partition_of("c1")),
    )
    theirs = partition_of(visitor)
    position = Position(SPOOL, {mine: 5, theirs: 5}).encode()
    async with world.up() as client:
        world.progress()
        waiting = asyncio.create_task(ask(client, customer_id="c1", after=position, wait_ms=1000))
        await asyncio.sleep(0.01)
        world.knows("c1", links=(visitor,))
        world.progress(applied=5, only=mine)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        world.knows(visitor, "milk")
        world.progress(applied=5, only=theirs)
        answer = await waiting
        assert (answer["fresh"], repeats(answer)) == (True, {"milk"})
        late = await ask(
            client, customer_id="c1", after=Position(SPOOL, {mine: 5, theirs: 6}).encode(), wait_ms=1
        )
        assert late["fresh"] is False


async def test_lost_broker_costs_freshness_and_then_says_stale(world: World) -> None:
    """Fresh and ``after`` claim nothing that the view has not read again; personal offers go on meanwhile."""
    mine = partition_of("c1")
    world.board = ProgressBoard(world.bus)
    position = Position(SPOOL, {mine: 3}).encode()

    async def say(offset: int, epoch: int) -> None:
        for partition in range(12):
            told = Progress(
                partition=partition,
                cluster=await world.bus.cluster_id(),
                epoch=epoch,
                applied={SPOOL: 3},
                journal_time=world.clock.now(),
                models_offset=offset if partition == mine else 0,
            )
            await world.bus.producer().send(PROGRESS, 0, [Record(b"p", encode_progress(told))])

    item = Item(orders=4, bought=Decayed(3.0, NOW - DAY), last_bought_at=NOW - DAY, cycle=7.0 * DAY)

    async def models(customer: str) -> None:
        body = encode_model(Items(customer=customer, items={"milk": item}))
        record = Record(model_key(customer, "items"), body, (("revision", b"1"),))
        await world.bus.producer().send(CUSTOMER_MODELS, mine, [record])

    async def asked() -> tuple[bool, list[str], set[str], bool]:
        answer = await ask(client, limit=9, customer_id="c1")
        after = await ask(client, customer_id="c1", after=position, wait_ms=0)
        return answer["fresh"], answer["degraded"], repeats(answer), after["fresh"]

    async with world.up() as client:
        await models("c1")
        await say(1, 1)
        await until(lambda: world.board.applied(SPOOL).get(11) == 3)
        await until(lambda: world.views[CUSTOMER_MODELS].offset(mine) == 1)
        assert await asked() == (True, [], {"milk"}, True)
        world.bus.replace_cluster("memory-2")
        await world.bus.ensure_topics(TOPICS)
        await until(lambda: world.board.cluster == world.views[CUSTOMER_MODELS].cluster == "memory-2")
        assert await asked() == (False, [], {"milk"}, False)
        # The analyzer says that it has published them, but the view has not read that far.
        await say(1, 2)
        await until(lambda: world.board.applied(SPOOL).get(11) == 3)
        assert await asked() == (False, [], {"milk"}, False)
        await models("c1")
        await until(lambda: world.views[CUSTOMER_MODELS].offset(mine) == 1)
        assert await asked() == (True, [], {"milk"}, True)
        world.bus.go_away()
        assert isinstance(world.clock, ManualClock)
        world.clock.advance(world.clock.now() + 4 * MINUTE)
        assert await asked() == (False, [], {"milk"}, True)
        world.clock.advance(world.clock.now() + 2 * MINUTE)
        assert await asked() == (False, ["stale"], set(), True)
        world.bus.come_back()
        await say(1, 2)
        await until(lambda: world.board.known_until(11) == world.clock.now())
        assert await asked() == (True, [], {"milk"}, True)


async def test_staleness_never_applies_on_a_journal_clock(world: World) -> None:
    async with world.up(clock="journal") as client:
        world.knows("c1", "milk")
        world.progress(behind=6 * MINUTE)
        answer = await ask(client, limit=9, customer_id="c1")
        assert (answer["degraded"], answer["fresh"], repeats(answer)) == ([], True, {"milk"})
        other = (partition_of("c1") + 1) % 12
        world.progress(only=other)
        assert (await ask(client, customer_id="c1"))["fresh"] is False


async def test_after_waits_until_the_customers_model_includes_it(world: World) -> None:
    mine, other = partition_of("c1"), (partition_of("c1") + 1) % 12
    async with world.up() as client:
        world.progress(applied=3)
        position = Position(SPOOL, {mine: 4}).encode()
        late = await ask(client, customer_id="c1", after=position, wait_ms=30)
        assert late["fresh"] is False
        waiting = asyncio.create_task(ask(client, customer_id="c1", after=position, wait_ms=1000))
        await asyncio.sleep(0.02)
        world.progress(applied=4)
        assert (await waiting)["fresh"] is True
        elsewhere = Position(SPOOL, {other: 99}).encode()
        assert (await ask(client, customer_id="c1", after=elsewhere, wait_ms=0))["fresh"] is True


async def test_at_needs_manage_and_marks_a_replay_on_a_wall_clock(world: World) -> None:
    key = KeyFile(world.folder).add("shop", [Scope.RECOMMEND]).key
    at = format_time(NOW - 40 * DAY)
    async with world.up() as client:
        await ask(client, at=at)
        shop = {"authorization": f"Bearer {key}"}
        refused = await client.post(URL, json={"placement": "sure", "at": at}, headers=shop)
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        batch = await client.post(f"{URL}/batch", json=[{"placement": "sure", "at": at}], headers=shop)
        assert batch.json()["answers"][0]["status"] == 403
    event = world.decisions[0]
    assert (event.replay, event.occurred_at, event.recorded_at) == (True, NOW - 40 * DAY, NOW)
    async with world.up(clock="journal") as client:
        await ask(client, at=format_time(NOW + DAY))
    assert (world.decisions[1].replay, world.decisions[1].occurred_at) == (False, NOW + DAY)


async def test_at_starts_a_journal_clock_but_not_in_the_far_future(world: World) -> None:
    world.clock = JournalClock()
    async with world.up(clock="journal") as client:
        await ask(client, at="9999-12-31T23:59:59Z")
        await ask(client, at="2017-03-01T00:00:00Z")
    far, start = world.decisions
    assert (far.occurred_at, far.recorded_at) == (253_402_300_799_000, 0)
    assert start.occurred_at == start.recorded_at == 1_488_326_400_000


async def test_clock_is_the_platforms(world: World) -> None:
    assert isinstance(world.clock, ManualClock)
    async with world.up() as client:
        await ask(client)
        world.clock.tick(DAY)
        await ask(client)
    assert [event.occurred_at for event in world.decisions] == [NOW, NOW + DAY]
