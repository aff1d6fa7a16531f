"""The vocabulary of touchpoints over HTTP: every example is taken, what does not fit is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from libs.common.contracts.touchpoint import VOCABULARY
from tests.contract.collector_world import Collector


def posted(type_: str, properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A touchpoint of a known type as its example says; ``properties`` over those of the example."""
    known = VOCABULARY[type_]
    said = {**known.example, **(properties or {})}
    return {"type": type_, "channel": known.channel, "customer_id": "c-1", "properties": said, **more}


async def test_every_example_is_taken_as_it_is(collector: Collector) -> None:
    batch = [posted(name, {"our_own": {"free": [1]}}) for name in VOCABULARY]
    answer = await collector.post(batch)
    assert (answer.status_code, answer.json()["rejected"]) == (202, [])
    told = {event.type: event.properties for event in collector.touchpoints}
    assert told == {one["type"]: one["properties"] for one in batch}


BAD = [
    ("survey_answered", {"rating": 11}, "not_finite", "rating"),
    ("survey_answered", {"rating": "good"}, "wrong_type", "rating"),
    ("review_posted", {"rating": 0}, "not_finite", "rating"),
    ("review_posted", {"sentiment": 1.5}, "not_finite", "sentiment"),
    ("mention_posted", {"sentiment": "angry"}, "wrong_type", "sentiment"),
    ("mention_posted", {"reach": 2.5}, "wrong_type", "reach"),
    ("call_ended", {"direction": "sideways"}, "wrong_type", "direction"),
    ("call_ended", {"duration_seconds": -1}, "not_finite", "duration_seconds"),
    ("email_bounced", {"bounce_type": "firm"}, "wrong_type", "bounce_type"),
    ("email_opened", {"campaign_id": ""}, "wrong_type", "campaign_id"),
    ("case_closed", {"case_id": None}, "wrong_type", "case_id"),
    ("case_closed", {"resolved": "yes"}, "wrong_type", "resolved"),
    ("asset_registered", {"model": 200}, "wrong_type", "model"),
    ("asset_registered", {"year_built": "2009"}, "wrong_type", "year_built"),
    ("asset_registered", {"year_built": 1066}, "wrong_type", "year_built"),
    ("asset_registered", {"fitted_kits": ["a", 7]}, "wrong_type", "fitted_kits/1"),
    ("asset_registered", {"fitted_kits": ["k"] * 17}, "too_large", "fitted_kits"),
    ("kit_fitted", {"kit": "k" * 65}, "too_large", "kit"),
    ("bid_placed", {"lot_id": None}, "wrong_type", "lot_id"),
    ("bid_placed", {"amount": 1e13}, "not_finite", "amount"),
    ("bid_placed", {"currency": "USD"}, "not_supported", "currency"),
    ("lot_watched", {"ends_at": "tomorrow"}, "bad_time", "ends_at"),
    ("products_searched", {"results": -1}, "wrong_type", "results"),
    ("cart_viewed", {"products": [{"price": 1}, {"price": "1"}]}, "wrong_type", "products/1/price"),
    ("coupon_applied", {"discount": -1}, "not_finite", "discount"),
    ("order_returned", {"reason": 7}, "wrong_type", "reason"),
    ("group_joined", {"group_id": 7}, "wrong_type", "group_id"),
    ("consent_refused", {"purpose": ""}, "wrong_type", "purpose"),
    ("page_viewed", {"url": 7}, "wrong_type", "url"),
]


@pytest.mark.parametrize(("type_", "wrong", "code", "field"), BAD)
async def test_a_property_that_does_not_fit_refuses_the_item_alone(
    collector: Collector, type_: str, wrong: dict[str, Any], code: str, field: str
) -> None:
    good = posted("page_viewed")
    answer = await collector.post([good, good, good, posted(type_, wrong, id="bad")])
    body = answer.json()
    assert (answer.status_code, body["accepted"]) == (202, 3)
    (rejected,) = body["rejected"]
    assert (rejected["index"], rejected["id"]) == (3, "bad")
    assert (rejected["code"], rejected["field"]) == (code, f"/properties/{field}")
    assert len(rejected["reason"]) > 10


async def test_alone_it_is_a_422_with_its_place(collector: Collector) -> None:
    bad = posted("survey_answered", {"rating": 11})
    answer = await collector.post([posted("survey_answered", {"rating": -1})] * 3 + [bad])
    assert answer.status_code == 422
    assert answer.json()["errors"][3]["field"] == "/3/properties/rating"


async def test_unknown_type_is_kept_with_whatever_it_has(collector: Collector) -> None:
    odd = {"type": "window_shopped", "channel": "web", "customer_id": "c-1", "properties": {"rating": "?"}}
    assert (await collector.post(odd)).status_code == 202
    assert collector.touchpoints[0].properties == {"rating": "?"}
    text = (await collector.http.get("/metrics")).text
    assert "closedloop_collector_unknown_types_total 1" in text
