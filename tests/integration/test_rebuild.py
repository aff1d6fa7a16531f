"""A rebuild beside live slices: what it changes, what it leaves alone, and what its crash leaves behind."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from deploy.local.postgres import EmbeddedPostgres
from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Assignment, Message
from libs.common.clock import DAY, SECOND
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_event import (
    CustomerEvent,
    Decision,
    Erasure,
    IdentityLinked,
    Tick,
    Touchpoint,
    encode_event,
)
from libs.common.contracts.customer_model import PROFILE, Profile, decode_profile, model_key
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.topics import CUSTOMER_EVENTS, CUSTOMER_MODELS, TOPICS
from libs.common.db import Database
from libs.common.errors import Transient
from libs.common.view import MemoryView
from services.analyzer.handlers import folding
from services.analyzer.learner import checkpoint
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.store import PostgresLearnerStore
from services.analyzer.model.digest import whole_digest
from services.analyzer.model.fold import Models, Step
from services.analyzer.model.lessons import TrialLesson, decode_lesson
from services.analyzer.rebuild import partition as rebuilt
from services.analyzer.rebuild import run
from services.analyzer.rebuild.partition import PartitionRebuild
from services.analyzer.rebuild.run import AnotherRebuild, rebuild
from services.analyzer.rebuild.workers import Plan
from services.analyzer.store import rebuilding
from services.analyzer.store.memory import MemoryAnalyzerStore
from services.analyzer.store.postgres import PostgresAnalyzerStore
from services.analyzer.store.reading import PostgresReadStore
from services.analyzer.store.rebuild_statements import rebuild_statements
from services.analyzer.store.rebuilding import (
    Anew,
    PostgresRebuildStore,
    Reached,
    ScratchLost,
    clear_scratch,
)
from tests.integration.test_analyzer_slices import Stores, make_rig
from tests.unit.test_trials import decision, outcome
from tests.unit.test_trials import order as bought

pytestmark = pytest.mark.embedded

T0 = 1_790_000_000_000
SPOOL = "0f3a9c1e"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with asyncio.Runner() as runner:
        server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
        runner.run(server.start(60))
        yield server
        runner.run(server.stop())


@dataclass
class Live:
    """An analyzer at work on one database, and a reader of what it publishes."""

    url: str
    database: Database
    rig: Any
    bus: MemoryBus
    view: MemoryView
    sent: dict[int, int] = field(default_factory=dict)

    async def take(self, *events: CustomerEvent) -> None:
        """Have ``events`` become slices, tried again where a rebuild came between."""
        slices: dict[int, list[Message]] = {}
        for event in events:
            partition = event.partition if isinstance(event, Tick) else partition_of(event.customer)
            offset = self.sent.get(partition, 0)
            self.sent[partition] = offset + 1
            headers = (("spool", SPOOL.encode()), ("seq", b"%d" % (offset + 1)))
            message = Message(CUSTOMER_EVENTS, partition, offset, b"k", encode_event(event), headers, 0)
            slices.setdefault(partition, []).append(message)
        for partition, messages in slices.items():
            async with asyncio.timeout(20):
                while True:
                    try:
                        await self.rig.processor.process(partition, messages)
                    except Transient:
                        await asyncio.sleep(0.01)
                    else:
                        break

    async def tick(self, at: int = T0) -> None:
        await self.take(*(Tick(partition=p, recorded_at=at) for p in range(PARTITIONS)))

    async def digest(self) -> str:
        store = PostgresReadStore(self.database)
        return whole_digest([await store.digest(partition) for partition in range(PARTITIONS)])

    async def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        async with self.database.connection() as connection:
            return [tuple(row) for row in await connection.fetch(statement, *values)]

    async def served(self, customer: str) -> Profile | None:
        """The profile as a reader of the topic has it."""
        value = self.view.get(model_key(customer, PROFILE))
        return None if value is None else decode_profile(value)

    def plan(self, **more: Any) -> Plan:
        return Plan(postgres=self.url, **{"processes": 1, **more})


@pytest.fixture
async def live(postgres: EmbeddedPostgres) -> AsyncIterator[Live]:
    name = f"rebuild_{uuid.uuid4().hex}"
    server = Database(postgres.address, size=1)
    async with server.connection() as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    await server.close()
    database = Database(postgres.url(name), size=6)
    slices = PostgresAnalyzerStore(database)
    await slices.prepare()
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    view = MemoryView(bus, CUSTOMER_MODELS)
    await view.start()
    rig = make_rig(Stores(slices, PostgresReadStore(database)), bus)
    publishing = asyncio.create_task(rig.publisher.run())
    everything = Assignment(frozenset(range(PARTITIONS)), 1, await bus.cluster_id())
    await rig.processor.claim(everything)
    yield Live(postgres.url(name), database, rig, bus, view)
    await rig.processor.release(frozenset(range(PARTITIONS)))
    publishing.cancel()
    await asyncio.wait([publishing])
    await view.stop()
    await database.close()


def story(length: int, seed: int = 3, *, first: int = 0, days: int = 0) -> list[CustomerEvent]:
    """Views, orders and mails of 40 customers; spread over ``days``, some of them late."""
    draw = random.Random(seed)
    events: list[CustomerEvent] = []
    for n in range(first, first + length):
        who = f"u-{draw.randrange(40)}"
        at = T0 + n * 1_000 + (n * days // length) * DAY - draw.choice([0, 0, 0, 2 * DAY if days else 0])
        about: dict[str, Any] = {"id": f"e-{n}", "source": "shop", "customer": who, "channel": "web"}
        times = {"occurred_at": at, "recorded_at": at}
        kind = draw.random()
        if kind < 0.6:
            seen = {"product_id": f"p{draw.randrange(30)}"}
            events.append(Touchpoint(**about, **times, type="product_viewed", properties=seen))
        elif kind < 0.9:
            lines = [{"product_id": f"p{draw.randrange(30)}", "price": 3.5} for _ in range(4)]
            bought = {"order_id": f"o-{n}", "products": lines}
            events.append(Touchpoint(**about, **times, type="order_completed", properties=bought))
        else:
            events.append(Touchpoint(**about, **times, type="email_opened"))
    return events


def offered(length: int, seed: int = 5, *, first: int = 0, days: int = 40) -> list[CustomerEvent]:
    """`story`, in which offers are made and shown, clicked and bought; few customers come back often."""
    draw = random.Random(seed)
    events: list[CustomerEvent] = []
    made: list[Decision] = []
    now = T0
    for event in story(length, seed, first=first, days=days):
        now = max(now, event.recorded_at)
        events.append(msgspec.structs.replace(event, recorded_at=now))
        at, draws = now, draw.random()
        who = f"u-{draw.randrange(300)}"
        if draws < 0.4:
            products = [f"p{draw.randrange(30)}" for _ in range(3)]
            ghosts = [("p7", 2)] if draws < 0.2 and "p7" not in products else []
            made.append(
                decision(f"d{len(made)}/{first}", at, products, ghosts, assumed_shown=1, customer=who)
            )
            events.append(made[-1])
        elif draws < 0.8 and made:
            of = made[-1 - draw.randrange(min(9, len(made)))]
            product = of.offers[draw.randrange(3)].product_id or ""
            word = draw.choice(["shown", "shown", "clicked"])
            if draw.random() < 0.3:
                events.append(bought(f"b{event.id}", at, product, customer=of.customer))
            else:
                events.append(outcome(of.id, product, word, at, customer=of.customer))
    return events


async def lessons_of(live: Live) -> list[tuple[Any, ...]]:
    """Everything that was taught, in canonical order."""
    return await live.rows(
        "SELECT partition, number, second, kind, body, part FROM analyzer.lessons"
        " ORDER BY second, partition, number, part"
    )


async def undisturbed(events: Sequence[CustomerEvent]) -> str:
    """The digest of an analyzer that only ever knew the present code and was never rebuilt."""
    return (await apart(events))[0]


async def apart(events: Sequence[CustomerEvent]) -> tuple[str, list[tuple[Any, ...]]]:
    """Digest and lessons of an analyzer that takes ``events`` in one go, in memory."""
    memory = MemoryAnalyzerStore()
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    rig = make_rig(Stores(memory, memory), bus)
    other = Live("", None, rig, bus, MemoryView())  # type: ignore[arg-type]
    await rig.processor.claim(Assignment(frozenset(range(PARTITIONS)), 1, await bus.cluster_id()))
    await other.take(*events)
    await rig.processor.release(frozenset(range(PARTITIONS)))
    lessons = sorted(
        memory.lessons.values(), key=lambda row: (row.second, row.partition, row.number, row.part)
    )
    digest = whole_digest([await memory.digest(partition) for partition in range(PARTITIONS)])
    return digest, [tuple(row) for row in lessons]


def forgets_mail(fold: Callable[..., Step]) -> Callable[..., Step]:
    """An older version of the fold, which knew nothing of mails that are opened."""

    def older(models: Models, event: CustomerEvent, *more: Any, **named: Any) -> Step:
        if isinstance(event, Touchpoint) and event.type == "email_opened":
            return Step(models)
        return fold(models, event, *more, **named)

    return older


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


SCRATCH = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'analyzer_rebuild%'"
SWITCHED = """
    SELECT 1 FROM analyzer.partitions AS p
    WHERE number > (SELECT count(*) FROM analyzer.events AS e WHERE e.partition = p.partition)"""


async def begun(live: Live) -> bool:
    return bool(await live.rows(SCRATCH))


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


async def elect(live: Live, catalogue: Catalogue | None = None) -> tuple[PostgresLearnerStore, int]:
    """A learner that has learned all there is and left a checkpoint."""
    store = PostgresLearnerStore(live.database)
    async with store.leadership() as claim:
        fold = Fold(catalogue=catalogue)
        watermark = await store.watermark()
        assert watermark is not None
        fold.learn_many(await store.lessons(Place(), watermark, 100_000))
        await store.checkpoint(claim.epoch, fold.place, checkpoint.save(fold))
    return store, claim.epoch


async def test_learned_models_are_the_same_where_nothing_changed(live: Live) -> None:
    await live.take(*story(900))
    await live.tick(T0 + 2_000 * SECOND)
    store, epoch = await elect(live)
    before = await store.lineage()
    assert (await rebuild(live.plan())).learned is True
    assert await store.lineage() == before
    assert before is not None
    assert before.epoch == epoch


async def test_choices_are_learned_anew_with_the_catalogue_of_the_live_learner(live: Live) -> None:
    await live.take(*story(900))
    await live.tick(T0 + 2_000 * SECOND)
    catalogue = Catalogue()
    products = [
        Product(product_id=f"p{n}", name="-", category=f"c{n % 4}", price=1.0 + n, currency="EUR")
        for n in range(30)
    ]
    catalogue.remember(products)
    store, _ = await elect(live, catalogue)
    lineage = await store.lineage()
    assert lineage is not None
    learned = checkpoint.restore(lineage.checkpoint, Parameters())
    assert learned is not None
    assert learned.choice.logit.samples > 50
    assert (await rebuild(live.plan())).learned is True


async def test_who_is_gone_from_the_events_is_gone_from_the_learned_models(live: Live) -> None:
    secret = {"order_id": "o-secret", "products": [{"product_id": "only-his", "price": 1.0}]}
    about: dict[str, Any] = {"source": "shop", "customer": "u-1", "occurred_at": T0, "recorded_at": T0}
    his = Touchpoint(**about, id="x", type="order_completed", channel="web", properties=secret)
    await live.take(his, *story(900))
    await live.tick(T0 + 2_000 * SECOND)
    store, epoch = await elect(live)
    lineage = await store.lineage()
    assert lineage is not None
    assert b"only-his" in (lineage.checkpoint or b"")
    async with live.database.bulk() as connection:
        await connection.execute("DELETE FROM analyzer.events WHERE customer = 'u-1'")
    outcome = await rebuild(live.plan())
    assert outcome.learned is False
    after = await store.lineage()
    assert after is not None
    assert after.checkpoint is not None
    assert b"only-his" not in after.checkpoint
    assert after.epoch == epoch + 1
    assert await live.rows("SELECT 1 FROM analyzer.lessons WHERE body LIKE '%only-his%'::bytea") == []
    assert (await rebuild(live.plan())).learned is True


def ticks(at: int) -> list[CustomerEvent]:
    return [Tick(partition=partition, recorded_at=at) for partition in range(PARTITIONS)]


async def test_trials_are_judged_alike_live_and_anew_for_those_too_who_never_come_back(live: Live) -> None:
    events = [*offered(400), *ticks(T0 + 60 * DAY)]
    draw = random.Random(9)
    rest = events
    while rest:
        size = draw.randint(1, 90)
        await live.take(*rest[:size])
        rest = rest[size:]
        if rest and draw.random() < 0.3:
            await live.tick(max(event.recorded_at for event in events[: len(events) - len(rest)]))
    digest, lessons = await apart(events)
    assert await live.digest() == digest
    told = await lessons_of(live)
    assert told == lessons
    steps = Counter(trial.step for trial in trials_of(told))
    assert min(steps[step] for step in ("shown", "look", "engaged", "converted")) > 3
    assert any(trial.judged and trial.ghost for trial in trials_of(told))
    outcome_ = await rebuild(live.plan())
    assert (outcome_.live, outcome_.rebuilt, outcome_.models, outcome_.lessons) == (digest, digest, 0, 0)
    assert await lessons_of(live) == told


def trials_of(rows: Sequence[tuple[Any, ...]]) -> list[TrialLesson]:
    found = [decode_lesson(row[4]) for row in rows]
    return [lesson for lesson in found if isinstance(lesson, TrialLesson)]


async def test_trials_that_were_damaged_are_served_anew_and_go_on(live: Live) -> None:
    events = [*offered(200, days=3), *ticks(T0 + 4 * DAY)]
    await live.take(*events)
    digest, told = await live.digest(), await lessons_of(live)
    async with live.database.connection() as connection:
        await connection.execute("UPDATE analyzer.trials SET due = 1, body = 'x' WHERE number % 2 = 0")
        await connection.execute("DELETE FROM analyzer.trials WHERE number % 3 = 0")
        await connection.execute("DELETE FROM analyzer.lessons WHERE kind = 'trial' AND number % 2 = 0")
    outcome_ = await rebuild(live.plan())
    assert (outcome_.live == digest, outcome_.rebuilt) == (False, digest)
    assert outcome_.models > 0 < outcome_.lessons
    assert (await live.digest(), await lessons_of(live)) == (digest, told)
    more = [*offered(50, seed=6, first=500, days=3), *ticks(T0 + 30 * DAY)]
    later = [msgspec.structs.replace(event, recorded_at=event.recorded_at + 4 * DAY) for event in more]
    await live.take(*later)
    whole, lessons = await apart([*events, *later])
    assert await live.digest() == whole
    # A switch takes order numbers of its own, so that only what was taught is compared.
    assert [row[4] for row in await lessons_of(live)] == [row[4] for row in lessons]
