"""Segment's HTTP API as its clients speak it: keys, batches, times, and how it is answered."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from libs.common.keys import KeyFile, Scope
from tests.contract.collector_world import NOW, Collector, collecting
from tests.contract.segment_world import BATCH, TRACK, only


@pytest.mark.parametrize("path", ["/v1/track", "/v1/t"])
async def test_a_call_is_answered_as_clients_expect(collector: Collector, path: str) -> None:
    answer = await collector.post(TRACK, path)
    assert answer.status_code == 200
    body = answer.json()
    assert {name: body[name] for name in ("success", "accepted", "rejected")} == {
        "success": True,
        "accepted": 1,
        "rejected": [],
    }
    assert body["position"]
    (event,) = collector.touchpoints
    assert (event.id, event.type, event.channel, event.customer) == ("m1", "fitting_room_booked", "web", "c1")
    assert event.occurred_at == 1_759_996_800_000
    assert event.properties == {"room": 7}


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (json.dumps(BATCH).encode(), {"content-type": "application/json"}),
        (json.dumps(BATCH).encode(), {"content-type": "text/plain;charset=UTF-8"}),
        (json.dumps(BATCH).encode(), {}),
        (
            gzip.compress(json.dumps(BATCH).encode()),
            {"content-type": "application/x-www-form-urlencoded", "content-encoding": "gzip"},
        ),
        (json.dumps([{"type": "track", **TRACK}]).encode(), {"content-type": "application/json"}),
        # The list may stand behind as much as a client likes to say first.
        (
            json.dumps({"context": {"library": {"name": "x" * 600}}, **BATCH}).encode(),
            {"content-type": "application/json"},
        ),
    ],
)
@pytest.mark.parametrize("path", ["/v1/batch", "/v1/b", "/v1/import"])
async def test_a_batch_is_read_whatever_it_says_it_is(
    collector: Collector, path: str, content: bytes, headers: dict[str, str]
) -> None:
    answer = await collector.http.post(path, content=content, headers=headers)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 1)
    (event,) = collector.touchpoints
    assert (event.type, event.customer) == ("fitting_room_booked", "c1")


async def test_a_large_batch_is_read_in_one_pass_and_bad_items_cost_nothing_else(
    collector: Collector,
) -> None:
    messages = [
        {"type": "track", **TRACK, "messageId": f"m{n}", "context": {"x": "y" * 400}} for n in range(500)
    ]
    messages[7] = {"type": "track", "messageId": "m7", "userId": "c1"}
    messages[8] = {"type": "trick", "messageId": 8, "userId": "c1"}
    answer = await collector.post({"sentAt": "2025-10-09T08:53:20Z", "batch": messages}, "/v1/batch")
    body = answer.json()
    assert (answer.status_code, body["success"], body["accepted"]) == (200, True, 498)
    assert [(one["index"], one["code"], one["field"]) for one in body["rejected"]] == [
        (7, "missing", "/event"),
        (8, "wrong_type", "/type"),
    ]
    assert body["rejected"][0]["id"] == "m7"
    assert len(collector.touchpoints) == 498


@pytest.mark.parametrize(
    ("sent", "shift"),
    [
        ("2025-10-09T06:53:20Z", 7_200_000),
        ("2025-10-09T10:53:20.000Z", -7_200_000),
        ("2025-10-09T08:52:30Z", 0),
        ("2025-10-09T08:54:10Z", 0),
    ],
)
@pytest.mark.parametrize("where", ["message", "batch"])
async def test_a_clock_that_is_off_is_corrected(
    collector: Collector, sent: str, shift: int, where: str
) -> None:
    if where == "message":
        await collector.post({**TRACK, "sentAt": sent}, "/v1/track")
    else:
        # A client that tries again writes anew when it sends, on the outside only.
        stale = {"type": "track", **TRACK, "sentAt": "2025-10-01T00:00:00Z"}
        await collector.post({"batch": [stale], "sentAt": sent}, "/v1/batch")
    (event,) = collector.touchpoints
    assert event.occurred_at == 1_759_996_800_000 + shift


async def test_without_timestamp_it_happened_now_whatever_the_clock_said(collector: Collector) -> None:
    message = {"userId": "c1", "event": "Seen", "sentAt": "2025-10-09T06:53:20Z"}
    assert (await only(collector, message)).occurred_at == NOW
    bad = await collector.post({**message, "sentAt": "soon"}, "/v1/track")
    assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "/sentAt")


async def test_rudderstack_says_when_it_happened_in_its_own_way(collector: Collector) -> None:
    message = {
        "userId": "c1",
        "event": "Seen",
        "originalTimestamp": "2025-10-09T08:00:00Z",
        "channel": "server",
    }
    event = await only(collector, message)
    assert (event.occurred_at, event.channel) == (1_759_996_800_000, "web")


async def test_basic_auth_with_the_key_as_user_name(collector: Collector) -> None:
    basic = base64.b64encode(b"dev-key:").decode()
    answer = await collector.post(TRACK, "/v1/track", headers={"authorization": f"Basic {basic}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("send", "status", "code"),
    [
        ({"headers": {"authorization": "Bearer wrong"}, "json": TRACK}, 401, "key_unknown"),
        ({"content": b"{"}, 400, "not_json"),
        ({"content": b""}, 400, "empty_body"),
        ({"content": b"x" * 1_048_577}, 413, "body_too_large"),
        ({"json": {"batch": [{}] * 2_501}}, 413, "too_many_items"),
        ({"json": {"batch": []}}, 422, "missing"),
        ({"json": TRACK, "headers": {"content-type": "image/png"}}, 415, "content_type"),
        ({"json": {"event": "Seen"}}, 422, "missing"),
        ({"json": {"userId": True, "event": "Seen"}}, 422, "wrong_type"),
        ({"json": {"userId": "x" * 257, "event": "Seen"}}, 422, "too_large"),
        ({"json": {"userId": "anon:x", "event": "Seen"}}, 422, "bad_string"),
        ({"json": {"userId": "c1", "event": "你好"}}, 422, "bad_string"),
        ({"json": {"userId": "c1", "event": "Seen", "timestamp": "yesterday"}}, 422, "bad_time"),
        ({"json": {"userId": "c1", "event": "Seen", "properties": [1]}}, 422, "wrong_type"),
    ],
)
async def test_refusals_say_why_where_clients_look(
    collector: Collector, send: dict[str, Any], status: int, code: str
) -> None:
    answer = await collector.http.post("/v1/track", **send)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert body["message"] == body["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert collector.events == []


async def test_other_paths_keep_their_problem_documents(collector: Collector) -> None:
    assert "message" not in (await collector.post({}, "/v1/touchpoints")).json()
    assert "message" in (await collector.http.get("/v1/track")).json()


async def test_refusals_name_the_members_of_the_message(collector: Collector) -> None:
    errors = []
    for message in (
        {"userId": "anon:x", "event": "Seen"},
        {"anonymousId": "event:x", "event": "Seen"},
        {"userId": "c1", "event": "x" * 200},
        {"userId": "c1", "event": "Seen", "timestamp": "soon"},
    ):
        errors.append((await collector.post(message, "/v1/track")).json()["errors"][0])
    assert [error["field"] for error in errors] == ["/userId", "/anonymousId", "/event", "/timestamp"]
    assert errors[-1]["reason"].startswith("timestamp must be")


async def test_the_key_may_stand_in_the_body(collector: Collector) -> None:
    del collector.http.headers["authorization"]
    answer = await collector.http.post("/v1/t", content=json.dumps({**TRACK, "writeKey": "dev-key"}))
    assert answer.status_code == 200
    refused = await collector.http.post("/v1/t", content=json.dumps(TRACK))
    assert (refused.status_code, refused.json()["code"]) == (401, "key_missing")
    assert refused.json()["message"]


async def test_telemetry_of_clients_is_dropped(collector: Collector) -> None:
    answer = await collector.http.post("/v1/m", content=b"anything", headers={"content-type": "text/plain"})
    assert answer.status_code == 200
    assert collector.events == []


async def test_old_events_are_imported_by_who_may(tmp_path: Path) -> None:
    KeyFile(tmp_path).add("shop", [Scope.COLLECT], "sk_shop")
    old = {**TRACK, "type": "track", "timestamp": "2020-01-01T00:00:00Z"}
    async with collecting(tmp_path) as collector:
        shop = {"authorization": "Bearer sk_shop"}
        assert (await collector.post(old, "/v1/import")).status_code == 200
        assert (await collector.post(old, "/v1/track?mode=import")).status_code == 200
        assert (await collector.post(old, "/v1/import?mode=import", headers=shop)).status_code == 200
        refused = await collector.post(old, "/v1/batch?mode=import", headers=shop)
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        assert (await collector.post(old, "/v1/track?mode=fast")).status_code == 422
        assert [(event.learn, event.flags) for event in collector.touchpoints] == [
            (True, ("imported",)),
            (True, ("imported",)),
            (False, ("out_of_window",)),
        ]
