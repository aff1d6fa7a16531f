"""The customer's will, timed from outside: an objection holds within a second."""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.rig import Up

PRODUCTS = [
    {"product_id": f"p{n}", "name": f"Product {n}", "category": "a/b", "price": 5.0 * n, "currency": "EUR"}
    for n in range(1, 7)
]


def bought(customer: str, *visitors: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(3):
        lines = [{"product_id": "p4", "quantity": 1, "price": 20.0}]
        order = {"order_id": f"{customer}-{number}", "currency": "EUR", "products": lines}
        found.append(
            {"type": "order_completed", "channel": "web", "customer_id": customer, "properties": order}
        )
    for visitor in visitors:
        view = {"type": "product_viewed", "channel": "web", "anonymous_id": visitor}
        found.append({**view, "properties": {"product_id": "p2"}})
    return found


def limited(up: Up, **who: str) -> list[str]:
    """What limits an answer for somebody, asked without waiting for anything."""
    answer = up.post(
        "recommender", "/v1/recommendations", {"placement": "home", "dry_run": True, **who}
    ).json()
    named: list[str] = answer["limited_by"]
    return named


def test_objection_holds_within_a_second(platform: Up) -> None:
    platform.post("recommender", "/v1/products", PRODUCTS)
    worst = 0.0
    for number in range(10):
        customer, visitor = f"objects-{number}", f"objects-cookie-{number}"
        platform.post("collector", "/v1/touchpoints", bought(customer, visitor))
        link = platform.post(
            "collector", "/v1/identities", {"customer_id": customer, "anonymous_id": visitor}
        )
        asked = {"placement": "home", "customer_id": customer, "dry_run": True, "wait_ms": 1000}
        asked["after"] = link.json()["position"]
        assert platform.post("recommender", "/v1/recommendations", asked).json()["fresh"]
        assert limited(platform, customer_id=customer) == []
        # By turns the customer and his visitor key object; both must be heard for both.
        who = {"customer_id": customer} if number % 2 else {"anonymous_id": visitor}
        objection = {**who, "purpose": "personalisation", "granted": False}
        began = time.monotonic()
        assert platform.post("collector", "/v1/consents", objection).status_code == 202
        while not limited(platform, customer_id=customer):
            assert time.monotonic() - began < 1.0, "an objection did not hold within a second"
        worst = max(worst, time.monotonic() - began)
        if number % 2:
            assert limited(platform, anonymous_id=visitor) == ["consent_refused:personalisation"]
    print(f"slowest of 10 objections: {worst * 1000:.0f} ms")
