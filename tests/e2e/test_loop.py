"""A newcomer's first minutes with `closedloop up --ephemeral`: the loop from a product to a timeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.rig import Up, closedloop, eventually

PRODUCTS = [
    {"product_id": f"p{n}", "name": f"Product {n}", "category": "a/b", "price": 5.0 * n, "currency": "EUR"}
    for n in (1, 2, 3)
]


@pytest.fixture(scope="module")
def shop(platform: Up) -> Up:
    """A platform with three products."""
    answer = platform.post("recommender", "/v1/products", PRODUCTS)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 3)
    # What is stored is served within a second, not at once where tables were made a moment ago.
    eventually(lambda: len(recommend(platform, limit=3, dry_run=True)["offers"]) == 3)
    return platform


def order(number: int, customer: str, *products: str) -> dict[str, Any]:
    lines = [{"product_id": product, "quantity": 1, "price": 5.0} for product in products]
    return {
        "id": f"order-{number}",
        "type": "order_completed",
        "channel": "web",
        "customer_id": customer,
        "properties": {"order_id": f"order-{number}", "currency": "EUR", "products": lines},
    }


def recommend(up: Up, **request: Any) -> dict[str, Any]:
    answer = up.post("recommender", "/v1/recommendations", {"placement": "home", **request})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_platform_is_ready_in_time(platform: Up) -> None:
    assert platform.seconds <= 30
    for service in ("collector", "analyzer", "recommender", "feedback", "learner"):
        assert platform.get(service, "/healthz").status_code == 200
        assert platform.get(service, "/readyz").status_code == 200
        assert platform.get(service, "/metrics").status_code == 200


def test_nothing_listens_beyond_this_machine(platform: Up) -> None:
    processes = [psutil.Process(platform.pid), *psutil.Process(platform.pid).children(recursive=True)]
    listening = [
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 7
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_recommendation_has_seen_what_was_just_posted(shop: Up) -> None:
    posted = shop.post(
        "collector",
        "/v1/touchpoints",
        [
            {
                "type": "product_viewed",
                "channel": "web",
                "anonymous_id": "v1",
                "properties": {"product_id": "p1"},
            },
            {**order(1, "", "p1", "p2"), "customer_id": None, "anonymous_id": "v1"},
        ],
    )
    assert posted.status_code == 202, posted.text
    assert posted.json()["accepted"] == 2, posted.text
    answer = recommend(shop, anonymous_id="v1", after=posted.json()["position"], wait_ms=1000, limit=2)
    assert answer["fresh"] is True
    assert answer["group"] == "treatment"
    assert len(answer["offers"]) == 2
    assert all(offer["reasons"] for offer in answer["offers"])
    assert all(0 < offer["propensity"] <= 1 for offer in answer["offers"])


def test_propensities_of_each_slot_sum_to_one(shop: Up) -> None:
    answer = recommend(shop, customer_id="c-propensity", limit=3)
    path = f"/v1/decisions/{answer['decision_id']}"
    eventually(lambda: shop.get("recommender", path).status_code == 200, 2.0)
    decision = shop.get("recommender", path).json()
    assert [slot["offer_id"] for slot in decision["slots"]] == [
        offer["offer_id"] for offer in answer["offers"]
    ]
    for slot, offer in zip(decision["slots"], answer["offers"], strict=True):
        pool = {each["offer_id"]: each["propensity"] for each in slot["pool"]}
        assert sum(pool.values()) == pytest.approx(1.0, abs=1e-6)
        assert pool[offer["offer_id"]] == pytest.approx(offer["propensity"])
        assert slot["propensity"] == pytest.approx(offer["propensity"])


def test_what_was_shown_and_bought_is_a_conversion_that_is_learned(shop: Up) -> None:
    eventually(lambda: bool(recommend(shop, customer_id="c-trial", dry_run=True)["offers"]), 2.0)
    offer = recommend(shop, customer_id="c-trial", limit=2)["offers"][0]
    path = "/v1/customers/c-trial/export"

    def steps() -> set[str]:
        answer = shop.get("analyzer", path)
        events = answer.json()["events"] if answer.status_code == 200 else []
        return {lesson["step"] for event in events for lesson in event.get("lessons", []) if "step" in lesson}

    told = shop.post("feedback", "/v1/outcomes", {"token": offer["token"], "outcome": "shown"})
    assert told.status_code == 202, told.text
    eventually(lambda: steps() == {"shown"}, 5.0)
    bought = shop.post("collector", "/v1/touchpoints", order(7, "c-trial", offer["product_id"]))
    assert bought.status_code == 202, bought.text
    eventually(lambda: steps() == {"shown", "converted"}, 5.0)
    eventually(lambda: shop.get("analyzer", "/v1/models").json()["learned"]["trials"] >= 1, 10.0)


def test_all_of_it_is_seen_under_the_customer_once_he_is_known(shop: Up) -> None:
    viewed = {"type": "product_viewed", "channel": "web", "properties": {"product_id": "p3"}}
    assert shop.post("collector", "/v1/touchpoints", {**viewed, "anonymous_id": "v2"}).status_code == 202
    bought = shop.post("collector", "/v1/touchpoints", order(2, "c2", "p1"))
    answer = recommend(shop, anonymous_id="v2", limit=2)
    token = answer["offers"][0]["token"]
    for outcome in ("shown", "clicked"):
        told = shop.post("feedback", "/v1/outcomes", {"token": token, "outcome": outcome})
        assert told.status_code == 202, told.text
        assert told.json()["accepted"] == 1, told.text
    linked = shop.post("collector", "/v1/identities", {"customer_id": "c2", "anonymous_id": "v2"})
    assert linked.status_code == 202, linked.text
    assert bought.status_code == 202

    def timeline() -> list[dict[str, Any]]:
        answer = shop.get("analyzer", "/v1/customers/c2/timeline?limit=100")
        return list(answer.json()) if answer.status_code == 200 else []

    wanted = {
        ("touchpoint", "product_viewed"),
        ("touchpoint", "order_completed"),
        ("outcome", "shown"),
        ("outcome", "clicked"),
    }
    eventually(lambda: {(row["kind"], row["type"]) for row in timeline()} >= wanted, 5.0)
    rows = timeline()
    assert answer["decision_id"] in [row["id"] for row in rows if row["kind"] == "decision"]
    assert "identity" in {row["kind"] for row in rows}
    assert len({row["id"] for row in rows}) == len(rows)
    customer = shop.get("analyzer", "/v1/customers/c2").json()
    assert customer["totals"]["order_completed"] == 1
    assert customer["totals"]["product_viewed"] == 1


def test_repeated_event_counts_once(shop: Up) -> None:
    for _ in range(3):
        assert shop.post("collector", "/v1/touchpoints", order(7, "c7", "p2")).status_code == 202
    path = "/v1/customers/c7"
    eventually(lambda: shop.get("analyzer", path).status_code == 200, 5.0)
    eventually(lambda: shop.get("analyzer", "/v1/ledger").json()["in_flight"] == 0, 10.0)
    assert shop.get("analyzer", path).json()["totals"]["order_completed"] == 1


def test_forged_token_and_wrong_key_change_nothing(shop: Up) -> None:
    token = recommend(shop, customer_id="c8")["offers"][0]["token"]
    forged = ("A" if token[0] != "A" else "B") + token[1:]
    refused = shop.post("feedback", "/v1/outcomes", {"token": forged, "outcome": "clicked"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["code"] == "token_invalid"
    stranger = shop.client.post(
        shop.url("collector") + "/v1/touchpoints",
        json={"type": "page_viewed", "channel": "web", "customer_id": "c8"},
        headers={"Authorization": "Bearer nobody"},
    )
    assert stranger.status_code == 401
    assert stranger.json()["code"] == "key_unknown"


def test_new_key_works_within_a_second_in_an_ephemeral_platform(shop: Up) -> None:
    there = ["--data-dir", str(shop.data_dir)]
    added = closedloop("keys", "add", "--scopes", "collect", "--name", "e2e", *there)
    assert added.returncode == 0, added.stderr
    key = added.stdout.splitlines()[-1]
    body = {"type": "page_viewed", "channel": "web", "customer_id": "c9"}

    def status() -> int:
        headers = {"Authorization": f"Bearer {key}"}
        url = shop.url("collector") + "/v1/touchpoints"
        return shop.client.post(url, json=body, headers=headers).status_code

    eventually(lambda: status() == 202, 1.5)
    assert closedloop("keys", "revoke", "e2e", *there).returncode == 0
    eventually(lambda: status() == 401, 1.5)


def test_files_are_imported_beside_a_running_platform(shop: Up, tmp_path: Path) -> None:
    there = ["--data-dir", str(shop.data_dir)]
    table = tmp_path / "products.csv"
    table.write_text("product_id,name,category,price,currency\n77,Soap,home/bath,2.5,EUR\n78,,x,1,EUR\n")
    imported = closedloop("products", "import", str(table), *there)
    assert imported.returncode == 1
    assert "1 products accepted, 1 rejected" in imported.stdout
    assert "line 3" in imported.stderr
    assert shop.get("recommender", "/v1/products/77").json()["name"] == "Soap"
    past = {
        "id": "old-1",
        "type": "order_completed",
        "channel": "store",
        "customer_id": "c-old",
        "occurred_at": "2019-03-01T10:00:00Z",
        "properties": order(99, "c-old", "p1")["properties"],
    }
    lines = tmp_path / "touchpoints.jsonl"
    lines.write_text(json.dumps(past) + "\n")
    imported = closedloop("import", str(lines), *there)
    assert imported.returncode == 0, imported.stderr
    eventually(lambda: shop.get("analyzer", "/v1/customers/c-old").status_code == 200, 5.0)


def test_ledger_balances_and_no_dead_letters_are_left(shop: Up) -> None:
    there = ["--data-dir", str(shop.data_dir)]
    verified = closedloop("verify", *there)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "the ledger balances" in verified.stdout
    listed = closedloop("dead-letters", "list", *there)
    assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr


def test_rebuild_gives_the_same_models(shop: Up) -> None:
    for _ in range(2):
        done = closedloop("rebuild", "--data-dir", str(shop.data_dir))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the same, digest for digest" in done.stdout
