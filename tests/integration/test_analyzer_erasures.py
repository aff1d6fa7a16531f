"""Erasures on both stores: what goes, what is told to other partitions, and what never comes back."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, cast

import msgspec
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Record
from libs.common.clock import DAY
from libs.common.contracts.customer_event import (
    CustomerEvent,
    Decision,
    Erasure,
    IdentityLinked,
    SpoolReported,
    Tick,
    Touchpoint,
    decode_event,
    encode_event,
)
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.topics import CUSTOMER_EVENTS, CUSTOMER_MODELS
from libs.common.errors import Fenced, Invalid, Transient
from services.analyzer.errands import Errands
from services.analyzer.handlers import erasing
from services.analyzer.handlers.folding import fold_into
from services.analyzer.handlers.queries import Queries
from services.analyzer.intake import Intake
from services.analyzer.metrics import AnalyzerMetrics
from services.analyzer.model.erased import KeyHasher
from services.analyzer.model.erasures import Erased, EventRow, SuppressedRow
from services.analyzer.rebuild.partition import PartitionRebuild
from services.analyzer.restoring import Restoring
from services.analyzer.store.erasing import erase
from services.analyzer.store.memory import MemoryAnalyzerStore, MemoryErasedKeys
from services.analyzer.store.rebuilding import PostgresRebuildStore
from tests.integration.test_analyzer_slices import (
    SPOOL,
    T0,
    Rig,
    Stores,
    base,
    bus,
    clicked,
    decision,
    order,
    postgres,
    rig,
    stores,
    view,
)
from tests.unit.test_trials import decision as offered
from tests.unit.test_trials import order as bought

__all__ = ["bus", "postgres", "rig", "stores"]

KEY = "c-erase-me"
VISITOR = "anon:v-erase-me"
TRACES = (KEY.encode(), VISITOR.removeprefix("anon:").encode())


class World:
    """A rig whose partitions are all ours, fed from the bus as a consumer would."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.file = MemoryErasedKeys()
        self.errands = Errands(
            rig.processor,
            rig.stores.slices if hasattr(rig.stores.slices, "notices") else rig.stores.slices._erasures,
            rig.publisher,
            rig.bus,
            Random(3),
            rig.processor._metrics,
            self.file,
        )
        self.read = dict.fromkeys(range(PARTITIONS), 0)
        self.seq = dict.fromkeys(range(PARTITIONS), 0)

    async def post(self, *events: CustomerEvent | tuple[str, bytes]) -> None:
        """Put ``events`` on the journal as one spool would; (key, value) for what cannot be read."""
        producer = self.rig.bus.producer()
        for event in events:
            if isinstance(event, tuple):
                key, value = event
                partition = partition_of(key)
            elif isinstance(event, Tick):
                key, value, partition = "tick", encode_event(event), event.partition
            else:
                assert not isinstance(event, SpoolReported)
                key, value, partition = event.customer, encode_event(event), partition_of(event.customer)
            self.seq[partition] += 1
            headers = (("spool", SPOOL.encode()), ("seq", b"%d" % self.seq[partition]))
            await producer.send(CUSTOMER_EVENTS, partition, [Record(key.encode(), value, headers)])

    async def apply(self) -> None:
        """Process what is on the journal, partition by partition."""
        for partition in range(PARTITIONS):
            records = self.rig.bus.records(CUSTOMER_EVENTS, partition)
            if len(records) > self.read[partition]:
                await self.rig.processor.process(partition, records[self.read[partition] :])
                self.read[partition] = len(records)

    async def settle(self) -> None:
        """Apply, run errands and publish until nothing is left to be done."""
        for _ in range(200):
            await self.apply()
            left = await self.errands.round()
            unread = any(len(self.rig.bus.records(CUSTOMER_EVENTS, p)) > n for p, n in self.read.items())
            if not left and not unread and not any(map(self.rig.publisher._waits, range(PARTITIONS))):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("errands without end")


@pytest.fixture
async def world(rig: Rig) -> World:
    await rig.claim(*range(PARTITIONS))
    return World(rig)


async def rebuilds_the_same(stores: Any) -> None:
    """What an erasure leaves is what the events that are left come to."""
    if isinstance(stores.slices, MemoryAnalyzerStore):
        return
    schema = stores.slices._schema
    anew = PostgresRebuildStore(stores.slices._database, f"{schema}_rebuild_anew", schema)
    await anew.prepare()
    for partition in range(PARTITIONS):
        await PartitionRebuild(anew, partition).fold()
        told = await PartitionRebuild(anew, partition).settle(switch=False)
        assert told.live == told.rebuilt


def link(customer: str, visitor: str, id_: str, at: int = T0) -> list[IdentityLinked]:
    """Both records of a link."""
    found = []
    for key, internal in ((customer, False), (f"anon:{visitor}", True)):
        more = base(id_, at, customer=key)
        found.append(IdentityLinked(**more, internal=internal, customer_id=customer, anonymous_id=visitor))
    return found


def erasure(customer: str, id_: str = "e-1", at: int = T0 + 60_000) -> Erasure:
    return Erasure(**{**base(id_, at, customer=customer), "source": "dpo"})


def his(customer: str, event: Any) -> Any:
    return msgspec.structs.replace(event, customer=customer)


def life() -> list[CustomerEvent | tuple[str, bytes]]:
    """A customer with a linked visitor, an order of both, a decision, an outcome and a dead letter."""
    return [
        his(VISITOR, view("v-1")),
        *link(KEY, "v-erase-me", "l-1", T0 + 1_000),
        his(KEY, order("o-1", T0 + 2_000, ("tea", 1, 3.0))),
        Touchpoint(
            **base("o-2", T0 + 3_000, customer=VISITOR, internal=True),
            type="order_completed",
            channel="web",
            properties={"order_id": "o-2", "products": [{"product_id": "tea", "quantity": 1, "price": 3.0}]},
            customer_id=KEY,
            anonymous_id="v-erase-me",
            echo=True,
        ),
        his(KEY, decision("d-1", T0 + 4_000)),
        his(KEY, clicked("d-1", T0 + 5_000)),
        (KEY, b'{"kind":"touchpoint","customer":"c-erase-me","broken":'),
        his("c-other", order("o-3", T0 + 6_000, ("tea", 2, 3.0))),
    ]


async def everything(stores: Stores) -> bytes:
    """All that is stored, as bytes."""
    if hasattr(stores.slices, "stored"):
        return repr(vars(stores.slices)).encode()
    database, schema = stores.slices._database, stores.slices._schema
    found = b""
    async with database.connection() as connection:
        tables = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY 1", schema
        )
        for (table,) in tables:
            for row in await connection.fetch(f"SELECT * FROM {schema}.{table}"):
                found += repr(tuple(row)).encode()
    return found


async def test_nothing_of_an_erased_customer_or_his_visitor_is_left(world: World) -> None:
    stores = world.rig.stores
    await world.post(*life())
    await world.settle()
    held = await everything(stores)
    assert all(trace in held for trace in TRACES)
    await world.post(erasure(KEY))
    await world.settle()
    left = await everything(stores)
    for trace in TRACES:
        assert trace not in left
    newest = {m.key: m.value for m in world.rig.bus.records(CUSTOMER_MODELS)}
    for key in (KEY, VISITOR):
        assert newest[f"{key}/profile".encode()] is None
        assert newest[f"{key}/items".encode()] is None
    assert newest[b"c-other/profile"] is not None
    rows = await stores.reading.erasure("e-1")
    assert (rows.waiting, rows.unpublished) == (0, 0)
    assert sorted((row.whole, row.events, row.lessons, row.dead_letters) for row in rows.done) == [
        (True, 3, 0, 0),
        (True, 4, 1, 1),
    ]


async def test_late_events_are_dropped_as_erased_and_the_ledger_balances(world: World) -> None:
    await world.post(*life(), erasure(KEY))
    await world.settle()
    await world.post(
        his(KEY, view("late-1", T0 - 5_000)),
        his(VISITOR, view("late-2")),
        *link(KEY, "v-erase-me", "l-1", T0 + 1_000),
        *link(KEY, "v-late", "l-9", T0 + 1_000),
        (KEY, b"no event"),
        his("c-other", view("late-3")),
    )
    await world.settle()
    ledger = await Queries(world.rig.stores.reading).ledger()
    assert ledger.balanced
    assert ledger.erased == 5  # both views, both links, the unreadable record
    left = await everything(world.rig.stores)
    assert not any(trace in left for trace in (*TRACES, b"v-late"))
    assert b"late-3" in left


async def test_visitor_of_somebody_else_stays_but_forgets_the_erased(world: World) -> None:
    await world.post(
        *link("c-other", "v-shared", "l-1"),
        his("anon:v-shared", view("v-0", T0 + 500)),
        *link(KEY, "v-shared", "l-2", T0 + 1_000),
        his("anon:v-shared", view("v-1", T0 + 2_000)),
        his("anon:v-shared", view("v-2", T0 + 2_000)),
        *link("c-third", "v-shared", "l-3", T0 + 3_000),
        his("anon:v-shared", view("v-3", T0 + 4_000)),
    )
    await world.settle()
    queries = Queries(world.rig.stores.reading)
    counts = [(await queries.customer(each)).totals["product_viewed"] for each in ("c-other", KEY, "c-third")]
    assert counts == [1, 2, 1]
    await rebuilds_the_same(world.rig.stores)
    await world.post(erasure(KEY))
    await world.settle()
    left = await everything(world.rig.stores)
    assert KEY.encode() not in left
    counts = [(await queries.customer(each)).totals["product_viewed"] for each in ("c-other", "c-third")]
    assert counts == [1, 1], "only what was done in his time went with him"
    await rebuilds_the_same(world.rig.stores)


@pytest.mark.parametrize("late", [False, True])
async def test_shared_visitor_of_an_erased_last_owner_is_nobodys(world: World, late: bool) -> None:
    visitor, early = "anon:v-shared", his("anon:v-shared", clicked("never-decided", T0 + 3_000))
    first = [*link("c-other", "v-shared", "l-1"), his(visitor, view("v-1", T0 + 500))]
    waits = his(visitor, clicked("c-others", T0 + 600))
    second = [*link(KEY, "v-shared", "l-2", T0 + 1_000), his(visitor, view("v-2", T0 + 2_000)), early]
    await world.post(*first, waits, *(second if not late else ()))
    await world.post(erasure(KEY), *(second if late else ()))
    await world.settle()
    await world.post(his(visitor, view("v-3", T0 + 70_000)))
    await world.settle()
    queries = Queries(world.rig.stores.reading)
    left = await everything(world.rig.stores)
    assert KEY.encode() not in left
    assert (b"never-decided" in left, b"c-others" in left) == (False, True)
    counts = [(await queries.customer(each)).totals["product_viewed"] for each in ("c-other", visitor)]
    assert counts == [1, 1], "he does not become the owner again of what follows"
    assert (await queries.customer(visitor)).owner is None
    await rebuilds_the_same(world.rig.stores)
    await world.post(
        *link("c-third", "v-shared", "l-3", T0 + 71_000), *link(KEY, "v-shared", "l-4", T0 + 72_000)
    )
    await world.post(his(visitor, view("v-4", T0 + 73_000)))
    await world.settle()
    counts = [(await queries.customer(each)).totals["product_viewed"] for each in ("c-third", visitor)]
    assert counts == [1, 1], "who was erased claims him for nobody, and ends the time of another"
    assert KEY.encode() not in await everything(world.rig.stores)
    await rebuilds_the_same(world.rig.stores)


async def test_erased_visitor_is_taken_out_of_his_customers_records(world: World) -> None:
    both = his(KEY, view("v-2", T0 + 2_000))
    both = msgspec.structs.replace(both, customer_id=KEY, anonymous_id="v-gone")
    decided = msgspec.structs.replace(
        his(KEY, decision("d-2", T0 + 3_000)), customer_id=KEY, anonymous_id="v-gone"
    )
    assert isinstance(decided, Decision)
    await world.post(*link(KEY, "v-gone", "l-1"), *link(KEY, "v-kept", "l-2"), both, decided)
    await world.settle()
    await world.post(erasure("anon:v-gone"))
    await world.settle()
    left = await everything(world.rig.stores)
    assert b"v-gone" not in left
    shown = await Queries(world.rig.stores.reading).customer(KEY)
    assert shown.totals["product_viewed"] == 1
    assert shown.links == ["anon:v-kept"]
    await rebuilds_the_same(world.rig.stores)
    await world.post(msgspec.structs.replace(both, id="v-3"), *link(KEY, "v-gone", "l-3"))
    await world.settle()
    left = await everything(world.rig.stores)
    assert b"v-gone" not in left
    shown = await Queries(world.rig.stores.reading).customer(KEY)
    assert shown.totals["product_viewed"] == 2


async def test_erasure_goes_on_over_what_the_present_code_refuses(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored by an older version: it can neither be read nor folded any more."""

    def decoded(body: bytes) -> CustomerEvent:
        if b"unreadable" in body:
            raise msgspec.DecodeError("another format")
        return decode_event(body)

    def folded(customers: Any, event: Any, *rest: Any) -> Any:
        if event.id == "unfoldable":
            raise Invalid("wrong_type", "not any more")
        return fold_into(customers, event, *rest)

    events = [his(KEY, view(id_)) for id_ in ("unreadable", "unfoldable", "v-3")]
    of_both = msgspec.structs.replace(his(KEY, view("unreadable-too")), anonymous_id="v-gone")
    await world.post(*link(KEY, "v-gone", "l-1"), *events, of_both)
    await world.settle()
    monkeypatch.setattr(erasing, "decode_event", decoded)
    monkeypatch.setattr(erasing, "fold_into", folded)
    await world.post(erasure("anon:v-gone"))
    await world.settle()
    assert b"v-gone" not in await everything(world.rig.stores)
    assert (await Queries(world.rig.stores.reading).customer(KEY)).totals == {"product_viewed": 1}
    await world.post(erasure(KEY, "e-2"))
    await world.settle()
    ledger = await Queries(world.rig.stores.reading).ledger()
    assert (ledger.dead_lettered, ledger.balanced) == (0, True)
    assert KEY.encode() not in await everything(world.rig.stores)


async def test_two_analyzers_that_start_after_a_restore_do_not_fence_each_other(world: World) -> None:
    stores = world.rig.stores
    if isinstance(stores.slices, MemoryAnalyzerStore):
        pytest.skip("one process has it")
    await world.post(*life())
    await world.settle()
    hasher = KeyHasher(b"k" * 32)
    world.file.add(SuppressedRow(partition_of(key), hasher(key), "e-before") for key in (KEY, VISITOR))
    again = await asyncio.gather(*(Restoring(stores.slices, world.file, hasher).apply() for _ in range(2)))
    assert sorted(again) == [0, 2]


async def test_start_that_is_fenced_is_tried_again() -> None:
    attempts = iter([Fenced("partition 3 has another owner"), None])

    async def prepare() -> None:
        if (error := next(attempts)) is not None:
            raise error

    intake = Intake(prepare, cast("Any", None), Random(1))
    await intake.start()
    assert "another owner" in (intake.trouble() or "")
    await intake.start()
    assert intake.trouble() is None


async def test_many_events_are_rewritten_by_one_statement_a_day(world: World) -> None:
    slices = world.rig.stores.slices
    if isinstance(slices, MemoryAnalyzerStore):
        pytest.skip("memory has no statements")
    views = [his(KEY, view(f"v-{n}", T0 + (n % 3) * DAY)) for n in range(60)]
    await world.post(*(msgspec.structs.replace(event, anonymous_id="v-gone") for event in views))
    await world.apply()
    past = await slices.events_of(partition_of(KEY), KEY)
    rewritten = [EventRow(event.recorded_at, event.number, b"anew %d" % event.number) for event in past]
    erased = Erased(KEY, "e", b"m", b"s", T0, T0, whole=False, events=[], rewritten=rewritten)
    ran: list[Any] = []
    async with slices._database.bulk() as connection:
        with connection.query_logger(ran.append):
            await erase(connection, slices._schema, partition_of(KEY), erased)
    assert sum(each.query.startswith("UPDATE") for each in ran) == 3
    after = await slices.events_of(partition_of(KEY), KEY)
    assert [(row.number, row.body) for row in after] == [(row.number, row.body) for row in rewritten]


async def test_notice_survives_a_crash_before_it_is_sent(world: World, bus: MemoryBus) -> None:
    await world.post(*life(), erasure(KEY))
    await world.apply()  # the process ends here: nobody ran the errands
    assert VISITOR.encode() in await everything(world.rig.stores)
    await world.rig.processor.release(frozenset(range(PARTITIONS)))
    await world.rig.claim(*range(PARTITIONS), generation=2)
    await world.settle()
    left = await everything(world.rig.stores)
    assert not any(trace in left for trace in TRACES)


async def test_erasure_whose_commit_was_not_heard_is_known_all_the_same(world: World) -> None:
    store = world.rig.stores.slices
    if not hasattr(store, "fail_after_commit"):
        pytest.skip("only the memory store plays a broken connection")
    await world.post(his(KEY, view("v-1")), erasure(KEY))
    partition = partition_of(KEY)
    records = world.rig.bus.records(CUSTOMER_EVENTS, partition)
    await world.rig.processor.process(partition, records[:1])
    store.fail_after_commit = True
    with pytest.raises(Transient):
        await world.rig.processor.process(partition, records[1:])
    assert len(store.erasures) == 1
    await world.post(his(KEY, view("v-2")))
    later = world.rig.bus.records(CUSTOMER_EVENTS, partition)[1:]
    await world.rig.processor.process(partition, later)
    assert store.stored == []


async def test_erasure_again_changes_nothing_and_is_counted_once(world: World) -> None:
    await world.post(*life(), erasure(KEY), erasure(KEY), erasure(KEY, "e-2"))
    await world.settle()
    ledger = await Queries(world.rig.stores.reading).ledger()
    by_source = {line.source: line for line in ledger.by_source}
    assert (by_source["dpo"].applied, by_source["dpo"].duplicate) == (2, 1)
    assert ledger.balanced
    assert isinstance(world.rig.processor._metrics, AnalyzerMetrics)


async def test_restored_database_forgets_again_who_was_erased_later(world: World) -> None:
    await world.post(*life(), *link("c-other", "v-erase-me", "l-8", T0 + 9_000))
    await world.settle()
    stores = world.rig.stores
    hasher = KeyHasher(b"k" * 32)
    # What was erased after the backup: the file is newer than the database.
    world.file.add(
        SuppressedRow(partition_of(key), hasher(key), "e-before") for key in (KEY, VISITOR, "c-unheard-of")
    )
    assert await Restoring(stores.slices, world.file, hasher).apply() == 2
    await world.rig.claim(*range(PARTITIONS), generation=2)
    await world.settle()
    await world.post(his(KEY, view("late-1")))
    await world.settle()
    left = await everything(stores)
    assert not any(trace in left for trace in TRACES)
    assert b"c-other" in left
    assert (await Queries(stores.reading).ledger()).balanced
    assert await Restoring(stores.slices, world.file, hasher).apply() == 0


async def test_trials_of_the_erased_go_and_others_are_judged_without_his_orders(world: World) -> None:
    visitor = "anon:v-shared"
    echo = msgspec.structs.replace(
        bought("o-1", T0 + 9_000, "a", customer=visitor),
        customer_id=KEY,
        anonymous_id="v-shared",
        echo=True,
        internal=True,
    )
    await world.post(
        *link("c-other", "v-shared", "l-1"),
        offered("d-1", T0 + 4_000, ["a"], [("g", 1)], assumed_shown=1, customer=KEY),
        offered("d-2", T0 + 5_000, ["a"], assumed_shown=1, customer=visitor),
        msgspec.structs.replace(echo, customer=KEY, echo=False, internal=False),
        echo,
    )
    await world.settle()
    assert (await world.rig.stores.slices.due(partition_of(KEY), T0 + 90 * DAY, 9)).customers == [KEY]
    await world.post(erasure(KEY))
    await world.settle()
    left = await everything(world.rig.stores)
    assert not any(trace in left for trace in TRACES)
    kept = (await Queries(world.rig.stores.reading)._parts(visitor))[0].trials.kept
    assert [trial.credit for trial in kept["d-2"].record.trials] == [None]
    await rebuilds_the_same(world.rig.stores)
    await world.post(*(Tick(partition=p, recorded_at=T0 + 90 * DAY) for p in range(PARTITIONS)))
    await world.settle()
    await rebuilds_the_same(world.rig.stores)
