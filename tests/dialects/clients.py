"""Official clients, unmodified, that post to a platform: what they are told to say, and how each is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from libs.common.keys import KeyFile, Scope
from tests.e2e.rig import Up, eventually

HERE = Path(__file__).parent
POSTERS = HERE / "posters"
BLOCK = 10
"""So many calls tell of one customer."""

PYTHON: dict[str, list[str]] = {
    "segment-analytics-python": [
        sys.executable,
        str(POSTERS / "analytics_python.py"),
        "segment.analytics.client",
    ],
    "rudder-sdk-python": [
        sys.executable,
        str(POSTERS / "analytics_python.py"),
        "rudderstack.analytics.client",
    ],
    "cloudevents": [sys.executable, str(POSTERS / "cloudevents_python.py")],
}
NODE: dict[str, list[str]] = {
    "analytics-node": ["node", str(POSTERS / "segment_node.cjs")],
    "rudder-sdk-node": ["node", str(POSTERS / "rudder_node.cjs")],
}
LINE = {"product_id": "coffee", "quantity": 1, "price": 7.5}


def customer_calls(customer: str) -> list[dict[str, Any]]:
    """The ten calls that tell of one customer; ``type`` is what each becomes."""
    visitor = f"{customer}-visitor"

    def track(event: str, type_: str, properties: dict[str, Any]) -> dict[str, Any]:
        return {"call": "track", "event": event, "type": type_, "properties": properties}

    order = {"order_id": f"{customer}-o", "currency": "EUR", "revenue": 7.5, "products": [LINE]}
    return [
        {
            "call": "identify",
            "type": "identified",
            "traits": {"plan": "gold", "email": "kim@shop.example"},
            "anonymousId": visitor,
        },
        {
            "call": "page",
            "type": "page_viewed",
            "name": "Home",
            "properties": {"url": "https://shop.example/"},
        },
        track("Products Searched", "products_searched", {"query": "coffee"}),
        track("Product Viewed", "product_viewed", {"product_id": "coffee", "price": 7.5}),
        track("Product Added", "product_added", {"product_id": "coffee", "quantity": 1}),
        track("Order Completed", "order_completed", order),
        track(
            "Email Link Clicked",
            "email_clicked",
            {"campaign_id": "spring", "link_url": "https://shop.example/"},
        ),
        track("Fitting Room Booked", "fitting_room_booked", {"room": 7}),
        {"call": "group", "type": "group_joined", "groupId": "acme", "traits": {"tier": "b"}},
        {"call": "alias", "type": None, "previousId": f"{customer}-earlier"},
    ]


def calls(client: str, events: int) -> list[dict[str, Any]]:
    """``events`` calls (a multiple of ten) with ids of their own."""
    made = []
    for block in range(events // BLOCK):
        customer = f"{client}-{block}"
        for number, call in enumerate(customer_calls(customer)):
            made.append({**call, "userId": customer, "messageId": f"{customer}-m{number}"})
    return made


def said(client: str, call: dict[str, Any]) -> dict[str, Any]:
    """A call as the client is told it."""
    if client != "cloudevents":
        return {name: value for name, value in call.items() if name != "type"}
    properties = call.get("properties", {"group_id": call.get("groupId", "acme")})
    # CloudEvents know no links; the tenth event is one of a type of its own.
    return {
        "messageId": call["messageId"],
        "userId": call["userId"],
        "type": call["type"] or "loyalty_joined",
        "properties": properties,
    }


def expected(client: str) -> list[str]:
    """The timeline of one customer, sorted: types, and ``link`` for a link."""
    other = "loyalty_joined" if client == "cloudevents" else "link"
    return sorted(call["type"] or other for call in customer_calls("c"))


def install_node_clients() -> None:
    """Install what the lock says, once; raises where that fails."""
    if not (HERE / "node_modules" / ".package-lock.json").exists():
        # Trap: `npm ci` refuses a lock without the optional binaries that no registry has for all systems.
        options = ["--no-save", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(["npm", "install", *options], cwd=HERE, check=True, capture_output=True, timeout=300)


def need_node_clients() -> None:
    """Install the clients for Node for a test; skips without Node, but never in CI."""
    if os.environ.get("CI") != "true" and shutil.which("npm") is None:
        pytest.skip("Node is not installed")
    try:
        install_node_clients()
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr.decode()[-2000:])


def run(client: str, command: list[str], url: str, key: str, events: int) -> None:
    """Have a client post its calls; raises where it says that something failed."""
    told = json.dumps([said(client, call) for call in calls(client, events)])
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [*command, url, key], input=told, capture_output=True, text=True, timeout=240, env=clean, check=False
    )
    assert done.returncode == 0, f"{client}: {done.stderr[-2000:]}"


def timeline(up: Up, customer: str) -> list[dict[str, Any]]:
    """What the analyzer knows of a customer, newest first."""
    found: list[dict[str, Any]] = []
    older = ""
    while True:
        page = up.get("analyzer", f"/v1/customers/{customer}/timeline?limit=1000{older}").json()
        found += page
        if len(page) < 1000:
            return found
        older = f"&before={quote(page[-1]['id'], safe='')}"


def line(up: Up, source: str) -> dict[str, Any]:
    """The line of the ledger for what one key posted."""
    lines = up.get("analyzer", "/v1/ledger").json()["by_source"]
    return next((one for one in lines if one["source"] == source), {})


def post_twice(
    up: Up, client: str, command: list[str], events: int, tell: Callable[[str], None] = print
) -> None:
    """Post ``events`` with a key of the client's own, the same again, and check what came of it."""
    key = KeyFile(up.data_dir).add(client, [Scope.COLLECT]).key
    eventually(
        lambda: (
            up.client.post(
                up.url("collector") + "/v1/track", content=b"{}", headers={"authorization": f"Bearer {key}"}
            ).status_code
            == 422
        )
    )
    for _ in range(2):
        run(client, command, up.url("collector"), key, events)
    eventually(lambda: settled(up, client, 2 * events), 60)
    ledger = line(up, client)
    assert (ledger["accepted"], ledger["applied"], ledger["duplicate"]) == (2 * events, events, events)
    for block in range(events // BLOCK):
        found = timeline(up, f"{client}-{block}")
        types = [one["type"] if one["kind"] == "touchpoint" else "link" for one in found]
        assert sorted(types) == expected(client), types
        assert "kim@" not in json.dumps(found)
        identified = next(one["properties"] for one in found if one["type"] == "identified")
        assert identified == ({"plan": "gold"} if client != "cloudevents" else {"group_id": "acme"})
    tell(f"{client}: {json.dumps(ledger)}")
    for one in timeline(up, f"{client}-0"):
        tell(f"  {one['occurred_at']} {one['kind']} {one['type']} {json.dumps(one['properties'])}")


def settled(up: Up, source: str, posted: int) -> bool:
    """Whether all that a key ``posted`` has met its fate."""
    ledger = line(up, source)
    return bool(ledger) and int(ledger["applied"] + ledger["duplicate"]) >= posted <= ledger["accepted"]
