"""Somebody is erased on a running platform, and a byte search through all of its files finds nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rig import Up, closedloop, eventually

KEY = "zz-erase-this-customer-zz"
VISITORS = ("zz-first-cookie-zz", "zz-second-cookie-zz")
TRACES = (KEY.encode(), *(visitor.encode() for visitor in VISITORS))
PRODUCTS = [
    {"product_id": f"p{n}", "name": f"Product {n}", "category": "a/b", "price": 5.0 * n, "currency": "EUR"}
    for n in range(1, 7)
]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A platform on a directory of its own that is not removed, with products."""
    up = Up("--data-dir", str(tmp_path_factory.mktemp("erase") / "data"), "--no-holdout")
    try:
        up.wait_ready()
        assert up.post("recommender", "/v1/products", PRODUCTS).status_code == 200
        yield up
    finally:
        up.close()


def touch(type_: str, **more: Any) -> dict[str, Any]:
    return {"type": type_, "channel": "web", **more}


def order(id_: str, **who: str) -> dict[str, Any]:
    lines = [
        {"product_id": "p1", "quantity": 1, "price": 5.0},
        {"product_id": "p2", "quantity": 2, "price": 9.0},
    ]
    properties = {"order_id": id_, "currency": "EUR", "products": lines}
    return touch("order_completed", id=id_, properties=properties, **who)


def live(up: Up, customer: str, *visitors: str) -> None:
    """A customer of everything: visits, orders, links, consents, decisions, outcomes."""
    touches = [touch("product_viewed", anonymous_id=v, properties={"product_id": "p3"}) for v in visitors]
    touches += [touch("product_viewed", customer_id=customer, properties={"product_id": "p1"})]
    touches += [order(f"{customer}-o{n}", customer_id=customer) for n in range(3)]
    touches += [
        order(f"{customer}-b{n}", customer_id=customer, anonymous_id=v) for n, v in enumerate(visitors)
    ]
    assert up.post("collector", "/v1/touchpoints", touches).status_code == 202
    links = [{"customer_id": customer, "anonymous_id": visitor} for visitor in visitors]
    assert up.post("collector", "/v1/identities", links).status_code == 202
    consent = {"customer_id": customer, "purpose": "marketing", "channel": "web", "granted": True}
    last = up.post("collector", "/v1/consents", consent)
    assert last.status_code == 202
    who: list[dict[str, str]] = [{"customer_id": customer}]
    who += [{"customer_id": customer, "anonymous_id": visitor} for visitor in visitors]
    who += [{"anonymous_id": visitor} for visitor in visitors]
    for number, named in enumerate(who):
        asked = {"placement": "home", "limit": 3, "decision_id": f"{customer}-d{number}", **named}
        answer = up.post(
            "recommender", "/v1/recommendations", {**asked, "after": last.json()["position"]}
        ).json()
        assert answer["offers"]
        outcome = {"token": answer["offers"][0]["token"], "outcome": "clicked"}
        assert up.post("feedback", "/v1/outcomes", outcome).status_code == 202


def settled(up: Up, customer: str) -> None:
    """Wait until everything about a customer is stored."""

    def stored() -> bool:
        found = up.get("analyzer", f"/v1/customers/{customer}")
        return found.status_code == 200 and found.json()["totals"].get("clicked", 0) >= 5

    eventually(stored, 20)
    eventually(lambda: len(up.get("recommender", f"/v1/decisions?customer={customer}").json()) >= 3, 20)


def traces(folder: Path) -> dict[str, list[str]]:
    """Files under ``folder`` that hold one of the keys."""
    found: dict[str, list[str]] = {}
    for path in folder.rglob("*"):
        if path.is_file() and (here := [t.decode() for t in TRACES if t in path.read_bytes()]):
            found[str(path.relative_to(folder))] = here
    return found


def test_byte_search_finds_nothing_of_an_erased_customer(platform: Up) -> None:
    live(platform, KEY, *VISITORS)
    live(platform, "somebody-else", "other-cookie")
    settled(platform, KEY)
    held = traces(platform.data_dir)
    assert any("postgres/" in name for name in held)
    assert any("views/" in name for name in held)

    export = closedloop("export", KEY, "--data-dir", str(platform.data_dir))
    assert export.returncode == 0, export.stderr
    everything = json.loads(export.stdout)
    assert {model["key"] for model in everything["models"]} == {KEY, *(f"anon:{v}" for v in VISITORS)}
    assert len(everything["decisions"]) == 5
    assert all(decision["slots"] for decision in everything["decisions"])

    done = closedloop("erase", KEY, "--compact", "--data-dir", str(platform.data_dir))
    assert done.returncode == 0, done.stderr
    certificate = json.loads(done.stdout)
    assert (certificate["complete"], certificate["compacted"], certificate["keys"]) == (True, True, 3)
    rows = {line["store"]: line.get("rows") for line in certificate["stores"]}
    assert rows["events"] >= 18
    assert rows["lessons"] >= 5
    assert not any(trace.decode() in done.stdout for trace in TRACES)

    assert traces(platform.data_dir) == {}
    assert platform.get("analyzer", f"/v1/customers/{KEY}").status_code == 404
    assert platform.get("recommender", f"/v1/decisions?customer={KEY}").json() == []
    assert platform.get("analyzer", "/v1/customers/somebody-else").status_code == 200
    listed = closedloop("erasures", "--data-dir", str(platform.data_dir))
    assert certificate["erasure"] in listed.stdout


def test_erased_customer_does_not_come_back(platform: Up) -> None:
    live(platform, "zz-back-zz", "zz-back-cookie-zz")
    settled_traces = (b"zz-back-zz", b"zz-back-cookie-zz")
    done = closedloop("erase", "zz-back-zz", "--data-dir", str(platform.data_dir))
    assert done.returncode == 0, done.stderr
    before = platform.get("analyzer", "/v1/ledger").json()["erased"]
    again = [
        touch("product_viewed", customer_id="zz-back-zz"),
        touch("product_viewed", anonymous_id="zz-back-cookie-zz"),
    ]
    assert platform.post("collector", "/v1/touchpoints", again).status_code == 202
    asked = {"placement": "home", "customer_id": "zz-back-zz", "decision_id": "zz-back-decision"}
    assert platform.post("recommender", "/v1/recommendations", asked).status_code == 200
    eventually(lambda: platform.get("analyzer", "/v1/ledger").json()["erased"] >= before + 3)
    assert platform.get("analyzer", "/v1/customers/zz-back-zz").status_code == 404
    eventually(lambda: platform.get("recommender", "/v1/decisions/zz-back-decision").status_code == 404)
    assert platform.get("recommender", "/v1/decisions?customer=zz-back-zz").json() == []
    verified = closedloop("verify", "--data-dir", str(platform.data_dir))
    assert verified.returncode == 0, verified.stdout
    logs = b"".join(path.read_bytes() for path in (platform.data_dir / "logs").iterdir())
    assert not any(trace in logs for trace in (*TRACES, *settled_traces))
