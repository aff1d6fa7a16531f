"""Touchpoints, links and consents become events."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from libs.common.contracts.customer_event import IdentityLinked, Touchpoint, encode_event
from libs.common.errors import Invalid
from libs.common.intake import Admitted
from services.collector.model import (
    ConsentIn,
    Sender,
    TouchpointIn,
    check_consent,
    check_ids,
    check_properties,
    check_touchpoint,
    check_word,
    consent_event,
    touchpoint_events,
)

TIMES = Admitted(1_000, 2_000, True, ())
SHOP = Sender("shop")


def item(**fields: Any) -> TouchpointIn:
    raw = {
        "type": "product_viewed",
        "channel": "web",
        "customer_id": "c1",
        "properties": {"product_id": "p1"},
    }
    return msgspec.convert({**raw, **fields}, TouchpointIn)


def order(**properties: Any) -> TouchpointIn:
    raw = {"order_id": "o1", "products": [{"product_id": "p1", "quantity": 2, "price": 3.5}]}
    return item(type="order_completed", properties={**raw, **properties})


def refusal(made: TouchpointIn) -> tuple[str, str]:
    with pytest.raises(Invalid) as caught:
        check_touchpoint(made, "EUR")
    return caught.value.code, caught.value.field


@pytest.mark.parametrize("word", ["a", "product_viewed", "b2b_call_ended", "x1"])
def test_word_in_snake_case_is_taken(word: str) -> None:
    check_word(word, "/type")


@pytest.mark.parametrize(
    "word", ["", "Product Viewed", "productViewed", "_x", "x_", "x__y", "1x", "x-y", "x\n", "é"]
)
def test_word_of_another_form_is_refused(word: str) -> None:
    assert refusal(item(type=word)) == ("bad_string", "/type")
    assert refusal(item(channel=word)) == ("bad_string", "/channel")


def test_word_that_is_too_long_is_refused() -> None:
    assert refusal(item(type="x" * 101)) == ("too_large", "/type")


def test_unknown_type_and_channel_are_kept() -> None:
    made = item(type="window_shopped", channel="hologram", properties={"product_id": 7, "deep": {"er": [1]}})
    check_touchpoint(made, "EUR")
    (event,) = touchpoint_events(made, "i", SHOP, TIMES)
    assert isinstance(event, Touchpoint)
    assert (event.type, event.channel) == ("window_shopped", "hologram")
    assert event.properties == {"product_id": 7, "deep": {"er": [1]}}


def test_nobody_named_is_refused() -> None:
    assert refusal(item(customer_id=None)) == ("missing", "/customer_id")


@pytest.mark.parametrize("name", ["anon:x", "event:x", "anon:", "event:"])
def test_reserved_names_are_refused(name: str) -> None:
    assert refusal(item(customer_id=name)) == ("bad_string", "/customer_id")
    assert refusal(item(anonymous_id=name)) == ("bad_string", "/anonymous_id")
    with pytest.raises(Invalid):
        check_ids("c", name)


@pytest.mark.parametrize(
    ("properties", "code", "field"),
    [
        ({"order_id": None}, "wrong_type", "/properties/order_id"),
        ({"products": []}, "wrong_type", "/properties/products"),
        ({"products": [{}]}, "missing", "/properties/products/0/product_id"),
        ({"products": [{"product_id": "p"}] * 3 + [{"product_id": "p", "price": "x"}]}, "wrong_type",
         "/properties/products/3/price"),
        ({"products": [{"product_id": "p", "price": -1}]}, "not_finite", "/properties/products/0/price"),
        ({"products": [{"product_id": "p", "price": 1e308}]}, "not_finite", "/properties/products/0/price"),
        ({"products": [{"product_id": "p", "price": float("inf")}]}, "not_finite",
         "/properties/products/0/price"),
        ({"products": [{"product_id": "p", "quantity": 0}]}, "not_finite", "/properties/products/0/quantity"),
        ({"total": 1e13}, "not_finite", "/properties/total"),
        ({"currency": "USD"}, "not_supported", "/properties/currency"),
        ({"currency": "EURO"}, "too_large", "/properties/currency"),
    ],
)  # fmt: skip
def test_wrong_order_is_refused_by_pointer(properties: dict[str, Any], code: str, field: str) -> None:
    assert refusal(order(**properties)) == (code, field)


def test_missing_properties_of_a_known_type_are_named() -> None:
    assert refusal(item(type="order_completed", properties={})) == ("missing", "/properties/order_id")
    assert refusal(item(type="survey_answered", properties={"rating": 11}))[1] == "/properties/rating"


def test_nan_is_no_price() -> None:
    from libs.common.contracts.touchpoint import ProductSeen

    with pytest.raises(Invalid):
        check_properties({"product_id": "p", "price": float("nan")}, ProductSeen, "EUR")


def test_free_properties_of_a_known_type_are_kept() -> None:
    made = order(gift=True, currency="eur")
    check_touchpoint(made, "EUR")
    (event,) = touchpoint_events(made, "i", SHOP, TIMES)
    assert isinstance(event, Touchpoint)
    assert event.properties["gift"] is True


def test_touchpoint_with_both_ids_is_the_customers_and_makes_no_link() -> None:
    (event,) = touchpoint_events(item(anonymous_id="v1"), "i", SHOP, TIMES)
    assert isinstance(event, Touchpoint)
    assert (event.customer, event.customer_id, event.anonymous_id) == ("c1", "c1", "v1")


def test_touchpoint_of_a_visitor_is_filed_under_his_key() -> None:
    (event,) = touchpoint_events(item(customer_id=None, anonymous_id="v1"), "i", SHOP, TIMES)
    assert event.customer == "anon:v1"


@pytest.mark.parametrize("kind", ["order_completed", "order_cancelled", "order_returned"])
def test_order_with_both_ids_is_echoed_under_the_visitor(kind: str) -> None:
    made = order()
    made = msgspec.structs.replace(made, type=kind, anonymous_id="v1")
    event, echo = touchpoint_events(made, "i", SHOP, TIMES)
    assert isinstance(event, Touchpoint)
    assert isinstance(echo, Touchpoint)
    assert (event.customer, event.internal, event.echo) == ("c1", False, False)
    assert (echo.customer, echo.internal, echo.echo) == ("anon:v1", True, True)
    assert echo.properties == event.properties


def test_order_of_a_browser_is_flagged_and_teaches_nothing() -> None:
    (event,) = touchpoint_events(order(), "i", Sender("browser", trusted=False), TIMES)
    assert isinstance(event, Touchpoint)
    assert (event.learn, event.flags) == (False, ("unverified",))
    (view,) = touchpoint_events(item(), "i", Sender("browser", trusted=False), TIMES)
    assert isinstance(view, Touchpoint)
    assert view.learn


def test_identified_with_both_ids_makes_a_link_and_names_the_owner() -> None:
    made = item(type="identified", anonymous_id="v1", properties=None)
    touchpoint, link, owner = touchpoint_events(made, "i", SHOP, TIMES)
    assert isinstance(touchpoint, Touchpoint)
    assert isinstance(link, IdentityLinked)
    assert isinstance(owner, IdentityLinked)
    assert (link.customer, link.customer_id, link.anonymous_id) == ("c1", "c1", "v1")
    assert (owner.customer, owner.internal) == ("anon:v1", True)
    assert touchpoint.id != link.id
    # One item posted counts as one accepted: what follows from it is the platform's own.
    assert [touchpoint.internal, link.internal] == [False, True]


def test_identified_without_visitor_makes_no_link() -> None:
    assert len(touchpoint_events(item(type="identified", properties=None), "i", SHOP, TIMES)) == 1


def test_consent_keeps_where_it_was_given() -> None:
    made = ConsentIn(
        anonymous_id="v1", purpose="personalisation", granted=False, channel="email", source="desk"
    )
    check_consent(made)
    event = consent_event(made, "i", SHOP, TIMES)
    assert (event.customer, event.granted, event.said_at, event.source) == ("anon:v1", False, "desk", "shop")
    with pytest.raises(Invalid):
        check_consent(ConsentIn(customer_id="c", purpose="p", granted=True, channel="E-Mail"))


def test_events_can_be_encoded() -> None:
    for event in touchpoint_events(msgspec.structs.replace(order(), anonymous_id="v"), "i", SHOP, TIMES):
        assert b'"kind":"touchpoint"' in encode_event(event)
