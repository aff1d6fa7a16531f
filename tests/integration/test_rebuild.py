"""A rebuild beside live slices: what it changes, what it leaves alone, and how little it holds."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from libs.common.clock import DAY, SECOND
from libs.common.contracts.customer_event import CustomerEvent, Touchpoint
from libs.common.contracts.identity import PARTITIONS, partition_of
from services.analyzer.handlers import folding
from services.analyzer.rebuild import partition as rebuilt
from services.analyzer.rebuild.partition import PartitionRebuild
from services.analyzer.rebuild.run import rebuild
from services.analyzer.store import rebuilding
from services.analyzer.store.rebuild_statements import rebuild_statements
from services.analyzer.store.rebuilding import Anew, PostgresRebuildStore, Reached
from tests.integration.rebuild_world import SCRATCH, T0, Live, forgets_mail, offered, story, undisturbed

pytestmark = pytest.mark.embedded


async def test_rebuild_of_the_same_code_writes_nothing(live: Live) -> None:
    await live.take(*story(600))
    before, states = await live.digest(), await live.rows("SELECT number, epoch FROM analyzer.partitions")
    outcome = await rebuild(live.plan())
    assert (outcome.live, outcome.rebuilt) == (before, before)
    assert (outcome.events, outcome.models, outcome.lessons, outcome.refused) == (600, 0, 0, 0)
    assert await live.rows("SELECT number, epoch FROM analyzer.partitions") == states
    assert not await live.rows(SCRATCH)
    assert before == await undisturbed(story(600))


async def test_facts_of_the_events_are_the_same_after_a_rebuild(live: Live) -> None:
    await live.take(*story(600))
    facts = "SELECT * FROM analyzer.facts ORDER BY partition, number"
    before = await live.rows(facts)
    assert len(before) > 150
    # As before facts were written, with one that no event tells and one that its event does not tell so.
    await live.rows("DELETE FROM analyzer.facts WHERE number % 2 = 0")
    await live.rows("UPDATE analyzer.facts SET number = number + 1000000 WHERE number % 5 = 0")
    await live.rows("UPDATE analyzer.facts SET at = at + 1 WHERE number % 7 = 0")
    assert await live.rows(facts) != before
    outcome = await rebuild(live.plan())
    assert outcome.models == 0
    assert await live.rows(facts) == before


async def test_new_code_is_served_after_the_switch_and_wins_with_readers(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = story(600)
    with monkeypatch.context() as older:
        older.setattr(folding, "fold", forgets_mail(folding.fold))
        await live.take(*events)
    assert await live.digest() != await undisturbed(events)
    who = next(e.customer for e in events if isinstance(e, Touchpoint) and e.type == "email_opened")
    revisions = dict(await live.rows("SELECT customer || '/' || part, revision FROM analyzer.models"))
    checked = await rebuild(live.plan(switch=False))
    assert checked.live != checked.rebuilt
    assert checked.models == 0
    assert await live.digest() == checked.live
    outcome = await rebuild(live.plan())
    assert outcome.rebuilt == checked.rebuilt == await live.digest() == await undisturbed(events)
    assert 0 < outcome.models <= 40
    served = await live.served(who)
    assert served is not None
    assert "email_opened" not in served.totals
    # The next thing that happens in each partition, be it a tick, makes the live analyzer publish.
    await live.tick(T0 + 700 * SECOND)
    async with asyncio.timeout(10):
        while "email_opened" not in (await live.served(who)).totals:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
    now = dict(await live.rows("SELECT customer || '/' || part, revision FROM analyzer.models"))
    assert all(now[key] >= revision for key, revision in revisions.items())
    more = story(200, first=600)
    await live.take(*more)
    assert await live.digest() == await undisturbed([*events, *more])


async def test_rebuild_catches_up_with_events_that_go_on_arriving(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = story(6_000)
    with monkeypatch.context() as older:
        older.setattr(folding, "fold", forgets_mail(folding.fold))
        await live.take(*events[:3_000])
    running = asyncio.create_task(rebuild(live.plan(processes=2)))
    at = 3_000
    while not running.done() and at < len(events):
        await live.take(*events[at : at + 10])
        at += 10
        await asyncio.sleep(0.005)
    outcome = await running
    assert outcome.models > 0
    during = at - 3_000
    assert during > 100
    await live.take(*events[at:])
    assert await live.digest() == await undisturbed(events)
    print(f"{during} events arrived during the rebuild")


async def test_events_of_many_days_are_folded_in_their_order(live: Live) -> None:
    events = story(1_500, days=200)
    await live.take(*events)
    days = await live.rows("SELECT count(DISTINCT recorded_at / $1) FROM analyzer.events", DAY)
    assert days[0][0] > 150
    outcome = await rebuild(live.plan())
    assert outcome.events == 1_500
    assert outcome.live == outcome.rebuilt == await undisturbed(events)


async def test_stored_event_the_present_code_cannot_read_is_refused(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.take(*story(50))
    store = PostgresRebuildStore(live.database, "analyzer_rebuild_unread")
    await store.prepare()
    first = rebuilt.decode_event

    def refuse(body: bytes) -> CustomerEvent:
        monkeypatch.setattr(rebuilt, "decode_event", first)
        raise msgspec.DecodeError("another format")

    monkeypatch.setattr(rebuilt, "decode_event", refuse)
    fold = PartitionRebuild(store, partition_of("u-1"))
    assert await fold.fold() > 0
    assert fold.refused == 1


@pytest.mark.parametrize("held", [1, 5])
async def test_models_that_do_not_fit_into_memory_are_put_away_and_met_again(live: Live, held: int) -> None:
    await live.take(*story(2_000))
    store = PostgresRebuildStore(live.database, "analyzer_rebuild_small")
    await store.prepare()
    for partition in range(PARTITIONS):
        await PartitionRebuild(store, partition, held=held).fold()
        told = await PartitionRebuild(store, partition, held=held).settle(switch=False)
        assert told.live == told.rebuilt
    await store.drop()


class Watched(PostgresRebuildStore):
    """Notes how many lessons and facts come at a time."""

    most = 0

    async def put(self, partition: int, at: Reached, anew: Anew) -> None:
        self.most = max(self.most, len(anew.lessons) + len(anew.facts))
        await super().put(partition, at, anew)


async def test_many_lessons_of_few_customers_are_put_away(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of events, and of what falls due by itself."""
    monkeypatch.setattr(rebuilding, "EVENTS_AT_ONCE", 20)
    monkeypatch.setattr(rebuilt, "DUE_AT_ONCE", 2)
    await live.take(*offered(1_500, days=3))
    await live.tick(T0 + 90 * DAY)
    partition = partition_of("u-1")
    every: list[int] = []
    for held_rows in (40, 100_000):
        store = Watched(live.database, f"analyzer_rebuild_rows{'x' * (held_rows == 40)}")
        # Trap: `prepare` clears away the other's tables.
        await store.prepare()
        assert await PartitionRebuild(store, partition, held_rows=held_rows).fold() > 60
        told = await PartitionRebuild(store, partition, held_rows=held_rows).settle(switch=False)
        assert told.live == told.rebuilt
        every.append(store.most)
    small, large = every
    assert small < 40 + 60 < large


@pytest.mark.parametrize("kind", ["trials", "lessons", "facts"])
async def test_rows_that_go_are_found_by_their_key(live: Live, kind: str) -> None:
    store = PostgresRebuildStore(live.database, "analyzer_rebuild_plan")
    await store.prepare()
    statement = rebuild_statements("analyzer", "analyzer_rebuild_plan")[f"switch_{kind}_gone"]
    plan = "\n".join(line for (line,) in await live.rows(f"EXPLAIN {statement}".replace("$1", "0")))
    assert "number = " in plan or "decision = " in plan, plan
    await store.drop()
