"""Outcomes: who may say what about which offer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from libs.common.contracts.outcome import BROWSER_WORDS, WORDS
from libs.common.errors import Invalid
from libs.common.intake import Admitted
from services.feedback.errors import KeyNeeded
from services.feedback.model import (
    Offer,
    OutcomeIn,
    check_agrees,
    check_browser,
    check_outcome,
    check_value,
    named_offer,
    outcome_event,
)

OFFER = Offer("d1", "product:p1", "c1", "basket", "p1", 10.0)
VISITORS = OFFER._replace(customer="anon:v1")
NOBODYS = OFFER._replace(customer="event:d1")


def item(**fields: Any) -> OutcomeIn:
    return msgspec.convert({"outcome": "clicked", **fields}, OutcomeIn)


@pytest.mark.parametrize("word", WORDS)
def test_browser_may_say_what_it_can_see(word: str) -> None:
    said = item(token="t", outcome=word)
    if word in BROWSER_WORDS:
        check_browser(said)
    else:
        with pytest.raises(KeyNeeded):
            check_browser(said)


@pytest.mark.parametrize("more", [{"value": 1.0}, {"value": 0}, {"order_id": "o"}, {"token": None}])
def test_browser_may_say_nothing_more(more: dict[str, Any]) -> None:
    with pytest.raises(KeyNeeded):
        check_browser(item(**{"token": "t", **more}))


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"outcome": "bought"}, "wrong_type", "/outcome"),
        ({"value": -1}, "not_finite", "/value"),
        ({"value": 1e308}, "not_finite", "/value"),
        ({"customer_id": "anon:x"}, "bad_string", "/customer_id"),
        ({"anonymous_id": "event:x"}, "bad_string", "/anonymous_id"),
    ],
)
def test_wrong_outcome_is_refused(fields: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_outcome(item(**fields))
    assert (caught.value.code, caught.value.field) == (code, field)


def test_nan_is_no_value() -> None:
    with pytest.raises(Invalid):
        check_outcome(OutcomeIn(outcome="converted", value=float("nan")))


def test_offer_is_named_by_decision_offer_and_customer() -> None:
    named = {"decision_id": "d1", "offer_id": "product:a/b", "customer_id": "c1", "anonymous_id": "v1"}
    assert named_offer(item(**named)) == Offer("d1", "product:a/b", "c1", None, "a/b", None)
    del named["customer_id"]
    assert named_offer(item(**named)).customer == "anon:v1"
    assert named_offer(item(**{**named, "offer_id": "retrofit-7"})).product_id is None


@pytest.mark.parametrize("missing", ["decision_id", "offer_id", "customer_id"])
def test_offer_that_is_half_named_is_refused(missing: str) -> None:
    named = {"decision_id": "d1", "offer_id": "o", "customer_id": "c1"}
    del named[missing]
    with pytest.raises(Invalid) as caught:
        named_offer(item(**named))
    assert (caught.value.code, caught.value.field) == ("missing", f"/{missing}")


@pytest.mark.parametrize(
    ("offer", "ids", "field"),
    [
        (OFFER, {}, None),
        (OFFER, {"decision_id": "d1", "offer_id": "product:p1", "customer_id": "c1"}, None),
        (OFFER, {"customer_id": "c1", "anonymous_id": "v9"}, None),
        (OFFER, {"decision_id": "d2"}, "/decision_id"),
        (OFFER, {"offer_id": "product:p2"}, "/offer_id"),
        (OFFER, {"customer_id": "c2"}, "/customer_id"),
        (OFFER, {"anonymous_id": "c1"}, "/anonymous_id"),
        (VISITORS, {"anonymous_id": "v1"}, None),
        (VISITORS, {"anonymous_id": "v1", "customer_id": "c1"}, None),
        (VISITORS, {"anonymous_id": "v2"}, "/anonymous_id"),
        (VISITORS, {"customer_id": "c1"}, "/customer_id"),
        (NOBODYS, {"decision_id": "d1"}, None),
        (NOBODYS, {"customer_id": "c1"}, "/customer_id"),
        (NOBODYS, {"anonymous_id": "d1"}, "/anonymous_id"),
    ],
)
def test_ids_beside_a_token_must_agree_with_it(offer: Offer, ids: dict[str, str], field: str | None) -> None:
    said = item(token="t", **ids)
    if field is None:
        check_agrees(said, offer)
        return
    with pytest.raises(Invalid) as caught:
        check_agrees(said, offer)
    assert (caught.value.code, caught.value.field) == ("token_mismatch", field)


@pytest.mark.parametrize(
    ("fields", "price", "fits"),
    [
        ({"value": 10.0}, 10.0, True),
        ({"value": 10.01}, 10.0, False),
        ({"value": 0.1 + 0.2}, 0.3, True),
        ({"value": 40, "order_id": "o1"}, 10.0, True),
        ({"value": 40}, None, True),
        ({}, 0.0, True),
    ],
)
def test_value_is_at_most_the_price(fields: dict[str, Any], price: float | None, fits: bool) -> None:
    said, offer = item(**fields), OFFER._replace(price=price)
    if fits:
        check_value(said, offer)
        return
    with pytest.raises(Invalid) as caught:
        check_value(said, offer)
    assert (caught.value.code, caught.value.field) == ("too_large", "/value")


def test_event_counts_once_whatever_its_id() -> None:
    times = Admitted(1, 2, False, ("out_of_window",))
    one = outcome_event(item(id="a"), OFFER, times)
    two = outcome_event(item(id="b"), OFFER, times)
    assert one == two
    assert (one.id, one.source, one.customer) == ("d1/product:p1/clicked", "feedback", "c1")
    assert (one.placement, one.product_id, one.learn, one.flags) == ("basket", "p1", False, times.flags)
