"""What closed-loop marketing asks for, line by line, and whether this platform does it yet."""

from __future__ import annotations

import shlex
from typing import NamedTuple

import msgspec


class Mission(NamedTuple):
    """A row: ``curl`` shows that it works; None means not yet."""

    number: str
    loop: str
    curl: str | None


def curl(key: str, url: str, body: object | None = None) -> str:
    """A line for a shell that does one call."""
    line = f"curl -s -H 'Authorization: Bearer {key}' {shlex.quote(url)}"
    if body is None:
        return line
    text = msgspec.json.encode(body).decode()
    return f"{line} -H 'Content-Type: application/json' -d {shlex.quote(text)}"


def curls(urls: dict[str, str], key: str, customer: str, product: str) -> dict[str, str]:
    """The loop by hand: lines that work against this very platform while it is kept up."""
    collector, recommender = urls["collector"], urls["recommender"]
    analyzer, feedback = urls["analyzer"], urls["feedback"]
    line = {"product_id": product, "quantity": 1, "price": 2.5}
    bought = {
        "type": "order_completed",
        "channel": "web",
        "customer_id": customer,
        "properties": {"order_id": "by-hand-1", "currency": "USD", "products": [line]},
    }
    viewed = {
        "type": "product_viewed",
        "channel": "web",
        "anonymous_id": "visitor-1",
        "properties": {"product_id": product},
    }
    asked = {"placement": "basket", "customer_id": customer, "channel": "web", "limit": 5}
    page = {**asked, "context": {"product_id": product}, "kinds": ["cross_sell"]}
    dearer = {**asked, "context": {"product_id": product}, "kinds": ["up_sell"]}
    called = {
        "type": "call_ended",
        "channel": "call_centre",
        "customer_id": customer,
        "properties": {"topic": "delivery"},
    }
    return {
        "post an order": curl(key, f"{collector}/v1/touchpoints", bought),
        "post a view of a visitor": curl(key, f"{collector}/v1/touchpoints", viewed),
        "post a call": curl(key, f"{collector}/v1/touchpoints", called),
        "link the visitor to the customer": curl(
            key, f"{collector}/v1/identities", {"customer_id": customer, "anonymous_id": "visitor-1"}
        ),
        "ask for offers": curl(key, f"{recommender}/v1/recommendations", asked),
        "ask what goes with a product": curl(key, f"{recommender}/v1/recommendations", page),
        "ask for something better": curl(key, f"{recommender}/v1/recommendations", dearer),
        "report an outcome (put a token of an answer in)": curl(
            key, f"{feedback}/v1/outcomes", {"token": "TOKEN", "outcome": "clicked"}
        ),
        "see the customer": curl(key, f"{analyzer}/v1/customers/{customer}"),
        "see what happened to him": curl(key, f"{analyzer}/v1/customers/{customer}/timeline?limit=20"),
        "see what is learned": curl(key, f"{analyzer}/v1/models"),
        "see that every event is accounted for": curl(key, f"{analyzer}/v1/ledger"),
    }


def missions(lines: dict[str, str]) -> list[Mission]:
    """The whole mission; what a later version brings is said to be missing."""
    return [
        Mission("M1", "contacts of every channel are recorded as touchpoints", lines["post a call"]),
        Mission(
            "M2",
            "visitors who never buy have models too, which count once they say who they are",
            lines["link the visitor to the customer"],
        ),
        Mission(
            "M3",
            "one model for each customer, changed by every event, the same after any crash",
            lines["see the customer"],
        ),
        Mission(
            "M4",
            "cross-selling: what goes with page, basket and history",
            lines["ask what goes with a product"],
        ),
        Mission(
            "M5",
            "up-selling: comparable goods of a higher price segment",
            lines["ask for something better"],
        ),
        Mission("M6", "shops and auctions: orders, baskets; listings, watches, bids", None),
        Mission("M7", "service asks for satisfaction, the answer changes what is offered", None),
        Mission("M8", "codes on cards in the product box, replies recorded and credited", None),
        Mission("M9", "next best offer with reasons for the agent in a service contact", None),
        Mission("M10", "retrofit kits matched to machines by model and year", None),
        Mission("M11", "campaigns in waves, each better than the last", None),
        Mission("M12", "results for management: what to make, mend, stop, where to spend", None),
        Mission("M13", "wishes conflict: caps, consent, holdout, uplift, no offer as an answer", None),
        Mission("M14", "mentions and reviews from social media", None),
    ]
