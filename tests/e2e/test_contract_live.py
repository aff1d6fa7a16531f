"""Lines of the external contract that only a whole platform can keep, checked as a hostile caller would."""

from __future__ import annotations

import time
import uuid
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.e2e.rig import Up, eventually

ASK = "/v1/recommendations"
TOUCH = "/v1/touchpoints"
SHELF = [f"good{number}" for number in range(8)]


@pytest.fixture(scope="module")
def shop(platform: Up) -> Up:
    products = [
        {"product_id": name, "name": name, "category": "a/b", "price": 5.0, "currency": "EUR"}
        for name in SHELF
    ]
    # What is asked for the best offer is asked where nothing is drawn.
    sure = {"placement_id": "sure", "exploration": 0.0}
    assert platform.post("recommender", "/v1/placements", sure).status_code == 200
    assert platform.post("recommender", "/v1/products", products).status_code == 200
    posted = time.monotonic()
    eventually(lambda: len(offers(platform, dry_run=True, limit=20)) == len(SHELF))
    assert time.monotonic() - posted < 1.0
    return platform


def somebody() -> str:
    return uuid.uuid4().hex


def ask(shop: Up, **more: Any) -> dict[str, Any]:
    response = shop.post("recommender", ASK, {"placement": "live"} | more)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def offers(shop: Up, **more: Any) -> list[str]:
    return [offer["product_id"] for offer in ask(shop, **more)["offers"]]


def post(shop: Up, path: str, body: Any) -> str:
    response = shop.post("collector", path, body)
    assert response.status_code == 202, response.text
    return str(response.json()["position"])


def bought(product: str, **who: str) -> dict[str, Any]:
    lines = [{"product_id": product, "quantity": 1, "price": 5.0}]
    properties = {"order_id": somebody(), "currency": "EUR", "products": lines}
    return {"type": "order_completed", "channel": "web", "properties": properties, **who}


def settled(shop: Up) -> dict[str, Any]:
    """The ledger once everything is in it: services report what they accepted once a second."""
    time.sleep(1.3)
    eventually(lambda: shop.get("analyzer", "/v1/ledger").json()["in_flight"] == 0)
    ledger: dict[str, Any] = shop.get("analyzer", "/v1/ledger").json()
    assert ledger["balanced"]
    return ledger


def test_what_is_excluded_is_no_candidate_either(shop: Up) -> None:
    context = {"product_id": "good0", "basket": ["good1", {"product_id": "good2"}]}
    answer = ask(shop, limit=20, context=context, exclude=["good3"])
    assert sorted(offer["product_id"] for offer in answer["offers"]) == SHELF[4:]
    path = f"/v1/decisions/{answer['decision_id']}"
    eventually(lambda: shop.get("recommender", path).status_code == 200, 2.0)
    decision = shop.get("recommender", path).json()
    assert {found["product_id"] for found in decision["candidates"]} == set(SHELF[4:])


def test_decision_id_gives_the_first_answer_by_every_way(shop: Up) -> None:
    name = f"№ 1/{somebody()}"
    first = ask(shop, decision_id=name, customer_id=somebody())
    assert ask(shop, decision_id=name, limit=1, exclude=SHELF, dry_run=True) == first
    assert shop.get("recommender", f"{ASK}?placement=x&decision_id={quote(name)}").json() == first
    batch = {"requests": [{"placement": "x", "decision_id": name}]}
    assert shop.post("recommender", f"{ASK}/batch", batch).json()["answers"] == [first]


def test_dry_run_leaves_no_trace(shop: Up) -> None:
    before, customer = settled(shop), somebody()
    answer = ask(shop, customer_id=customer, dry_run=True, decision_id=somebody())
    assert {offer["token"] for offer in answer["offers"]} == {None}
    assert settled(shop)["accepted"] == before["accepted"]
    assert shop.get("recommender", f"/v1/decisions/{answer['decision_id']}").status_code == 404
    assert shop.get("analyzer", f"/v1/customers/{customer}").status_code == 404


def test_history_of_the_visitor_counts_for_the_customer_and_a_refusal_ends_it(shop: Up) -> None:
    customer, visitor, stranger = somebody(), somebody(), somebody()
    post(shop, TOUCH, [bought("good7", anonymous_id=visitor) for _ in range(3)])
    both = {"customer_id": customer, "anonymous_id": visitor}
    position = post(shop, "/v1/identities", both)
    seen = ask(shop, placement="sure", customer_id=customer, after=position, wait_ms=1000)
    assert seen["fresh"] is True
    assert (seen["offers"][0]["product_id"], seen["offers"][0]["kind"]) == ("good7", "repeat")
    foreign = ask(shop, customer_id=stranger, anonymous_id=visitor, limit=20)
    assert "repeat" not in {offer["kind"] for offer in foreign["offers"]}
    refusal = {"customer_id": customer, "purpose": "recommendations", "granted": False}
    position = post(shop, "/v1/consents", refusal)
    for who in ({"customer_id": customer}, {"anonymous_id": visitor}):
        answer = ask(shop, **who, after=position, wait_ms=1000, limit=20)
        assert answer["limited_by"] == ["consent_refused:recommendations"]
        assert "repeat" not in {offer["kind"] for offer in answer["offers"]}
        assert len(answer["offers"]) == len(SHELF)


def test_ledger_and_totals_are_exact_after_repeats_refusals_and_odd_years(shop: Up) -> None:
    before, customer = settled(shop), f"ü/%2F {somebody()}"
    view = {"type": "page_viewed", "channel": "web", "customer_id": customer}
    years = [{**view, "occurred_at": f"{year}-06-01T00:00:00Z"} for year in ("0001", "9999")]
    body = [{**view, "id": "same"}] * 5 + [{**view, "kolour": 1}] * 3 + years
    answer = shop.post("collector", TOUCH, body).json()
    assert (answer["accepted"], len(answer["rejected"])) == (7, 3)
    order = bought("good1", customer_id=customer, anonymous_id=somebody())
    position = post(shop, TOUCH, order)
    assert ask(shop, customer_id=customer, after=position, wait_ms=1000)["fresh"] is True
    after = settled(shop)
    grown = {name: after[name] - before[name] for name in ("accepted", "applied", "duplicate", "rejected")}
    assert grown == {"accepted": 9, "applied": 5, "duplicate": 4, "rejected": 0}
    path = f"/v1/customers/{quote(customer, safe='')}"
    totals = shop.get("analyzer", path).json()["totals"]
    assert totals == {"page_viewed": 3, "order_completed": 1, "decision_made": 1}
    timeline = shop.get("analyzer", f"{path}/timeline").json()
    assert len({entry["id"] for entry in timeline}) == len(timeline) == 5


def test_no_changed_token_is_taken_and_browsers_report_no_sale(shop: Up) -> None:
    token = ask(shop, customer_id=somebody())["offers"][0]["token"]
    changed = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token))]
    changed += [token[:at] + token[at + 1 :] for at in range(len(token))] + [token + "A", token + "="]
    refused = shop.post(
        "feedback", "/v1/outcomes", [{"token": each, "outcome": "shown"} for each in set(changed) - {token}]
    )
    assert refused.status_code == 422
    assert {error["code"] for error in refused.json()["errors"]} == {"token_invalid"}
    url = shop.url("feedback") + "/v1/outcomes"
    for word, status in (("shown", 202), ("clicked", 202), ("accepted", 401), ("converted", 401)):
        sent = httpx.post(url, json={"token": token, "outcome": word}, trust_env=False)
        assert sent.status_code == status, sent.text
