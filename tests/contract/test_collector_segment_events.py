"""What Segment's events become: our types, orders, pages; and what of them names a person."""

from __future__ import annotations

import re
from typing import Any

import pytest

from libs.common.contracts.customer_event import encode_event
from tests.contract.collector_world import NOW, Collector
from tests.contract.segment_world import only


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
