"""The collector's endpoints as callers see them: what is taken, and what it becomes on the journal."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from libs.common.contracts.customer_event import Tick
from libs.common.errors import Transient
from libs.common.journal import Durability
from libs.common.keys import KeyFile, Scope
from libs.common.position import Position
from tests.contract.collector_world import NOW, ORDER, VIEW, Collector, collecting


async def test_one_touchpoint_is_accepted_with_a_position(collector: Collector) -> None:
    answer = await collector.post(VIEW)
    assert answer.status_code == 202
    body = answer.json()
    assert (body["accepted"], body["rejected"]) == (1, [])
    assert Position.decode(body["position"]).heads == collector.journal.head().heads
    (event,) = collector.touchpoints
    assert (event.source, event.customer, event.type, event.channel) == ("dev", "c1", "product_viewed", "web")
    assert (event.occurred_at, event.recorded_at, event.learn, event.flags) == (NOW, NOW, True, ())
    assert len(event.id) == 32


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (json.dumps([VIEW, VIEW]), "application/json"),
        (json.dumps({"touchpoints": [VIEW, VIEW]}), "application/json"),
        (json.dumps(VIEW) + "\r\n\n" + json.dumps(VIEW), "application/x-ndjson"),
        (json.dumps([VIEW, VIEW]), "text/plain;charset=UTF-8"),
        (json.dumps([VIEW, VIEW]), "application/x-www-form-urlencoded"),
        (json.dumps([VIEW, VIEW]), None),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
async def test_batch_is_accepted_in_every_form(
    collector: Collector, content: str, kind: str | None, packed: bool
) -> None:
    headers = {"content-type": kind} if kind else {}
    body = content.encode()
    if packed:
        headers["content-encoding"] = "gzip"
        body = gzip.compress(body)
    answer = await collector.http.post("/v1/touchpoints", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["accepted"] == 2
    assert len({event.id for event in collector.touchpoints}) == 2
    assert len(collector.journal.transactions) == 1


async def test_id_given_is_kept_so_that_it_counts_once(collector: Collector) -> None:
    await collector.post([{**VIEW, "id": "mine"}, {**VIEW, "id": "mine"}])
    assert [event.id for event in collector.touchpoints] == ["mine", "mine"]


async def test_good_items_of_a_batch_are_taken_and_bad_ones_named(collector: Collector) -> None:
    bad = json.loads(json.dumps(ORDER))
    bad["properties"]["products"] += [
        {"product_id": "p2"},
        {"product_id": "p3"},
        {"product_id": "p4", "price": "1"},
    ]
    answer = await collector.post([VIEW, {**bad, "id": "b"}, {"type": "x"}, ORDER])
    assert answer.status_code == 202
    body = answer.json()
    assert body["accepted"] == 2
    assert [(r["index"], r["id"], r["code"], r["field"]) for r in body["rejected"]] == [
        (1, "b", "wrong_type", "/properties/products/3/price"),
        (2, None, "missing", "/channel"),
    ]
    assert [event.type for event in collector.touchpoints] == ["product_viewed", "order_completed"]


async def test_nothing_good_is_422_and_leaves_no_trace(collector: Collector) -> None:
    answer = await collector.post([{"type": "x"}, {**VIEW, "customer_id": "anon:x"}])
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [
        ("/0/channel", "missing"),
        ("/1/customer_id", "bad_string"),
    ]
    assert collector.events == []


async def test_answer_waits_for_the_durability_asked_for(collector: Collector) -> None:
    answer = await collector.post(VIEW, headers={"Closedloop-Durability": "bus"})
    assert answer.json()["durability"] == "bus"
    collector.journal.reaches = Durability.SPOOL
    answer = await collector.post(VIEW, headers={"Closedloop-Durability": "bus"})
    assert (answer.status_code, answer.json()["durability"]) == (202, "spool")
    answer = await collector.post(VIEW, headers={"Closedloop-Durability": "tape"})
    assert answer.status_code == 422


async def test_full_spool_is_503_with_retry_after(collector: Collector) -> None:
    collector.journal.refuse = Transient("full", retry_after=7)
    answer = await collector.post(VIEW)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.headers["content-type"] == "application/problem+json"
    ready = await collector.http.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["spool"]) == (503, "full")
    collector.journal.refuse = None
    assert (await collector.post(VIEW)).status_code == 202
    assert (await collector.http.get("/readyz")).status_code == 200


async def test_failed_commit_is_no_202(collector: Collector) -> None:
    collector.journal.failing = True
    answer = await collector.post(VIEW)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


async def test_source_is_the_name_of_the_key(tmp_path: Path) -> None:
    key = KeyFile(tmp_path).add("till 4", [Scope.COLLECT]).key
    async with collecting(tmp_path) as collector:
        collector.http.headers["authorization"] = f"Bearer {key}"
        assert (await collector.post(VIEW)).status_code == 202
        assert collector.touchpoints[0].source == "till 4"


async def test_key_without_scope_is_named_what_it_lacks(tmp_path: Path) -> None:
    key = KeyFile(tmp_path).add("reader", [Scope.FEEDBACK]).key
    async with collecting(tmp_path) as collector:
        for path in ("/v1/touchpoints", "/v1/identities", "/v1/consents"):
            answer = await collector.post(VIEW, path, headers={"authorization": f"Bearer {key}"})
            assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
            assert "collect" in answer.json()["detail"]


async def test_ticks_reach_every_partition(collector: Collector) -> None:
    ticks = [event for event in collector.journal.events if isinstance(event, Tick)]
    while not ticks:
        await collector.http.get("/healthz")
        ticks = [event for event in collector.journal.events if isinstance(event, Tick)]
    assert {(tick.partition, tick.recorded_at) for tick in ticks} == {(p, NOW) for p in range(12)}


async def test_endpoints_are_in_openapi(collector: Collector) -> None:
    paths = (await collector.http.get("/openapi.json")).json()["paths"]
    assert {"/v1/touchpoints", "/v1/identities", "/v1/consents"} <= set(paths)
    assert (await collector.http.get("/docs")).status_code == 200


async def test_metrics_count_what_was_taken_and_refused(collector: Collector) -> None:
    await collector.post([VIEW, {"type": "x"}])
    text = (await collector.http.get("/metrics")).text
    assert 'closedloop_collector_items_accepted_total{kind="touchpoint"} 1.0' in text
    assert 'closedloop_collector_items_rejected_total{code="missing",kind="touchpoint"} 1.0' in text
