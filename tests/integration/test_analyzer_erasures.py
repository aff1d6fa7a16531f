"""Erasures on both stores: what goes, what is told to other partitions, and what never comes back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from libs.common.clock import DAY
from libs.common.contracts.customer_event import Decision, Tick
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.topics import CUSTOMER_MODELS
from services.analyzer.handlers.queries import Queries
from services.analyzer.metrics import AnalyzerMetrics
from services.analyzer.model.erasures import Erased, EventRow
from services.analyzer.store.erasing import erase
from services.analyzer.store.memory import MemoryAnalyzerStore
from tests.integration.analyzer_world import T0, clicked, decision, view
from tests.integration.erasure_world import (
    KEY,
    TRACES,
    VISITOR,
    World,
    erasure,
    everything,
    his,
    life,
    link,
    rebuilds_the_same,
)
from tests.unit.offer_world import decision as offered
from tests.unit.offer_world import order as bought


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


async def test_erasure_again_changes_nothing_and_is_counted_once(world: World) -> None:
    await world.post(*life(), erasure(KEY), erasure(KEY), erasure(KEY, "e-2"))
    await world.settle()
    ledger = await Queries(world.rig.stores.reading).ledger()
    by_source = {line.source: line for line in ledger.by_source}
    assert (by_source["dpo"].applied, by_source["dpo"].duplicate) == (2, 1)
    assert ledger.balanced
    assert isinstance(world.rig.processor._metrics, AnalyzerMetrics)


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
