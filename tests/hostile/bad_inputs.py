"""Bad inputs by the dozen, each with the status, code and field that a caller must hear of it."""

from __future__ import annotations

import dataclasses
import gzip
import json
from dataclasses import dataclass
from typing import Any

import httpx

from tests.contract.test_collector_bad_input import BAD_ITEMS, NOT_JSON
from tests.e2e.rig import Up
from tests.hostile.stage import Stage


@dataclass(frozen=True)
class Bad:
    """One bad input; ``field`` None where the refusal is of the request as a whole."""

    name: str
    service: str
    path: str
    body: bytes
    status: int
    code: str
    field: str | None = None
    method: str = "POST"
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    key: bool = True


def _item(name: str, service: str, path: str, item: Any, code: str, at: str) -> Bad:
    return Bad(name, service, path, json.dumps(item).encode(), 422, code, at)


_ASK = {"placement": "home", "customer_id": "bad"}
_PRODUCT = {"product_id": "p", "name": "P", "category": "a/b", "price": 2.0, "currency": "EUR"}
_OUTCOME = {"decision_id": "d", "offer_id": "o", "customer_id": "bad", "outcome": "clicked"}
_ENDLESS = json.dumps([{**_OUTCOME, "value": 0}]).replace(": 0", ": 1e400").encode()
_DEEP: Any = json.loads('{"a":' * 17 + "1" + "}" * 17)
TOUCHPOINTS, RECOMMENDATIONS, PRODUCTS, OUTCOMES = (
    "/v1/touchpoints",
    "/v1/recommendations",
    "/v1/products",
    "/v1/outcomes",
)

BAD: list[Bad] = [
    *(
        Bad(name, "collector", TOUCHPOINTS, f"[{item}]".encode(), 422, code, f"/0{at}")
        for name, (item, code, at) in BAD_ITEMS.items()
    ),
    *(
        Bad(name, service, path, body, 400, "")
        for name, body in NOT_JSON.items()
        for service, path in (
            ("collector", TOUCHPOINTS),
            ("recommender", RECOMMENDATIONS),
            ("feedback", OUTCOMES),
        )
    ),
    Bad("no key", "collector", TOUCHPOINTS, b"{}", 401, "key_missing", key=False),
    Bad(
        "an unknown key",
        "collector",
        TOUCHPOINTS,
        b"{}",
        401,
        "key_unknown",
        key=False,
        headers={"authorization": "Bearer sk_none"},
    ),
    Bad(
        "a broken Authorization",
        "analyzer",
        "/v1/ledger",
        b"",
        401,
        "key_unknown",
        None,
        "GET",
        {"authorization": "Basic %%%"},
        False,
    ),
    Bad("no such path", "feedback", "/v1/none", b"", 404, "not_found", None, "GET"),
    Bad("no such method", "collector", TOUCHPOINTS, b"", 405, "method_not_allowed", None, "DELETE"),
    Bad(
        "XML",
        "collector",
        "/v1/consents",
        b"<x/>",
        415,
        "content_type",
        headers={"content-type": "application/xml"},
    ),
    Bad(
        "Latin-1",
        "collector",
        TOUCHPOINTS,
        b"{}",
        415,
        "charset",
        headers={"content-type": "application/json; charset=latin-1"},
    ),
    Bad(
        "brotli", "collector", TOUCHPOINTS, b"x", 415, "content_encoding", headers={"content-encoding": "br"}
    ),
    Bad(
        "gzip cut short",
        "feedback",
        OUTCOMES,
        gzip.compress(b"{}")[:-3],
        400,
        "bad_gzip",
        headers={"content-encoding": "gzip"},
    ),
    Bad(
        "a bomb of gzip",
        "recommender",
        PRODUCTS,
        gzip.compress(b" " * 30_000_000),
        413,
        "body_too_large",
        headers={"content-encoding": "gzip"},
    ),
    Bad("2,501 items", "collector", TOUCHPOINTS, b"[" + b"1," * 2_500 + b"1]", 413, ""),
    Bad("a body of 1.1 MB", "recommender", RECOMMENDATIONS, b" " * 1_100_000, 413, "body_too_large"),
    Bad("an unknown mode", "collector", f"{TOUCHPOINTS}?mode=fast", b"{}", 422, "wrong_type", "/mode"),
    Bad("a path of NUL", "recommender", f"{PRODUCTS}/%00", b"", 400, "bad_path", None, "GET"),
    _item("placement missing", "recommender", RECOMMENDATIONS, {}, "missing", "/placement"),
    _item("limit as text", "recommender", RECOMMENDATIONS, {**_ASK, "limit": "3"}, "wrong_type", "/limit"),
    _item(
        "a position nobody gave",
        "recommender",
        RECOMMENDATIONS,
        {**_ASK, "after": "x"},
        "wrong_type",
        "/after",
    ),
    _item(
        "a field too many",
        "recommender",
        RECOMMENDATIONS,
        {**_ASK, "placment": 1},
        "unknown_field",
        "/placment",
    ),
    _item(
        "context too deep",
        "recommender",
        RECOMMENDATIONS,
        {**_ASK, "context": _DEEP},
        "too_deep",
        "/context/a",
    ),
    _item("a price below 0", "recommender", PRODUCTS, [{**_PRODUCT, "price": -1}], "not_finite", "/0/price"),
    _item(
        "another currency",
        "recommender",
        PRODUCTS,
        [{**_PRODUCT, "currency": "USD"}],
        "not_supported",
        "/0/currency",
    ),
    _item("a product without name", "recommender", PRODUCTS, [{"product_id": "p"}], "missing", "/0/name"),
    _item(
        "an unknown outcome",
        "feedback",
        OUTCOMES,
        [{**_OUTCOME, "outcome": "eaten"}],
        "wrong_type",
        "/0/outcome",
    ),
    _item(
        "a forged token",
        "feedback",
        OUTCOMES,
        [{"token": "A" * 80, "outcome": "clicked"}],
        "token_invalid",
        "/0/token",
    ),
    Bad("an endless value", "feedback", OUTCOMES, _ENDLESS, 422, "not_finite", "/0/value"),
]


@dataclass(frozen=True)
class Heard:
    """What came back."""

    status: int
    code: str
    field: str | None
    reason: str


def post(up: Up | Stage, bad: Bad) -> Heard:
    """Send it to a running platform."""
    headers = {"content-type": "application/json", **bad.headers}
    if bad.key:
        headers["authorization"] = up.client.headers["authorization"]
    with httpx.Client(trust_env=False, timeout=15) as plain:
        answer = plain.request(bad.method, up.url(bad.service) + bad.path, content=bad.body, headers=headers)
    document = answer.json()
    errors = document.get("errors") or [{}]
    reason = errors[0].get("reason") or document.get("detail", "")
    code = errors[0].get("code") or document.get("code", "")
    return Heard(answer.status_code, code, errors[0].get("field"), reason)


def table(rows: list[tuple[Bad, Heard]]) -> str:
    """All of them, each with its reason."""
    lines = ["| bad input | at | status | code | field | reason |", "|---|---|---|---|---|---|"]
    for bad, heard in rows:
        where = bad.path.partition("?")[0]
        cells = (
            bad.name,
            f"`{where}`",
            heard.status,
            f"`{heard.code}`",
            f"`{heard.field or ''}`",
            heard.reason,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def as_agreed(bad: Bad, heard: Heard) -> bool:
    """Whether the answer says what it has to; an empty code stands for any."""
    if heard.status != bad.status or not heard.reason:
        return False
    return bad.code in ("", heard.code) and bad.field in (None, heard.field)
