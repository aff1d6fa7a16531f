"""Slices on both stores: what is counted, what is kept, who may write, and what a rebuild makes of it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
import pytest

from deploy.local.postgres import EmbeddedPostgres
from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Assignment, Headers, Message
from libs.common.clock import DAY, ManualClock
from libs.common.contracts.customer_event import (
    ConsentGiven,
    CustomerEvent,
    DecidedOffer,
    Decision,
    Erasure,
    IdentityLinked,
    Outcome,
    SpoolReported,
    Tick,
    Touchpoint,
    encode_event,
)
from libs.common.contracts.customer_model import decode_items, decode_profile
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.marker import MARKER_KEY
from libs.common.contracts.progress import decode_progress
from libs.common.contracts.topics import CUSTOMER_EVENTS, CUSTOMER_MODELS, PROGRESS, TOPICS
from libs.common.db import Database
from libs.common.errors import Fenced, Invalid, Transient
from libs.common.telemetry import Metrics
from services.analyzer.consumer import AnalyzerProcessor
from services.analyzer.errors import TooManyDeadLetters, UnknownCustomer
from services.analyzer.handlers.queries import Queries
from services.analyzer.metrics import AnalyzerMetrics
from services.analyzer.model.digest import whole_digest
from services.analyzer.model.erased import KeyHasher
from services.analyzer.model.facts import Decided, Ordered, SoldLine, decode_fact
from services.analyzer.model.lessons import OrderLesson, decode_lesson
from services.analyzer.model.letters import LetterFilter
from services.analyzer.publisher import BusPublisher
from services.analyzer.store.memory import MemoryAnalyzerStore
from services.analyzer.store.postgres import PostgresAnalyzerStore
from services.analyzer.store.reading import PostgresReadStore

T0 = 1_790_000_000_000
SPOOL = "0f3a9c1e"
C7 = partition_of("c-7")


@dataclass
class Stores:
    """The two faces of one store."""

    slices: Any
    reading: Any


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One server for all of these tests, kept by a loop of its own."""
    with asyncio.Runner() as runner:
        server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
        runner.run(server.start(60))
        yield server
        runner.run(server.stop())


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.embedded)])
async def stores(request: pytest.FixtureRequest, postgres: EmbeddedPostgres) -> AsyncIterator[Stores]:
    if request.param == "memory":
        memory = MemoryAnalyzerStore()
        yield Stores(memory, memory)
        return
    database = Database(postgres.address, size=4)
    schema = f"analyzer_{word()}"
    slices = PostgresAnalyzerStore(database, schema)
    await slices.prepare()
    yield Stores(
        slices,
        PostgresReadStore(database, schema),
    )
    await database.close()


def word() -> str:
    """A name no other test has used; schemas are spelt with letters only."""
    return uuid.uuid4().hex[:12].translate(str.maketrans("0123456789", "ghijklmnop"))


async def models_digest(store: Any) -> str:
    """Of all customer models."""
    return whole_digest([await store.digest(partition) for partition in range(PARTITIONS)])


@dataclass
class Rig:
    stores: Stores
    bus: MemoryBus
    publisher: BusPublisher
    processor: AnalyzerProcessor
    offset: int = 0

    async def claim(self, *partitions: int, generation: int = 1) -> dict[int, int]:
        cluster = await self.bus.cluster_id()
        offsets = dict(await self.processor.claim(Assignment(frozenset(partitions), generation, cluster)))
        for partition in partitions:
            await self.processor._owned[partition].caught_up.wait()
        return offsets

    def messages(
        self, *events: CustomerEvent | bytes, first: int = 1, spool: str = SPOOL, floor: int | None = None
    ) -> list[Message]:
        found = []
        for seq, event in enumerate(events, first):
            value = event if isinstance(event, bytes) else encode_event(event)
            headers: Headers = (
                ("schema", b"customer-event/1"),
                ("spool", spool.encode()),
                ("seq", b"%d" % seq),
            )
            if floor is not None and seq == first:
                headers = (*headers, ("floor", b"%d" % floor))
            found.append(Message(CUSTOMER_EVENTS, C7, self.offset, b"k", value, headers, 0))
            self.offset += 1
        return found

    async def told(self) -> Any:
        """The newest progress of the partition, once nothing waits any more."""
        for _ in range(400):
            if not self.publisher._waits(C7):
                break
            await asyncio.sleep(0.005)
        records = [decode_progress(m.value or b"") for m in self.bus.records(PROGRESS) if m.key == b"%d" % C7]
        return records[-1] if records else None


def make_rig(stores: Stores, bus: MemoryBus, **options: Any) -> Rig:
    metrics = AnalyzerMetrics(Metrics("analyzer"))
    publisher = BusPublisher(bus, stores.slices, Random(1), metrics)
    processor = AnalyzerProcessor(
        stores.slices,
        publisher,
        metrics,
        ManualClock(T0),
        Random(2),
        hasher=KeyHasher(b"k" * 32),
        **{"cache_bytes": 1_000_000, "dead_letter_share": 0.5, **options},
    )
    return Rig(stores, bus, publisher, processor)


@pytest.fixture
async def bus() -> MemoryBus:
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    return bus


@pytest.fixture
async def rig(stores: Stores, bus: MemoryBus) -> AsyncIterator[Rig]:
    rig = make_rig(stores, bus)
    running = asyncio.create_task(rig.publisher.run())
    yield rig
    await rig.processor.release(frozenset(range(12)))
    running.cancel()
    await asyncio.wait([running])


def base(id_: str, at: int = T0, customer: str = "c-7", **more: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "source": "shop",
        "customer": customer,
        "occurred_at": at,
        "recorded_at": at + 5,
        **more,
    }


def view(id_: str, at: int = T0, product: str = "tea", **more: Any) -> Touchpoint:
    return Touchpoint(
        **base(id_, at, **more), type="product_viewed", channel="web", properties={"product_id": product}
    )


def order(id_: str, at: int = T0, *lines: tuple[str, float, float | None], **more: Any) -> Touchpoint:
    products = [{"product_id": p, "quantity": q, "price": price} for p, q, price in lines]
    return Touchpoint(
        **base(id_, at, **more),
        type="order_completed",
        channel="store",
        properties={"order_id": id_, "products": products},
    )


def decision(id_: str, at: int = T0) -> Decision:
    offer = DecidedOffer(
        offer_id="product:filter",
        product_id="filter",
        kind="cross_sell",
        rank=1,
        score=0.2,
        propensity=1.0,
        mean=0.2,
        source="complements",
    )
    return Decision(
        **{**base(id_, at), "source": "recommender"},
        placement="basket",
        channel="web",
        group="treatment",
        policy_version="fixed-1",
        model_version=1,
        catalogue_version=1,
        seed=1,
        objective="uplift",
        offers=(offer,),
    )


def clicked(decision_id: str, at: int = T0, word: str = "clicked") -> Outcome:
    return Outcome(
        **{**base(f"{decision_id}/product:filter/{word}", at), "source": "feedback"},
        decision_id=decision_id,
        offer_id="product:filter",
        outcome=word,
    )


def story() -> list[CustomerEvent]:
    return [
        view("v-1"),
        order("o-1", T0 + 1_000, ("coffee", 2, 7.5), ("filter", 1, None)),
        Tick(partition=C7, recorded_at=T0 + 2_000),
        decision("d-1", T0 + 3_000),
        clicked("d-1", T0 + 4_000),
        IdentityLinked(**base("l-1", T0 + 5_000), customer_id="c-7", anonymous_id="v-3"),
        ConsentGiven(**base("k-1", T0 + 6_000), purpose="personalisation", granted=False, channel="email"),
        view("v-1"),
        SpoolReported(
            spool=SPOOL,
            service="collector",
            recorded_at=T0 + 7_000,
            accepted={"shop": 5, "feedback": 1, "recommender": 1},
        ),
    ]


def models_on(bus: MemoryBus, partition: int | None = None) -> list[Message]:
    """What was published of models, without markers."""
    return [m for m in bus.records(CUSTOMER_MODELS, partition) if m.key != MARKER_KEY]


async def ledger_of(rig: Rig) -> Any:
    return await Queries(rig.stores.reading).ledger()


async def test_slice_counts_keeps_and_publishes(rig: Rig) -> None:
    assert await rig.claim(C7) == {C7: 0}
    await rig.processor.process(C7, rig.messages(*story()))
    told = await rig.told()
    assert told.applied == {SPOOL: 9}
    assert told.journal_time == T0 + 7_000
    assert told.counters == {"applied": 6, "duplicate": 1, "internal": 2}
    records = {m.key: m for m in models_on(rig.bus, C7)}
    assert set(records) == {b"c-7/profile", b"c-7/items"}
    assert told.models_offset == 3, "two parts, and the marker of the first claim"
    assert records[b"c-7/profile"].header("revision") == b"6"
    assert records[b"c-7/items"].header("revision") == b"2"
    profile = decode_profile(records[b"c-7/profile"].value or b"")
    assert profile.totals == {
        "product_viewed": 1,
        "order_completed": 1,
        "decision_made": 1,
        "clicked": 1,
        "identity_linked": 1,
        "consent_refused": 1,
    }
    assert profile.decisions[0].outcomes == ("clicked",)
    assert decode_items(records[b"c-7/items"].value or b"").items["coffee"].quantity == 2.0
    ledger = await ledger_of(rig)
    assert (ledger.accepted, ledger.applied, ledger.duplicate, ledger.in_flight) == (7, 6, 1, 0)
    assert ledger.balanced


async def test_lesson_is_written_with_the_order(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*story()))
    rows = await lessons(rig.stores)
    assert [(row[0], row[1], row[2], row[3]) for row in rows] == [(C7, 2, (T0 + 1_005) // 1000, "order")]
    lesson = decode_lesson(rows[0][4])
    assert isinstance(lesson, OrderLesson)
    assert lesson.at == T0 + 1_005
    assert lesson.lines == [("coffee", 2.0, 7.5), ("filter", 1.0, None)]


@pytest.mark.embedded
async def test_facts_are_read_by_an_index_and_for_longer_than_other_statements(
    postgres: EmbeddedPostgres,
) -> None:
    database, hasty = Database(postgres.address, size=2), Database(postgres.address, size=2, timeout=0.3)
    schema = f"analyzer_{word()}"
    await PostgresAnalyzerStore(database, schema).prepare()
    async with database.bulk() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        plan = await connection.fetch(
            f"EXPLAIN SELECT * FROM {schema}.facts WHERE kind = 'ordered' ORDER BY partition, number"
        )
        assert "facts_kind" in str(plan)
        assert "Sort" not in str(plan)
        await connection.execute(
            f"ALTER TABLE {schema}.facts RENAME TO many;"
            f"INSERT INTO {schema}.many VALUES (1, 2, 'c', 3, 'ordered', 'x');"
            f"CREATE VIEW {schema}.facts AS SELECT many.* FROM {schema}.many, pg_sleep(0.8)"
        )
    rows = [row async for rows in PostgresReadStore(hasty, schema).facts() for row in rows]
    assert [row.number for row in rows] == [2]
    await hasty.close()
    await database.close()


async def test_facts_are_written_with_what_tells_them(rig: Rig) -> None:
    await rig.claim(C7)
    left_out = [
        msgspec.structs.replace(decision("d-forced", T0 + 8_000), forced=True),
        msgspec.structs.replace(decision("d-replay", T0 + 8_001), replay=True),
        msgspec.structs.replace(order("o-unsure", T0 + 8_002, ("tea", 1, 1.0)), learn=False),
        msgspec.structs.replace(order("o-echo", T0 + 8_003, ("tea", 1, 1.0)), echo=True),
    ]
    await rig.processor.process(C7, rig.messages(*story(), *left_out))
    rows = [row async for rows in rig.stores.reading.facts() for row in rows]
    assert [(row.number, row.customer, row.kind) for row in rows] == [
        (3, "c-7", "decided"),
        (2, "c-7", "ordered"),
    ]
    decided, ordered = (decode_fact(row.body) for row in rows)
    assert decided == Decided("basket", "treatment")
    assert ordered == Ordered("o-1", (SoldLine("coffee", 2.0, 7.5), SoldLine("filter", 1.0, None)))
    await rig.processor.process(C7, rig.messages(decision("d-2", T0 + 9_000), first=20))
    rows = [row async for rows in rig.stores.reading.facts() for row in rows if row.kind == "decided"]
    assert min(row.at for row in rows) == T0 + 3_000
    assert {row.number for row in rows} >= {3}


async def lessons(stores: Stores) -> list[tuple[Any, ...]]:
    if isinstance(stores.slices, MemoryAnalyzerStore):
        return [tuple(row) for _, row in sorted(stores.slices.lessons.items())]
    store = stores.slices
    async with store._database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT partition, number, second, kind, body, part FROM {store._schema}.lessons"
            " ORDER BY number, part"
        )
    return [tuple(row) for row in rows]


async def test_redelivery_is_skipped_and_not_counted(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*story()))
    before = await models_digest(rig.stores.reading)
    await rig.processor.process(C7, rig.messages(*story()))
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.duplicate, ledger.redelivered) == (6, 1, 9)
    assert ledger.balanced
    assert await models_digest(rig.stores.reading) == before


async def test_gap_is_passed_over_until_the_spool_has_sent_again(rig: Rig) -> None:
    await rig.claim(C7)
    other = "feedbac4"
    report = SpoolReported(spool=SPOOL, service="collector", recorded_at=T0, accepted={"shop": 5})
    await rig.processor.process(C7, rig.messages(view("a"), report))
    await rig.processor.process(C7, rig.messages(view("d"), view("e"), first=5))
    await rig.processor.process(C7, rig.messages(view("z"), spool=other))
    assert (await rig.told()).applied == {SPOOL: 2, other: 1}
    ledger = await ledger_of(rig)
    assert (ledger.gaps, ledger.applied, ledger.in_flight, ledger.balanced) == (2, 2, 3, True)
    repaired = [view("b"), view("c"), view("d"), view("e")]
    await rig.processor.process(C7, rig.messages(*repaired, first=3))
    assert (await rig.told()).applied == {SPOOL: 6, other: 1}
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.in_flight, ledger.balanced) == (6, 0, True)
    entries = await Queries(rig.stores.reading).timeline("c-7", 10, None)
    assert {entry.id for entry in entries} == set("abcdez")


async def test_numbers_of_a_spool_begin_late_only_where_it_says_so(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(view("c"), first=3))
    assert (await rig.told()).applied == {}
    await rig.processor.process(C7, rig.messages(view("c"), view("d"), first=3, floor=2))
    assert (await rig.told()).applied == {SPOOL: 4}


async def test_spool_that_ended_leaves_a_day_later_and_a_silent_one_after_thirty(rig: Rig) -> None:
    ended, silent = "e17ded00", "51131700"
    await rig.claim(C7)
    over = SpoolReported(spool=ended, service="collector", recorded_at=T0, accepted={}, ended=True)
    await rig.processor.process(C7, rig.messages(view("a"), over, spool=ended))
    await rig.processor.process(C7, rig.messages(view("b"), spool=silent))

    async def pass_time(seq: int, days: float) -> set[str]:
        # Twice: who was alive a slice ago stays in this one.
        at = T0 + int(days * DAY)
        for number in (seq, seq + 1):
            await rig.processor.process(
                C7, rig.messages(Tick(partition=C7, recorded_at=at), first=number, spool="71c50000")
            )
        rig.publisher._lanes[C7].due = 0.0
        rig.publisher._wake.set()
        return set((await rig.told()).applied) - {"71c50000"}

    assert await pass_time(1, 0.9) == {ended, silent}
    assert await pass_time(3, 1.1) == {silent}
    assert await pass_time(5, 29) == {silent}
    assert await pass_time(7, 32) == set()
    assert (await ledger_of(rig)).balanced
    await rig.processor.process(C7, rig.messages(view("b"), view("c", T0 + 32 * DAY), spool=silent))
    assert (await rig.told()).applied[silent] == 2
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.redelivered, ledger.balanced) == (3, 1, True)


async def test_slice_is_written_once_however_late_a_lost_commit_comes(rig: Rig) -> None:
    """A commit whose answer was lost ends after the owner has read the state again: the second must fail."""
    await rig.claim(C7)
    owned = rig.processor._owned[C7]
    for message in (rig.messages(view("a")), rig.messages(Tick(partition=C7, recorded_at=T0), first=2)):
        slice_ = await rig.processor._handler.prepare(owned.state, owned.cache, message)
        assert slice_ is not None
        await rig.stores.slices.write(slice_.write)
        with pytest.raises(Transient):
            await rig.stores.slices.write(slice_.write)
        owned.state = slice_.write.state
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.internal, ledger.balanced) == (1, 1, True)


async def test_lower_generation_claims_only_where_the_owner_is_silent(rig: Rig) -> None:
    """A group whose coordinator lost it begins at generation 0 in the same cluster."""
    await rig.claim(C7, generation=7)
    with pytest.raises(Fenced):
        await rig.claim(C7, generation=1)
    if isinstance(rig.stores.slices, MemoryAnalyzerStore):
        rig.stores.slices.silent = True
    else:
        store = rig.stores.slices
        async with store._database.bulk() as connection:
            await connection.execute(
                f"UPDATE {store._schema}.partitions SET touched_at = now() - interval '61 seconds'"
            )
    assert await rig.claim(C7, generation=1) == {C7: 0}
    await rig.claim(C7, generation=1)


async def test_id_counts_again_after_thirty_days_of_journal_time(rig: Rig) -> None:
    await rig.claim(C7)
    later = T0 + 31 * DAY
    await rig.processor.process(C7, rig.messages(view("a"), view("a", T0 + 29 * DAY)))
    await rig.processor.process(C7, rig.messages(view("a", later), view("a", later + 5), first=3))
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.duplicate) == (2, 2)
    ids = [entry.id for entry in await Queries(rig.stores.reading).timeline("c-7", 10, None)]
    assert len(set(ids)) == 2
    assert "a" in ids


async def test_bad_records_become_dead_letters_with_origin_and_reason(rig: Rig) -> None:
    await rig.claim(C7)
    bad_order = Touchpoint(**base("x"), type="order_completed", channel="web", properties={"order_id": 7})
    other = view("y", customer="c-8" if partition_of("c-8") != C7 else "c-9")
    await rig.processor.process(
        C7,
        rig.messages(
            b"{", b'{"source":"shop","kind":"unheard"}', b"[" * 20_000, bad_order, other, view("good")
        ),
    )
    rows = await rig.stores.reading.dead_letters(LetterFilter(), None, 10)
    letters = [row.letter for row in rows]
    assert {letter.code for letter in letters} == {"undecodable", "wrong_type", "wrong_partition"}
    assert {letter.seq for letter in letters} == {1, 2, 3, 4, 5}
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.dead_lettered, ledger.balanced) == (1, 5, True)
    assert {line.source: line.dead_lettered for line in ledger.by_source} == {"shop": 3, "unknown": 2}


async def test_too_many_dead_letters_stop_with_nothing_stored(rig: Rig) -> None:
    await rig.claim(C7)
    with pytest.raises(TooManyDeadLetters):
        await rig.processor.process(C7, rig.messages(*[b"{"] * 1_000))
    assert (await ledger_of(rig)).dead_lettered == 0


async def test_zombie_is_fenced_and_changes_nothing(rig: Rig, bus: MemoryBus) -> None:
    await rig.claim(C7, generation=1)
    await rig.processor.process(C7, rig.messages(view("a")))
    heir = make_rig(rig.stores, bus)
    assert await heir.claim(C7, generation=2) == {C7: 1}
    with pytest.raises(Fenced):
        await rig.processor.process(C7, rig.messages(view("b"), first=2))
    with pytest.raises(Fenced):
        await rig.claim(C7, generation=1)
    assert (await ledger_of(rig)).applied == 1
    await heir.processor.release(frozenset({C7}))


class Freezer:
    """A producer in whose sends the process may be stopped; `time` is what its monotonic clock says."""

    def __init__(self, inner: Any, rig: Rig) -> None:
        self.inner = inner
        self.thaw: Any = None
        self.now = 0.0
        rig.publisher._monotonic = lambda: self.now

    async def send(self, topic: str, partition: int, records: Any) -> int:
        if self.thaw is not None and topic == CUSTOMER_MODELS:
            thaw, self.thaw = self.thaw, None
            await thaw()
        return int(await self.inner.send(topic, partition, records))

    async def close(self) -> None:
        await self.inner.close()


@pytest.mark.parametrize("frozen", ["before the send", "within the send"])
async def test_zombie_leaves_no_older_model_behind_the_newer_one(
    rig: Rig, bus: MemoryBus, frozen: str
) -> None:
    """A compacted topic keeps what came last: there it must not be what a stopped process still had."""
    await rig.claim(C7, generation=1)
    await rig.told()
    freezer = Freezer(rig.publisher._producer, rig)
    rig.publisher._producer = freezer
    heir = make_rig(rig.stores, bus)
    running = asyncio.create_task(heir.publisher.run())

    async def others_go_on() -> None:
        freezer.now += 30.0
        await heir.claim(C7, generation=2)
        heir.offset = rig.offset
        await heir.processor.process(C7, heir.messages(view("b"), first=2))
        await heir.told()

    rig.publisher.renew(C7, 0.0)
    if frozen == "within the send":
        freezer.thaw = others_go_on
        await rig.processor.process(C7, rig.messages(view("a")))
        rig.publisher.renew(C7, 0.0)
    else:
        rig.publisher._producer = None
        await rig.processor.process(C7, rig.messages(view("a")))
        rig.publisher.renew(C7, 0.0)
        await others_go_on()
        rig.publisher._producer = freezer
        rig.publisher._wake.set()
    for _ in range(100):
        await asyncio.sleep(0.005)
    newest = {m.key: m.header("revision") for m in models_on(bus, C7)}
    assert newest == {b"c-7/profile": b"2", b"c-7/items": b"2"}
    told = [decode_progress(m.value or b"") for m in bus.records(PROGRESS) if m.key == b"%d" % C7]
    assert told[-1].epoch == 2
    running.cancel()
    await asyncio.wait([running])


async def test_zombie_leaves_no_model_of_who_was_erased_meanwhile(rig: Rig, bus: MemoryBus) -> None:
    """Erased, withdrawn and purged while it was stopped: the database has nothing to put right by."""
    await rig.claim(C7, generation=1)
    await rig.told()
    freezer = Freezer(rig.publisher._producer, rig)
    rig.publisher._producer = freezer
    heir = make_rig(rig.stores, bus)
    running = asyncio.create_task(heir.publisher.run())

    async def others_erase() -> None:
        freezer.now += 30.0
        await heir.claim(C7, generation=2)
        heir.offset = rig.offset
        await heir.processor.process(C7, heir.messages(Erasure(**base("e")), first=2))
        told = await heir.told()
        store = rig.stores.slices
        await getattr(store, "_erasures", store).purge(C7, told.counters["applied"], 0)
        assert await store.unpublished(C7, 0, ("", ""), 10) == []

    freezer.thaw = others_erase
    await rig.processor.process(C7, rig.messages(view("a")))
    rig.publisher.renew(C7, 0.0)
    for _ in range(100):
        await asyncio.sleep(0.005)
    assert {m.key: m.value for m in models_on(bus, C7)} == {b"c-7/profile": None, b"c-7/items": None}
    running.cancel()
    await asyncio.wait([running])


async def test_partitions_side_by_side_are_all_watched(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    other = (C7 + 1) % PARTITIONS
    await rig.claim(C7, other)
    write = rig.stores.slices.write

    async def slow(slice_: Any) -> None:
        await asyncio.sleep(0.02)
        await write(slice_)

    monkeypatch.setattr(rig.stores.slices, "write", slow)
    messages = rig.messages(b"{", Tick(partition=C7, recorded_at=T0))
    theirs = [message._replace(partition=other) for message in messages]
    await asyncio.gather(rig.processor.process(C7, messages), rig.processor.process(other, theirs))
    assert rig.processor._watched == (4, 2)


async def test_write_in_doubt_has_errands_looked_for(rig: Rig) -> None:
    """It may have met a rebuild that withdrew models: somebody has to purge them."""
    await rig.claim(C7)
    rig.processor.errands.clear()
    rig.processor._owned[C7].certain = False
    await rig.processor.process(C7, rig.messages(view("a")))
    assert rig.processor.errands.is_set()


async def test_heir_publishes_what_the_owner_committed_and_did_not_publish(
    stores: Stores, bus: MemoryBus
) -> None:
    crashed = make_rig(stores, bus)
    await crashed.claim(C7)
    running = asyncio.create_task(crashed.publisher.run())
    await crashed.told()
    running.cancel()
    await asyncio.wait([running])
    await crashed.processor.process(C7, crashed.messages(*story()))
    assert models_on(bus) == []
    heir = make_rig(stores, bus)
    running = asyncio.create_task(heir.publisher.run())
    assert await heir.claim(C7, generation=2) == {C7: 9}
    await asyncio.sleep(0.05)
    told = await heir.told()
    assert told.applied == {SPOOL: 9}
    assert told.epoch == 2
    assert {m.key for m in models_on(bus)} == {b"c-7/profile", b"c-7/items"}
    running.cancel()
    await asyncio.wait([running])


async def test_new_cluster_gets_all_models_again_and_revisions_go_on(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*story()))
    await rig.told()
    rig.bus.replace_cluster("memory-2")
    await rig.bus.ensure_topics(TOPICS)
    assert await rig.claim(C7, generation=0) == {C7: 0}
    rig.offset = 0
    await rig.processor.process(C7, rig.messages(*story(), view("new", T0 + 9_000)))
    told = await rig.told()
    assert told.cluster == "memory-2"
    assert told.applied == {SPOOL: 10}
    newest = {m.key: m.header("revision") for m in models_on(rig.bus, C7)}
    assert newest == {b"c-7/profile": b"7", b"c-7/items": b"7"}
    ledger = await ledger_of(rig)
    assert (ledger.applied, ledger.redelivered, ledger.balanced) == (7, 9, True)


async def test_commit_whose_answer_was_lost_is_found_and_published(bus: MemoryBus) -> None:
    memory = MemoryAnalyzerStore()
    rig = make_rig(Stores(memory, memory), bus)
    running = asyncio.create_task(rig.publisher.run())
    await rig.claim(C7)
    memory.fail_after_commit = True
    messages = rig.messages(*story())
    with pytest.raises(Transient):
        await rig.processor.process(C7, messages)
    await rig.processor.process(C7, messages)
    told = await rig.told()
    assert told.applied == {SPOOL: 9}
    assert len(memory.stored) == 6
    assert len(models_on(bus)) == 2
    running.cancel()
    await asyncio.wait([running])


async def test_database_away_is_transient_and_heals(bus: MemoryBus) -> None:
    memory = MemoryAnalyzerStore()
    rig = make_rig(Stores(memory, memory), bus)
    running = asyncio.create_task(rig.publisher.run())
    await rig.claim(C7)
    await rig.told()
    memory.away = True
    messages = rig.messages(*story())
    with pytest.raises(Transient):
        await rig.processor.process(C7, messages)
    memory.away = False
    await rig.processor.process(C7, messages)
    assert len(memory.stored) == 6
    running.cancel()
    await asyncio.wait([running])


def long_story(random: Random, length: int) -> list[CustomerEvent]:
    """Events of some customers of one partition, with late ones and repeats among them."""
    customers = [f"u-{n}" for n in range(200) if partition_of(f"u-{n}") == C7][:5]
    events: list[CustomerEvent] = []
    for n in range(length):
        at = T0 + n * 3_600_000 - random.choice([0, 0, 0, 5 * DAY])
        customer, product = random.choice(customers), f"p-{random.randrange(20)}"
        draw = random.random()
        if draw < 0.5:
            events.append(view(f"e-{random.randrange(n + 1)}", at, product, customer=customer))
        elif draw < 0.9:
            lines = [
                (f"p-{random.randrange(20)}", random.randint(1, 3), random.random() * 9) for _ in range(4)
            ]
            events.append(order(f"o-{n}", at, *lines, customer=customer))
        else:
            events.append(Tick(partition=C7, recorded_at=at))
    return events


@pytest.mark.parametrize("length", [1, 2, 7, 400])
async def test_slice_boundaries_change_no_bit(bus: MemoryBus, length: int) -> None:
    digests = []
    for size in (length, 400):
        memory = MemoryAnalyzerStore()
        rig = make_rig(Stores(memory, memory), bus, cache_bytes=0 if size == length else 10**6)
        await rig.claim(C7)
        messages = rig.messages(*long_story(Random(6), 200))
        for first in range(0, len(messages), size):
            owned = rig.processor._owned[C7]
            slice_ = await rig.processor._handler.prepare(
                owned.state, owned.cache, messages[first : first + size]
            )
            assert slice_ is not None
            await memory.write(slice_.write)
            rig.processor._remember(owned, slice_.write.state, slice_)
        digests.append((await models_digest(memory), memory.states[C7], memory.stored, memory.lessons))
        await rig.processor.release(frozenset({C7}))
    assert digests[0] == digests[1]


async def test_timeline_pages_through_everything_that_counted(rig: Rig) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*story(), *(view(f"w-{n}", T0 + n) for n in range(40))))
    queries = Queries(rig.stores.reading)
    whole = await queries.timeline("c-7", 1000, None)
    assert len(whole) == 46
    assert [entry.occurred_at for entry in whole] == sorted((e.occurred_at for e in whole), reverse=True)
    paged, before = [], None
    while page := await queries.timeline("c-7", 7, before):
        paged += page
        before = page[-1].id
    assert paged == whole
    kinds = {entry.id: (entry.kind, entry.type) for entry in whole}
    assert kinds["d-1"] == ("decision", "decision_made")
    assert kinds["d-1/product:filter/clicked"] == ("outcome", "clicked")
    assert kinds["l-1"] == ("identity", "identity_linked")
    assert kinds["k-1"] == ("consent", "consent_refused")
    with pytest.raises(Invalid):
        await queries.timeline("c-7", 7, "nothing")
    with pytest.raises(UnknownCustomer):
        await queries.timeline("c-8", 7, None)


async def test_timeline_ids_are_unique_among_sources_and_links(stores: Stores, bus: MemoryBus) -> None:
    visitor = next(f"v-{n}" for n in range(1000) if partition_of(f"anon:v-{n}") == C7)
    rig = make_rig(stores, bus)
    await rig.claim(C7)
    at = T0 + 100
    same = [
        view("same"),
        view("same", at, customer=f"anon:{visitor}"),
        Touchpoint(**{**base("same", at + 1), "source": "app"}, type="page_viewed", channel="app"),
        IdentityLinked(**base("l", at + 2), customer_id="c-7", anonymous_id=visitor),
        IdentityLinked(
            **base("l", at + 2, customer=f"anon:{visitor}", internal=True),
            customer_id="c-7",
            anonymous_id=visitor,
        ),
    ]
    await rig.processor.process(C7, rig.messages(*same))
    queries = Queries(stores.reading)
    entries = await queries.timeline("c-7", 100, None)
    assert len({entry.id for entry in entries}) == 4
    assert entries[-1].id == "same"
    rest = await queries.timeline("c-7", 100, entries[1].id)
    assert rest == entries[2:]
    seen = await queries.customer("c-7")
    assert seen.totals["product_viewed"] == 2
    assert seen.links == [f"anon:{visitor}"]
    assert (await queries.customer(f"anon:{visitor}")).owner == "c-7"
    await rig.processor.release(frozenset({C7}))


async def test_what_is_published_is_not_published_again_by_the_heir(rig: Rig, bus: MemoryBus) -> None:
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(view("a")))
    await rig.told()
    await rig.processor.process(C7, rig.messages(Tick(partition=C7, recorded_at=T0 + 9), first=2))
    assert len(models_on(bus)) == 2
    heir = make_rig(rig.stores, bus)
    running = asyncio.create_task(heir.publisher.run())
    await heir.claim(C7, generation=2)
    assert (await heir.told()).models_offset == 3
    assert len(models_on(bus)) == 2
    await heir.processor.release(frozenset({C7}))
    running.cancel()
    await asyncio.wait([running])


async def test_visitor_of_another_customer_is_not_read_with_his_link(rig: Rig) -> None:
    visitor = next(f"v-{n}" for n in range(1000) if partition_of(f"anon:v-{n}") == C7)
    other = next(f"o-{n}" for n in range(1000) if partition_of(f"o-{n}") == C7)

    def link(id_: str, customer: str, owner: str) -> IdentityLinked:
        return IdentityLinked(
            **base(id_, customer=customer, internal=customer != owner),
            customer_id=owner,
            anonymous_id=visitor,
        )

    anonymous = f"anon:{visitor}"
    events = [
        view("a", customer=anonymous),
        link("1", other, other),
        link("2", anonymous, other),
        link("3", "c-7", "c-7"),
        link("4", anonymous, "c-7"),
    ]
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(*events))
    queries = Queries(rig.stores.reading)
    assert "product_viewed" in (await queries.customer(other)).totals
    assert "product_viewed" not in (await queries.customer("c-7")).totals
    assert [entry.id for entry in await queries.timeline("c-7", 10, None)] == ["3"]
    assert [entry.id for entry in await queries.timeline(other, 1, None)] == ["1"]
    assert {entry.id for entry in await queries.timeline(other, 10, None)} == {"a", "1"}
    told = {key: b"".join([piece async for piece in await queries.export(key)]) for key in ("c-7", other)}
    events = {key: {event["id"] for event in json.loads(text)["events"]} for key, text in told.items()}
    assert events == {"c-7": {"3", "4"}, other: {"a", "1", "2"}}


async def test_updates_of_hot_tables_stay_within_their_page(rig: Rig) -> None:
    """An index on what each slice changes would make every update write all indexes, and tables swell."""
    store = rig.stores.slices
    if isinstance(store, MemoryAnalyzerStore):
        pytest.skip("only PostgreSQL has pages")
    await rig.claim(C7)
    await rig.processor.process(C7, rig.messages(view("v")))
    for n in range(60):
        await rig.processor.process(C7, rig.messages(view(f"v-{n}", T0 + n), first=n + 2))
    found = {}
    async with asyncio.timeout(20), store._database.connection() as connection:
        while len(found) < 3 or any(updates < 60 for updates, _ in found.values()):
            await connection.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
            rows = await connection.fetch(
                "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
                " WHERE schemaname = $1 AND relname IN ('models', 'partitions', 'fates')",
                store._schema,
            )
            found = {row[0]: (row[1], row[2]) for row in rows}
            await asyncio.sleep(0.05)
    assert all(within >= 0.9 * updates for updates, within in found.values()), found
