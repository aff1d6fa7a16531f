"""The collector's endpoints as callers see them: what is taken, and what it becomes on the journal."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import msgspec
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.clock import DAY, ManualClock
from libs.common.contracts.customer_event import (
    ConsentGiven,
    CustomerEvent,
    IdentityLinked,
    SpoolReported,
    Tick,
    Touchpoint,
)
from libs.common.errors import Transient
from libs.common.journal import Durability
from libs.common.keys import KeyFile, Scope
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.spool.memory import MemoryJournal
from services.collector.app import create_service
from services.collector.settings import CollectorSettings

NOW = 1_760_000_000_000
ISO_NOW = "2025-10-09T08:53:20Z"
VIEW = {"type": "product_viewed", "channel": "web", "customer_id": "c1", "properties": {"product_id": "p1"}}
ORDER = {
    "type": "order_completed",
    "channel": "store",
    "customer_id": "c1",
    "properties": {"order_id": "o1", "products": [{"product_id": "p1", "quantity": 1, "price": 2.5}]},
}


class WatchedJournal(MemoryJournal):
    """Remembers which events were appended together; ``reaches`` is how far the bus lets them come."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions: list[list[CustomerEvent]] = []
        self.reaches = Durability.BUS

    def append(self, events: Sequence[CustomerEvent], local: Sequence[tuple[str, bytes]] = ()) -> Position:
        position = super().append(events, local)
        if any(not isinstance(event, Tick | SpoolReported) for event in events):
            self.transactions.append(list(events))
        return position

    async def durable(self, position: Position, level: Durability) -> Durability:
        await super().durable(position, level)
        return level if level is Durability.SPOOL else self.reaches


class Collector:
    """A collector in this process, and a caller with a key."""

    def __init__(self, http: httpx.AsyncClient, journal: WatchedJournal, clock: ManualClock) -> None:
        self.http = http
        self.journal = journal
        self.clock = clock

    async def post(self, body: Any, path: str = "/v1/touchpoints", **more: Any) -> httpx.Response:
        return await self.http.post(path, json=body, **more)

    @property
    def events(self) -> list[CustomerEvent]:
        return [event for one in self.journal.transactions for event in one]

    @property
    def touchpoints(self) -> list[Touchpoint]:
        return [event for event in self.events if isinstance(event, Touchpoint)]


@asynccontextmanager
async def collecting(data_dir: Path, **settings: Any) -> AsyncIterator[Collector]:
    journal, clock = WatchedJournal(), ManualClock(NOW)
    service = create_service(
        CollectorSettings(data_dir=data_dir, dev_key="dev-key", **settings),
        bus=MemoryBus(),
        journal=journal,
        board=ProgressBoard(),
        clock=clock,
        random=Random(7),
    )
    transport = httpx.ASGITransport(service.app)
    headers = {"authorization": "Bearer dev-key"}
    async with (
        running(service),
        httpx.AsyncClient(transport=transport, base_url="http://collector", headers=headers) as http,
    ):
        yield Collector(http, journal, clock)


@pytest.fixture
async def collector(tmp_path: Path) -> AsyncIterator[Collector]:
    async with collecting(tmp_path) as one:
        yield one


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


@pytest.mark.parametrize("kind", ["order_completed", "order_cancelled", "order_returned"])
async def test_order_with_both_ids_is_echoed_in_the_same_transaction(collector: Collector, kind: str) -> None:
    await collector.post({**ORDER, "type": kind, "anonymous_id": "v1", "id": "i"})
    ((event, echo),) = collector.journal.transactions
    assert isinstance(event, Touchpoint)
    assert isinstance(echo, Touchpoint)
    assert (event.customer, event.echo, event.internal) == ("c1", False, False)
    assert (echo.customer, echo.echo, echo.internal, echo.id) == ("anon:v1", True, True, "i")
    assert collector.journal.accepted() == {"dev": 1}


async def test_view_with_both_ids_makes_neither_echo_nor_link(collector: Collector) -> None:
    await collector.post({**VIEW, "anonymous_id": "v1"})
    assert [event.customer for event in collector.touchpoints] == ["c1"]
    assert len(collector.events) == 1


async def test_identity_is_a_link_and_an_owner_in_one_transaction(collector: Collector) -> None:
    answer = await collector.post({"customer_id": "c1", "anonymous_id": "v1"}, "/v1/identities")
    assert answer.status_code == 202
    ((link, owner),) = collector.journal.transactions
    assert isinstance(link, IdentityLinked)
    assert isinstance(owner, IdentityLinked)
    assert (link.customer, link.internal) == ("c1", False)
    assert (owner.customer, owner.internal) == ("anon:v1", True)
    assert collector.journal.accepted() == {"dev": 1}


async def test_identified_touchpoint_links_in_the_same_transaction(collector: Collector) -> None:
    await collector.post({"type": "identified", "channel": "web", "customer_id": "c1", "anonymous_id": "v1"})
    ((touchpoint, link, owner),) = collector.journal.transactions
    assert isinstance(touchpoint, Touchpoint)
    assert isinstance(link, IdentityLinked)
    assert (link.customer, owner.customer if not isinstance(owner, Tick | SpoolReported) else "") == (
        "c1",
        "anon:v1",
    )
    assert collector.journal.accepted() == {"dev": 1}


@pytest.mark.parametrize("missing", ["customer_id", "anonymous_id"])
async def test_identity_needs_both_ids(collector: Collector, missing: str) -> None:
    body = {"customer_id": "c1", "anonymous_id": "v1"}
    del body[missing]
    answer = await collector.post(body, "/v1/identities")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, f"/{missing}")


async def test_consent_is_kept(collector: Collector) -> None:
    said = {"customer_id": "c1", "purpose": "personalisation", "granted": False, "channel": "email"}
    answer = await collector.post({**said, "text_version": "v3", "source": "desk"}, "/v1/consents")
    assert answer.status_code == 202
    (event,) = collector.events
    assert isinstance(event, ConsentGiven)
    assert (event.customer, event.purpose, event.granted, event.channel) == (
        "c1", "personalisation", False, "email",
    )  # fmt: skip
    assert (event.text_version, event.said_at) == ("v3", "desk")
    assert (await collector.post({**said, "granted": "no"}, "/v1/consents")).status_code == 422


@pytest.mark.parametrize("proof", ["text_version", "source"])
@pytest.mark.parametrize(
    ("said", "kept"),
    [("3.1.0.2", "3.1.0.0"), ("+49 170 1234567", "[phone]"), ("a@shop.example", "[e-mail]")],
)
async def test_a_refusal_is_kept_whatever_its_proof_looks_like(
    collector: Collector, proof: str, said: str, kept: str
) -> None:
    body = {"customer_id": "c1", "purpose": "email", "granted": False, proof: said}
    assert (await collector.post(body, "/v1/consents")).status_code == 202
    (event,) = collector.events
    assert isinstance(event, ConsentGiven)
    assert (event.granted, event.text_version or event.said_at) == (False, kept)


@pytest.mark.parametrize(
    ("said", "kept"),
    [("9999-12-31T00:00:00Z", NOW), ("2001-01-01T00:00:00Z", 978_307_200_000), (ISO_NOW, NOW)],
)
async def test_word_given_in_the_far_future_can_be_taken_back(
    collector: Collector, said: str, kept: int
) -> None:
    body = {"customer_id": "c1", "purpose": "personalisation", "granted": True, "occurred_at": said}
    assert (await collector.post(body, "/v1/consents")).status_code == 202
    link = {"customer_id": "c1", "anonymous_id": "v1", "occurred_at": said}
    assert (await collector.post(link, "/v1/identities")).status_code == 202
    about = [event for event in collector.events if isinstance(event, ConsentGiven | IdentityLinked)]
    assert [event.occurred_at for event in about] == [kept] * 3


@pytest.mark.parametrize(
    ("occurred_at", "learned"),
    [
        (ISO_NOW, True),
        ("2025-09-09T08:53:20Z", True),
        ("2025-09-09T08:53:19Z", False),
        ("2025-10-09T08:58:20", True),
        ("2025-10-09T08:58:21", False),
        ("0001-01-01T00:00:00Z", False),
        ("9999-12-31T23:59:59.999Z", False),
    ],
)
async def test_event_outside_the_window_is_kept_flagged_and_not_learned(
    collector: Collector, occurred_at: str, learned: bool
) -> None:
    assert (await collector.post({**VIEW, "occurred_at": occurred_at})).status_code == 202
    (event,) = collector.touchpoints
    assert (event.learn, event.flags) == (learned, () if learned else ("out_of_window",))
    assert event.recorded_at == NOW


async def test_import_takes_any_past_time(collector: Collector) -> None:
    old = {**VIEW, "occurred_at": "1999-05-01"}
    answer = await collector.post(old, "/v1/touchpoints?mode=import")
    assert answer.status_code == 202
    (event,) = collector.touchpoints
    assert (event.learn, event.flags) == (True, ("imported",))


async def test_import_without_manage_is_named_what_it_lacks(tmp_path: Path) -> None:
    key = KeyFile(tmp_path).add("shop", [Scope.COLLECT]).key
    async with collecting(tmp_path) as collector:
        collector.http.headers["authorization"] = f"Bearer {key}"
        answer = await collector.post({**VIEW, "occurred_at": "1999-05-01"}, "/v1/touchpoints?mode=import")
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
        assert "manage" in answer.json()["detail"]


async def test_import_needs_no_other_scope_than_manage(tmp_path: Path) -> None:
    key = KeyFile(tmp_path).add("loader", [Scope.MANAGE]).key
    headers = {"authorization": f"Bearer {key}"}
    async with collecting(tmp_path) as collector:
        answer = await collector.post(VIEW, "/v1/touchpoints?mode=import", headers=headers)
        assert answer.status_code == 202
        answer = await collector.post(VIEW, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


async def test_unknown_mode_is_refused(collector: Collector) -> None:
    answer = await collector.post(VIEW, "/v1/touchpoints?mode=replay")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "/mode")


async def test_import_takes_bodies_up_to_ten_megabytes(collector: Collector) -> None:
    item = {**VIEW, "context": {"page": "x" * 8_000}}
    body = json.dumps([item] * 400)
    headers = {"content-type": "application/json"}
    assert (await collector.http.post("/v1/touchpoints", content=body, headers=headers)).status_code == 413
    answer = await collector.http.post("/v1/touchpoints?mode=import", content=body, headers=headers)
    assert (answer.status_code, answer.json().get("accepted")) == (202, 400)


@pytest.mark.parametrize("path", ["/v1/identities", "/v1/consents"])
async def test_only_touchpoints_are_read_without_content_type(collector: Collector, path: str) -> None:
    answer = await collector.http.post(path, content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415


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


async def test_browser_may_not_report_sales_nor_speak_for_others(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add_publishable("page", ["https://shop.example"])
    headers = {"authorization": f"Bearer {made.key}", "origin": "https://shop.example"}
    visitor = {**ORDER, "anonymous_id": "v1"}
    del visitor["customer_id"]
    async with collecting(tmp_path) as collector:
        assert (await collector.post(visitor, headers=headers)).status_code == 202
        (order,) = collector.touchpoints
        assert (order.learn, order.flags) == (False, ("unverified",))
        answer = await collector.post(VIEW, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "signature_missing")
        signature = hmac.new((made.identity_secret or "").encode(), b"c1", hashlib.sha256).hexdigest()
        answer = await collector.post({**VIEW, "customer_signature": signature}, headers=headers)
        assert answer.status_code == 202
        answer = await collector.post(visitor, "/v1/touchpoints?mode=import", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    async with collecting(tmp_path, trust_browser_orders=True) as collector:
        assert (await collector.post(visitor, headers=headers)).status_code == 202
        assert collector.touchpoints[0].learn


BEACON = {"type": "page_viewed", "channel": "web", "anonymous_id": "v1"}


@pytest.mark.parametrize("many", [False, True])
async def test_beacon_brings_its_key_in_the_body(tmp_path: Path, many: bool) -> None:
    key = KeyFile(tmp_path).add_publishable("page", ["https://shop.example"]).key
    reader = KeyFile(tmp_path).add("reader", [Scope.OPS]).key
    body: dict[str, Any] = (
        {"write_key": key, "touchpoints": [BEACON] * 2} if many else {"write_key": key, **BEACON}
    )
    headers = {"origin": "https://shop.example", "content-type": "text/plain"}
    async with collecting(tmp_path) as collector:
        del collector.http.headers["authorization"]

        async def send(content: Any, url: str = "/v1/touchpoints", **more: str) -> tuple[int, str]:
            answer = await collector.http.post(url, content=json.dumps(content), headers=headers | more)
            return answer.status_code, answer.json().get("code", "")

        assert await send(body) == (202, "")
        assert [event.source for event in collector.touchpoints] == ["page"] * (1 + many)
        assert b"pk_" not in msgspec.json.encode(collector.touchpoints)
        assert await send(body, origin="https://evil.example") == (403, "origin_forbidden")
        assert await send({**body, "write_key": "pk_wrong"}) == (401, "key_unknown")
        assert await send({**body, "write_key": None}) == (401, "key_missing")
        assert await send([BEACON]) == (401, "key_missing")
        assert await send(body, "/v1/touchpoints?mode=import") == (401, "key_missing")
        assert await send(body, "/v1/consents", **{"content-type": "application/json"}) == (
            401,
            "key_missing",
        )
        refused = {**BEACON, "type": "Not a type"}
        assert (await send({**refused, "write_key": key}))[0] == 422
        assert await send({**body, "write_key": reader}) == (403, "scope_missing")
        assert len(collector.touchpoints) == 1 + many


async def test_browser_is_told_of_itself_what_it_may_ask(tmp_path: Path) -> None:
    KeyFile(tmp_path).add_publishable("page", ["https://shop.example"])
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    async with collecting(tmp_path) as collector:
        del collector.http.headers["authorization"]
        for path in ("/v1/touchpoints", "/v1/identities", "/v1/consents"):
            answer = await collector.http.options(path, headers=asked | {"origin": "https://shop.example"})
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == "https://shop.example"
            assert answer.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
            assert set(answer.headers["access-control-allow-headers"].split(", ")) == {
                "authorization",
                "content-type",
                "traceparent",
                "x-retry-count",
            }
            assert answer.headers["vary"] == "origin"
            assert "access-control-allow-credentials" not in answer.headers
        answer = await collector.http.options(path, headers=asked | {"origin": "https://evil.example"})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_forbidden")
        assert "access-control-allow-origin" not in answer.headers
        assert (await collector.http.options(path)).status_code == 405


async def test_page_may_read_answers_and_refusals_and_nobody_else(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add_publishable("page", ["https://shop.example"])
    KeyFile(tmp_path).add_publishable("blog", ["https://blog.example"])
    key = {"authorization": f"Bearer {made.key}"}
    async with collecting(tmp_path) as collector:
        for origin, status, readable in (
            ("https://shop.example", 202, True),
            ("https://blog.example", 403, True),
            ("https://evil.example", 403, False),
            ("null", 403, False),
        ):
            answer = await collector.post(BEACON, headers=key | {"origin": origin})
            shared = answer.headers.get("access-control-allow-origin")
            assert (answer.status_code, shared) == (status, origin if readable else None)
        answer = await collector.post(BEACON, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_forbidden")


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


async def test_thirty_days_is_the_edge_of_the_window(collector: Collector) -> None:
    collector.clock.tick(30 * DAY)
    await collector.post({**VIEW, "occurred_at": ISO_NOW})
    collector.clock.tick(1)
    await collector.post({**VIEW, "occurred_at": ISO_NOW})
    assert [event.learn for event in collector.touchpoints] == [True, False]


async def test_what_identifies_a_person_never_reaches_the_journal(collector: Collector) -> None:
    personal = {"email": "anna@example.com", "firstName": "Annabel", "deep": [{"phone": "+49 171 1234567"}]}
    free = {"product_id": "p1", "note": "ask anna@example.com", "traits": personal}
    answer = await collector.post(VIEW | {"properties": free, "context": {"ip": "203.0.113.7", "os": "x"}})
    assert answer.json()["accepted"] == 1
    (event,) = collector.touchpoints
    assert event.properties == {"product_id": "p1", "note": "ask [e-mail]", "traits": {"deep": [{}]}}
    assert event.context == {"os": "x"}
    metrics = (await collector.http.get("/metrics")).text
    assert "closedloop_collector_personal_withheld_total 5.0" in metrics
    assert "anna" not in metrics


@pytest.mark.parametrize(
    ("path", "item", "field"),
    [
        ("/v1/touchpoints", VIEW | {"customer_id": "anna@example.com"}, "/customer_id"),
        ("/v1/touchpoints", VIEW | {"anonymous_id": "+49 171 1234567"}, "/anonymous_id"),
        ("/v1/touchpoints", VIEW | {"account_id": "anna@example.com"}, "/account_id"),
        ("/v1/touchpoints", VIEW | {"id": "anna@example.com"}, "/id"),
        ("/v1/identities", {"customer_id": "c", "anonymous_id": "203.0.113.7"}, "/anonymous_id"),
        ("/v1/consents", {"customer_id": "c", "purpose": "p", "granted": True, "id": "a@b.org"}, "/id"),
        ("/v1/erasures", {"customer_id": "c", "id": "anna@example.com"}, "/id"),
    ],
)  # fmt: skip
async def test_id_that_names_a_person_is_refused(
    collector: Collector, path: str, item: dict[str, Any], field: str
) -> None:
    answer = await collector.post(item, path)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["code"], error["field"]) == ("bad_string", field)
    assert "anna" not in answer.json()["detail"]
    assert collector.events == []


async def test_customer_taken_under_an_address_once_can_be_erased(collector: Collector) -> None:
    for item in ({"customer_id": "anna@example.com"}, {"anonymous_id": "203.0.113.7"}):
        assert (await collector.post(item, "/v1/erasures")).status_code == 202
    assert len(collector.events) == 2


async def test_numbers_of_customers_and_orders_are_no_phone_numbers(collector: Collector) -> None:
    """Nor are firmware versions addresses of computers, where they are ids."""
    for name in ("0815-42", "0170-123456", "012-34", "1:2:3", "00:1a:2b:3c:4d:5e"):
        ids = {"customer_id": name, "anonymous_id": name, "account_id": name, "id": name}
        assert (await collector.post(VIEW | ids)).status_code == 202, name
    for name in ("+49 171 1234567", "203.0.113.7"):
        assert (await collector.post(VIEW | {"id": name})).status_code == 202, name


async def test_accounts_named_by_addresses_stay_apart(collector: Collector) -> None:
    for name in ("anna@example.com", "bob@example.com", "Anna@example.com"):
        await collector.post(VIEW | {"type": "team_joined", "properties": {"group_id": name}})
    anna, bob, same = (event.properties["group_id"] for event in collector.touchpoints)
    assert anna == same != bob
    assert "@" not in anna + bob


BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.mark.parametrize(
    ("headers", "flags"),
    [
        ({"user-agent": BROWSER}, ()),
        ({"user-agent": GOOGLE}, ("automatic:crawler",)),
        ({"user-agent": "Mozilla/5.0 (Linux; Android 10; CUBOT NOTE 20) Chrome/126.0 Mobile"}, ()),
        ({"user-agent": BROWSER.replace("Chrome", "shop/1.2 Electron/31.0 Chrome")}, ()),
        ({"user-agent": "Mozilla/5.0 (compatible; bingbot/2.0)"}, ("automatic:crawler",)),
        ({"user-agent": "Example_bot_2 (+https://bots.example)"}, ("automatic:crawler",)),
        ({"user-agent": BROWSER.replace("Chrome", "HeadlessChrome")}, ("automatic:headless",)),
        ({"user-agent": BROWSER, "sec-purpose": "prefetch;prerender"}, ("automatic:prefetch",)),
        ({"user-agent": BROWSER, "sec-gpc": "1"}, ("gpc",)),
    ],
)
async def test_what_a_browser_says_of_itself_is_flagged_and_not_learned_from(
    tmp_path: Path, headers: dict[str, str], flags: tuple[str, ...]
) -> None:
    made = KeyFile(tmp_path).add_publishable("shop", ["https://shop.example"])
    browser = {"authorization": f"Bearer {made.key}", "origin": "https://shop.example", **headers}
    view = {"type": "product_viewed", "channel": "web", "anonymous_id": "v", "properties": {}}
    async with collecting(tmp_path) as collector:
        assert (await collector.post(view, headers=browser)).status_code == 202
        (event,) = collector.touchpoints
    assert (event.flags, event.learn) == (flags, not flags)


async def test_servers_own_agent_is_no_crawler_and_may_name_that_of_others(collector: Collector) -> None:
    robot = {"user-agent": "python-requests/2.32"}
    await collector.post([VIEW, VIEW | {"context": {"user_agent": GOOGLE}}], headers=robot)
    await collector.post(VIEW | {"context": {"gpc": True}})
    assert [event.flags for event in collector.touchpoints] == [(), ("automatic:crawler",), ("gpc",)]
    assert [event.context for event in collector.touchpoints] == [{}, {}, {"gpc": True}]
