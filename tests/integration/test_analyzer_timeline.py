"""Timelines of customers on both stores: pages, ids, visitors of others."""

from __future__ import annotations

import json

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.contracts.customer_event import IdentityLinked, Touchpoint
from libs.common.contracts.identity import partition_of
from libs.common.errors import Invalid
from services.analyzer.errors import UnknownCustomer
from services.analyzer.handlers.queries import Queries
from tests.integration.analyzer_world import C7, T0, Rig, Stores, base, make_rig, story, view


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
