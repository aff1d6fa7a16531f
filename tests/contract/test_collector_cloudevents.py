"""CloudEvents 1.0 in their three modes: what is taken, and what it becomes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from libs.common.keys import KeyFile
from tests.contract.collector_world import Collector, collecting

EVENT = {
    "specversion": "1.0",
    "id": "e1",
    "source": "https://shop.example/web",
    "type": "example.shop.product_viewed",
    "subject": "c1",
    "time": "2025-10-09T08:00:00Z",
    "channel": "store",
    "datacontenttype": "application/json",
    "traceparent": "00-1",
    "data": {"product_id": "p1"},
}
ONE = {"content-type": "application/cloudevents+json"}
MANY = {"content-type": "application/cloudevents-batch+json; charset=UTF-8"}


def binary(event: dict[str, Any]) -> dict[str, str]:
    """The attributes of ``event`` as headers."""
    left_out = ("data", "datacontenttype")
    return {f"ce-{name}": value for name, value in event.items() if name not in left_out}


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (json.dumps(EVENT), ONE),
        (json.dumps(EVENT), {"content-type": "application/json"}),
        (json.dumps([EVENT]), MANY),
        (json.dumps({"events": [EVENT]}), {"content-type": "application/json"}),
        (json.dumps(EVENT["data"]), {**binary(EVENT), "content-type": "application/json"}),
        (json.dumps(EVENT["data"]), binary(EVENT)),
    ],
)
async def test_an_event_becomes_a_touchpoint_in_every_mode(
    collector: Collector, content: str, headers: dict[str, str]
) -> None:
    answer = await collector.http.post("/v1/events", content=content, headers=headers)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (1, [])
    (event,) = collector.touchpoints
    assert (event.type, event.channel, event.customer) == ("product_viewed", "store", "c1")
    assert event.id == "https://shop.example/web e1"
    assert event.occurred_at == 1_759_996_800_000
    assert event.properties == {"product_id": "p1"}


async def test_headers_are_percent_encoded(collector: Collector) -> None:
    headers = {**binary(EVENT), "ce-subject": "M%C3%BCller%20%22x%22", "ce-id": "e%2F1"}
    answer = await collector.http.post("/v1/events", headers=headers)
    assert answer.status_code == 202
    (event,) = collector.touchpoints
    assert (event.customer, event.id) == ('Müller "x"', "https://shop.example/web e/1")
    assert event.properties == {}
    bad = await collector.http.post("/v1/events", headers={**headers, "ce-subject": "%FF"})
    assert (bad.status_code, bad.json()["code"]) == (422, "bad_string")


async def test_ids_are_unique_within_their_source(collector: Collector) -> None:
    sources = ("a", "a b", "a b c", "x" * 300)
    events = [{**EVENT, "source": source, "id": id_} for source in sources for id_ in ("b c", "c", "b")]
    answer = await collector.http.post("/v1/events", json=events, headers=MANY)
    assert answer.json()["accepted"] == len(events)
    ids = {event.id for event in collector.touchpoints}
    assert len(ids) == len(events)
    assert max(map(len, ids)) <= 256


async def test_a_source_that_is_somebody_loses_no_event_and_stays_unknown(collector: Collector) -> None:
    event = {**EVENT, "source": "mailto:cncf@example.org"}
    events = [event, {**event, "id": "e2"}, {**event, "source": "mailto:jo@example.org"}, event]
    answer = await collector.post(events, "/v1/events")
    assert (answer.status_code, answer.json()["rejected"]) == (202, []), answer.text
    assert len({event.id for event in collector.touchpoints}) == 3
    assert not any("example.org" in event.id for event in collector.touchpoints)


async def test_visitors_accounts_and_defaults(collector: Collector) -> None:
    event = {name: EVENT[name] for name in ("specversion", "id", "source")}
    event |= {"type": "OrderShipped", "anonymousid": "v1", "accountid": "acme"}
    assert (await collector.http.post("/v1/events", json=event, headers=ONE)).status_code == 202
    (made,) = collector.touchpoints
    assert (made.customer, made.account_id, made.channel) == ("anon:v1", "acme", "other")
    assert (made.type, made.properties) == ("order_shipped", {})


async def test_data_in_base64(collector: Collector) -> None:
    event = {name: value for name, value in EVENT.items() if name != "data"}
    event["data_base64"] = base64.b64encode(b'{"product_id": "p2"}').decode()
    assert (await collector.http.post("/v1/events", json=event, headers=ONE)).status_code == 202
    assert collector.touchpoints[0].properties == {"product_id": "p2"}
    for content in (
        b"<xml/>",
        b'{"x": NaN}',
        b'{"x": "\\u0000"}',
        b'{"x": "\\ud800"}',
        b'{"x": 1e400}',
        b"[1]",
    ):
        event["data_base64"] = base64.b64encode(content).decode()
        answer = await collector.http.post("/v1/events", json=event, headers=ONE)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"].startswith("/data_base64")


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"specversion": "0.3"}, "wrong_type", "/specversion"),
        ({"specversion": None}, "wrong_type", "/specversion"),
        ({"id": ""}, "wrong_type", "/id"),
        ({"subject": None}, "missing", "/subject"),
        ({"subject": "anon:v1"}, "bad_string", "/subject"),
        ({"type": "example.shop."}, "bad_string", "/type"),
        ({"time": "yesterday"}, "bad_time", "/time"),
        ({"data": [1]}, "wrong_type", "/data"),
        ({"data": "text"}, "wrong_type", "/data"),
        ({"data": {"product_id": 7}}, "wrong_type", "/data/product_id"),
        ({"data": {"price": "x" * 33_000}}, "too_large", ""),
    ],
)
async def test_bad_events_are_refused_by_their_own_names(
    collector: Collector, change: dict[str, Any], code: str, field: str
) -> None:
    answer = await collector.http.post("/v1/events", json=[EVENT, {**EVENT, **change}], headers=MANY)
    body = answer.json()
    assert (answer.status_code, body["accepted"]) == (202, 1)
    (rejection,) = body["rejected"]
    assert (rejection["index"], rejection["code"], rejection["field"]) == (1, code, field)
    assert "occurred_at" not in rejection["reason"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        ("{", ONE, 400),
        ("", ONE, 400),
        ("{", {**binary(EVENT), "content-type": "application/json"}, 400),
        ('{"a": 1}, "x": {"b": 2}', {**binary(EVENT), "content-type": "application/json"}, 400),
        ("text", {**binary(EVENT), "content-type": "text/plain"}, 415),
        ("{}", {"content-type": "text/plain"}, 415),
        ("{}", {}, 415),
        ("<event/>", {"content-type": "application/cloudevents+avro"}, 415),
        ("{}", {"ce-specversion": "1.0", "content-type": "application/json"}, 422),
    ],
)
async def test_what_is_no_event_is_refused(
    collector: Collector, content: str, headers: dict[str, str], status: int
) -> None:
    answer = await collector.http.post("/v1/events", content=content, headers=headers)
    assert answer.status_code == status
    assert collector.events == []


async def test_a_browser_needs_a_signature_to_name_a_subject(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add_publishable("page", ["https://shop.example"])
    assert made.identity_secret is not None
    signature = hmac.new(made.identity_secret.encode(), b"c1", hashlib.sha256).hexdigest()
    headers = {**ONE, "authorization": f"Bearer {made.key}", "origin": "https://shop.example"}
    async with collecting(tmp_path) as collector:
        refused = await collector.http.post("/v1/events", json=EVENT, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "signature_missing")
        signed = {**EVENT, "customersignature": signature}
        assert (await collector.http.post("/v1/events", json=signed, headers=headers)).status_code == 202
