"""Segment's HTTP API as its clients speak it: what is taken, what it becomes, and how it is answered."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import pytest

from libs.common.contracts.customer_event import IdentityLinked, Touchpoint, encode_event
from libs.common.keys import KeyFile, Scope
from tests.contract.collector_world import NOW, Collector, collecting

TRACK = {
    "userId": "c1",
    "event": "Fitting Room Booked",
    "properties": {"room": 7},
    "messageId": "m1",
    "timestamp": "2025-10-09T08:00:00Z",
}
BATCH = {"batch": [{"type": "track", **TRACK}], "sentAt": "2025-10-09T08:53:20Z", "writeKey": "dev-key"}


async def only(collector: Collector, message: dict[str, Any], path: str = "/v1/track") -> Touchpoint:
    """The one touchpoint a message becomes."""
    answer = await collector.post(message, path)
    assert answer.status_code == 200, answer.text
    (event,) = collector.touchpoints
    return event


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
    ("name", "type_"),
    [
        ("Order Shipped", "order_shipped"),
        ("orderShipped", "order_shipped"),
        ("ORDER SHIPPED", "order_shipped"),
        ("order_shipped", "order_shipped"),
        ("Order – Shipped!", "order_shipped"),
        ("HTTPServer Seen", "http_server_seen"),
        ("Café Besucht", "cafe_besucht"),
        ("3D View Opened", "event_3d_view_opened"),
        ("Product Viewed", "product_viewed"),
        ("Products Searched", "products_searched"),
        ("Email Link Clicked", "email_clicked"),
        ("Email Marked as Spam", "email_complained"),
        ("Email Opened", "email_opened"),
        ("Email Delivered", "email_delivered"),
        ("Email Bounced", "email_bounced"),
        ("Unsubscribed", "email_unsubscribed"),
    ],
)
async def test_names_become_our_types(collector: Collector, name: str, type_: str) -> None:
    event = await only(collector, {"userId": "c1", "event": name})
    assert event.type == type_


async def test_an_order_of_the_specification_is_an_order(collector: Collector) -> None:
    message = {
        "userId": "c1",
        "anonymousId": "v1",
        "event": "Order Completed",
        "messageId": "m-order",
        "properties": {
            "checkout_id": "k1",
            "order_id": 50314,
            "affiliation": "Shop",
            "revenue": "25.00",
            "currency": "EUR",
            "coupon": None,
            "products": [
                {"product_id": 507, "sku": "G-19", "price": "19", "quantity": 1, "category": "Games"},
                {"sku": "G-32", "price": 3, "quantity": "2", "category": None},
            ],
        },
    }
    answer = await collector.post(message, "/v1/track")
    assert answer.json()["rejected"] == []
    order, echo = collector.touchpoints
    assert (order.type, order.customer, echo.customer, echo.echo) == (
        "order_completed",
        "c1",
        "anon:v1",
        True,
    )
    assert order.properties == {
        "checkout_id": "k1",
        "order_id": "50314",
        "affiliation": "Shop",
        "revenue": 25.0,
        "total": 25.0,
        "currency": "EUR",
        "products": [
            {"product_id": "507", "sku": "G-19", "price": 19, "quantity": 1, "category": "Games"},
            {"product_id": "G-32", "sku": "G-32", "price": 3, "quantity": 2},
        ],
    }


async def test_names_of_banners_are_kept_apart_from_those_of_people(collector: Collector) -> None:
    message = {
        "userId": "c1",
        "event": "Promotion Viewed",
        "properties": {"promotion_id": 7, "name": "Spring"},
    }
    event = await only(collector, message)
    assert event.properties == {"promotion_id": "7", "promotion_name": "Spring"}


async def test_what_names_a_person_never_reaches_the_bus(collector: Collector) -> None:
    traits = {"plan": "gold", "email": "kim@shop.example", "firstName": "Kim", "address": {"city": "Ulm"}}
    message = {
        "userId": "c1",
        "traits": traits,
        "context": {
            "ip": "192.0.2.7",
            "traits": traits,
            "page": {"url": "https://shop.example/?email=kim@shop.example"},
        },
    }
    event = await only(collector, message, "/v1/identify")
    assert event.properties == {"plan": "gold"}
    assert not re.search("kim|ulm|192.0.2", encode_event(event).decode(), re.IGNORECASE)
    refused = await collector.post({"userId": "kim@shop.example", "event": "Seen"}, "/v1/track")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "/userId")


@pytest.mark.parametrize(
    ("name", "properties", "kept", "dropped"),
    [
        ("Promotion Viewed", {"promotion_id": "p", "position": 1}, {"promotion_id": "p", "position": "1"}, 0),
        ("Product Reviewed", {"product_id": "a", "rating": 0}, {"product_id": "a"}, 1),
        ("Product Reviewed", {"product_id": "a", "rating": "4"}, {"product_id": "a", "rating": 4}, 0),
        ("Product Reviewed", {"product_id": "a", "rating": "4/5"}, {"product_id": "a"}, 1),
        ("Product Viewed", {"product_id": "a", "price": "free", "x": 1}, {"product_id": "a", "x": 1}, 1),
        (
            "Cart Viewed",
            {"products": [{"sku": "a", "quantity": 0}, {"product_id": "b", "price": -1}], "cart_id": [1]},
            {"products": [{"product_id": "b"}]},
            3,
        ),
        ("Cart Viewed", {"products": [7], "value": 3}, {"value": 3}, 1),
        (
            "Order Completed",
            {"order_id": "o", "coupon": 7, "products": [{"sku": "a", "quantity": 0}, {"product_id": "b"}]},
            {"order_id": "o", "products": [{"product_id": "b"}]},
            2,
        ),
    ],
)
async def test_a_property_that_need_not_be_there_costs_no_event(
    collector: Collector, name: str, properties: dict[str, Any], kept: dict[str, Any], dropped: int
) -> None:
    event = await only(collector, {"userId": "c1", "event": name, "properties": properties})
    assert event.properties == kept
    page = (await collector.http.get("/metrics")).text
    (count,) = re.findall(r"^closedloop_collector_misfits_dropped_total (\S+)", page, re.MULTILINE)
    assert float(count) == dropped


@pytest.mark.parametrize(
    ("name", "properties", "field"),
    [
        ("Order Completed", {"products": [{"product_id": "a", "quantity": 0}]}, "/products"),
        ("Order Completed", {"products": [{"product_id": "a", "quantity": -1}]}, "/products/0/quantity"),
        ("Order Completed", {"products": [{"product_id": "a", "price": "?"}]}, "/products/0/price"),
        ("Order Completed", {"products": [{"product_id": "a"}], "currency": 9}, "/currency"),
        ("Order Refunded", {"products": [{"product_id": "a", "quantity": 0}]}, "/products/0/quantity"),
        ("Order Refunded", {"products": "all", "reason": 7}, "/products"),
    ],
)
async def test_what_a_sale_is_made_of_is_never_guessed(
    collector: Collector, name: str, properties: dict[str, Any], field: str
) -> None:
    message = {"userId": "c1", "event": name, "properties": {"order_id": "o", **properties}}
    answer = await collector.post(message, "/v1/track")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, f"/properties{field}")
    assert not collector.events


async def test_an_order_without_products_is_refused_by_name(collector: Collector) -> None:
    answer = await collector.post(
        {"userId": "c1", "event": "Order Completed", "properties": {"order_id": "o1", "revenue": 5}},
        "/v1/track",
    )
    body = answer.json()
    assert answer.status_code == 422
    assert (body["code"], body["errors"][0]["field"]) == ("missing", "/properties/products")
    assert body["message"] == body["detail"]


async def test_numbers_are_ids_too(collector: Collector) -> None:
    event = await only(
        collector, {"userId": 7, "anonymousId": 7.0, "messageId": 12, "event": "Seen", "timestamp": None}
    )
    assert (event.customer_id, event.anonymous_id, event.id, event.occurred_at) == ("7", "7", "12", NOW)


async def test_page_and_screen(collector: Collector) -> None:
    page = {
        "anonymousId": "v1",
        "name": "Home",
        "category": "Docs",
        "properties": {"url": "https://shop.example/", "title": "Shop"},
        "context": {"channel": "kiosk", "page": {"path": "/"}, "ip": "192.0.2.7", "library": {"name": "x"}},
    }
    await collector.post(page, "/v1/p")
    await collector.post({"anonymousId": "v1", "properties": {"name": "Start"}}, "/v1/screen")
    viewed, screen = collector.touchpoints
    assert (viewed.type, viewed.channel, viewed.customer) == ("page_viewed", "kiosk", "anon:v1")
    assert viewed.properties["page_name"] == "Home"
    assert (viewed.properties["category"], viewed.properties["title"]) == ("Docs", "Shop")
    assert "ip" not in viewed.context
    assert "library" not in viewed.context
    assert (screen.type, screen.properties) == ("screen_viewed", {"screen_name": "Start"})


async def test_identify_links_the_visitor(collector: Collector) -> None:
    message = {"userId": "c1", "anonymousId": "v1", "traits": {"plan": "gold"}, "messageId": "m1"}
    answer = await collector.post(message, "/v1/identify")
    assert answer.json()["accepted"] == 1
    (said,) = collector.touchpoints
    links = [event for event in collector.events if isinstance(event, IdentityLinked)]
    assert (said.type, said.customer, said.properties) == ("identified", "c1", {"plan": "gold"})
    assert [(link.customer, link.customer_id, link.anonymous_id) for link in links] == [
        ("c1", "c1", "v1"),
        ("anon:v1", "c1", "v1"),
    ]


async def test_identify_of_a_known_customer_links_nothing(collector: Collector) -> None:
    event = await only(collector, {"userId": "c1", "traits": []}, "/v1/i")
    assert (event.type, event.customer) == ("identified", "c1")
    assert len(collector.events) == 1


async def test_rudderstack_says_traits_in_the_context(collector: Collector) -> None:
    event = await only(collector, {"userId": "c1", "context": {"traits": {"plan": "gold"}}}, "/v1/identify")
    assert (event.properties, event.context) == ({"plan": "gold"}, {})
    refused = await collector.post({"userId": "c1", "context": {"traits": "gold"}}, "/v1/identify")
    assert refused.json()["errors"][0]["field"] == "/traits"


async def test_alias_links_the_previous_id(collector: Collector) -> None:
    answer = await collector.post({"userId": "c1", "previousId": "v1", "messageId": "m1"}, "/v1/alias")
    assert answer.json()["accepted"] == 1
    assert [
        (event.customer, event.customer_id, event.anonymous_id, event.internal)
        for event in collector.events
        if isinstance(event, IdentityLinked)
    ] == [("c1", "c1", "v1", False), ("anon:v1", "c1", "v1", True)]
    assert collector.touchpoints == []
    refused = await collector.post({"userId": "c1"}, "/v1/a")
    assert refused.json()["errors"][0]["field"] == "/previousId"
    refused = await collector.post({"anonymousId": "v1", "previousId": "v2"}, "/v1/a")
    (error,) = refused.json()["errors"]
    assert (error["field"], error["reason"]) == ("/userId", "userId must be given")


async def test_group_names_the_account(collector: Collector) -> None:
    event = await only(collector, {"userId": "c1", "groupId": 12, "traits": {"plan": "gold"}}, "/v1/group")
    assert (event.type, event.account_id) == ("group_joined", "12")
    assert event.properties == {"plan": "gold", "group_id": "12"}
    refused = await collector.post({"userId": "c1"}, "/v1/g")
    assert refused.json()["errors"][0]["field"] == "/groupId"


async def test_later_calls_carry_the_account_in_their_context(collector: Collector) -> None:
    event = await only(collector, {**TRACK, "context": {"groupId": "acme"}})
    assert event.account_id == "acme"


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


async def test_a_browser_speaks_for_a_customer_by_signature_only(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add_publishable("page", ["https://shop.example"])
    assert made.identity_secret is not None
    signature = hmac.new(made.identity_secret.encode(), b"c1", hashlib.sha256).hexdigest()
    headers = {"authorization": f"Bearer {made.key}", "origin": "https://shop.example"}
    seen = {"anonymousId": "v1", "userId": "c1", "event": "Seen"}
    async with collecting(tmp_path) as collector:

        async def post(message: dict[str, Any], path: str = "/v1/t") -> int:
            return (await collector.post(message, path, headers=headers)).status_code

        assert await post(seen) == 200
        assert await post({**seen, "context": {"customer_signature": "0" * 64}}) == 200
        assert await post({**seen, "context": {"customer_signature": signature}}) == 200
        assert [event.customer for event in collector.touchpoints] == ["anon:v1", "anon:v1", "c1"]
        assert [event.customer_id for event in collector.touchpoints] == [None, None, "c1"]
        assert await post({"userId": "c1", "event": "Seen"}) == 422
        assert await post({"userId": "c1", "previousId": "v1"}, "/v1/a") == 422
        assert await post({"userId": "c1", "anonymousId": "v1"}, "/v1/i") == 200
        assert not [event for event in collector.events if isinstance(event, IdentityLinked)]
        metrics = (await collector.http.get("/metrics")).text
        assert "closedloop_collector_unsigned_customers_total 5.0" in metrics
