"""Requests of all kinds at a running platform: schemathesis by the OpenAPI documents, Hypothesis by bytes."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.rig import Up, eventually
from tests.hostile.stage import Stage

SERVICES = ("collector", "analyzer", "recommender", "feedback")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
PROBLEM = {"type", "title", "status", "code", "detail", "errors", "request_id"}


@dataclass
class Told:
    """What a service was sent, and what it answered."""

    service: str
    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def server_errors(self) -> int:
        return sum(number for status, number in self.statuses.items() if status >= 500)


def by_document(up: Up | Stage, service: str, examples: int, seed: int = 1, phases: str = "fuzzing") -> Told:
    """schemathesis, as it comes, at ``examples`` valid and broken requests at most of each operation."""
    told = Told(service)
    url = up.url(service)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "cases.ndjson"
        command = [
            *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json"),
            *("--header", f"Authorization: {up.client.headers['authorization']}"),
            *("--checks", ",".join(CHECKS), "--phases", phases, "--continue-on-failure"),
            *("--max-examples", str(examples), "--seed", str(seed), "--no-shrink", "--warnings", "off"),
            *("--generation-database", "none", "--suppress-health-check", "all", "--no-color"),
            *("--report", "ndjson", "--report-ndjson-path", str(report), "--output-sanitize", "true"),
        ]
        clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
        if done.returncode:
            told.failures.append(done.stdout[-6_000:] + done.stderr[-2_000:])
        for line in report.read_text().splitlines():
            for status in statuses_in(json.loads(line)):
                told.cases += 1
                told.statuses[status] += 1
    return told


def statuses_in(event: Any) -> list[int]:
    """The statuses of all answers that an event of the report tells of."""
    if isinstance(event, dict):
        found = event.get("status_code")
        own = [found] if isinstance(found, int) else []
        return own + [status for value in event.values() for status in statuses_in(value)]
    if isinstance(event, list):
        return [status for value in event for status in statuses_in(value)]
    return []


NASTY: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    10**400,
    "",
    " ",
    "\0",
    "\ud800",
    "x" * 40_000,
    "0000-00-00",
    "event:1",
    "anon:1",
    "9999-12-31T23:59:59Z",
    [],
    {},
    [[]],
    {"": {}},
    float("nan"),
    float("inf"),
    "kim@shop.example",
    "../../etc",
    "' OR 1=1 --",
    "{{7*7}}",
    "☃" * 300,
    -(2**63),
    2**64,
]
GOOD: dict[str, list[dict[str, Any]]] = {
    "collector/v1/touchpoints": [
        {
            "type": "order_completed",
            "channel": "web",
            "customer_id": "f-1",
            "occurred_at": "2025-01-01",
            "properties": {
                "order_id": "o",
                "currency": "EUR",
                "products": [{"product_id": "p", "price": 1.0}],
            },
        },
        {
            "type": "email_clicked",
            "channel": "email",
            "customer_id": "f-1",
            "anonymous_id": "v",
            "context": {},
            "properties": {"campaign_id": "c", "link_id": "l"},
        },
    ],
    "collector/v1/identities": [{"customer_id": "f-1", "anonymous_id": "v-1"}],
    "collector/v1/consents": [
        {"customer_id": "f-1", "purpose": "email", "granted": False, "channel": "email"}
    ],
    "collector/v1/assets": [{"account_id": "a-1", "model": "X", "year_built": 1998, "fitted_kits": ["k"]}],
    "collector/v1/batch": [
        {
            "type": "track",
            "userId": "f-1",
            "event": "Product Viewed",
            "messageId": "m",
            "timestamp": "2025-01-01",
            "properties": {"sku": "p"},
            "context": {},
        }
    ],
    "collector/v1/events": [
        {
            "specversion": "1.0",
            "id": "1",
            "source": "s",
            "type": "a.case_closed",
            "subject": "f-1",
            "data": {"case_id": "c"},
        }
    ],
    "recommender/v1/recommendations": [
        {
            "placement": "home",
            "customer_id": "f-1",
            "limit": 3,
            "exclude": ["p"],
            "context": {"product_id": "p", "basket": ["q"]},
            "decision_id": "d",
        }
    ],
    "recommender/v1/products": [
        {
            "product_id": "p",
            "name": "P",
            "category": "a/b",
            "price": 2.0,
            "currency": "EUR",
            "margin": 1.0,
            "stock": 3,
            "attributes": {},
        }
    ],
    "recommender/v1/placements": [
        {"placement_id": "home", "limit": 3, "exploration": 0.1, "kinds": ["repeat"]}
    ],
    "feedback/v1/outcomes": [
        {
            "decision_id": "d",
            "offer_id": "product:p",
            "customer_id": "f-1",
            "outcome": "clicked",
            "value": 1.0,
        }
    ],
}
TYPES = [
    "application/json",
    "text/plain",
    "application/x-ndjson",
    "application/cloudevents+json",
    "text/csv",
    "",
    "application/json; charset=latin-1",
    "\xff",
]


@st.composite
def spoiled(draw: Callable[..., Any], value: Any) -> Any:
    """``value`` with something else at one or two of its places."""
    for _ in range(draw(st.integers(0, 2))):
        value = _put(draw, value, draw(st.sampled_from(NASTY)))
    return value


def _put(draw: Callable[..., Any], value: Any, junk: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        name = draw(st.sampled_from(sorted(value)))
        return {**value, name: _put(draw, value[name], junk)}
    if isinstance(value, dict):
        return {**value, draw(st.sampled_from(["extra", "", "\0", "id", "write_key", "properties"])): junk}
    if isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _put(draw, value[at], junk), *value[at + 1 :]]
    return junk


@st.composite
def bodies(draw: Callable[..., Any], good: list[dict[str, Any]]) -> tuple[bytes, dict[str, str]]:
    """A body, more or less as it should be, and headers that say what it is, or something else."""
    items = [draw(spoiled(draw(st.sampled_from(good)))) for _ in range(draw(st.integers(1, 3)))]
    form = draw(st.sampled_from(["one", "list", "lines", "named", "deep", "text", "bytes"]))
    if form == "lines":
        text = "\n".join(json.dumps(item) for item in items)
    elif form == "deep":
        depth = draw(st.sampled_from([20, 511, 513, 5_000]))
        text = "[" * depth + "]" * depth
    elif form == "text":
        text = draw(st.text(max_size=60))
    else:
        named = {"list": items, "named": {"touchpoints": items, "batch": items, "products": items}}
        text = json.dumps(named.get(form, items[0]))
    body = text.encode("utf-8", "surrogatepass")
    if form == "bytes":
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=8)) + body[at + draw(st.integers(0, 8)) :]
    headers = {"content-type": draw(st.sampled_from(TYPES))} if draw(st.integers(0, 2)) == 0 else {}
    packed = draw(st.sampled_from(["", "", "", "gzip", "cut", "lie", "br"]))
    if packed:
        headers["content-encoding"] = "br" if packed == "br" else "gzip"
        if packed in ("gzip", "cut"):
            body = gzip.compress(body, mtime=0)[: -5 if packed == "cut" else None]
    return body, {"content-type": "application/json", **headers}


def by_bytes(up: Up | Stage, examples: int, seed: int = 1) -> dict[str, Told]:
    """Hypothesis at ``examples`` bodies, spread over the endpoints that take any."""
    told = {service: Told(service) for service in SERVICES}
    bearer = up.client.headers["authorization"].encode()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sorted(GOOD)), st.data())
    def post(where: str, data: st.DataObject) -> None:
        service, _, path = where.partition("/")
        body, headers = data.draw(bodies(GOOD[where]))
        named = {
            "authorization": bearer,
            **{name: value.encode("latin-1") for name, value in headers.items()},
        }
        sent = [(name.encode(), value) for name, value in named.items()]
        answer = up.client.post(f"{up.url(service)}/{path}", content=body, headers=sent)
        told[service].cases += 1
        told[service].statuses[answer.status_code] += 1
        wrong = trouble(answer)
        if wrong:
            told[service].failures.append(f"{where}: {wrong}: {body[:300]!r} {headers}")

    post()
    return told


def trouble(answer: httpx.Response) -> str:
    """What is wrong with an answer: an error of ours, or a refusal that does not say why."""
    if answer.status_code >= 500:
        return f"{answer.status_code} {answer.text[:300]}"
    if answer.status_code >= 400:
        document = answer.json()
        if answer.headers["content-type"] != "application/problem+json" or not document.keys() >= PROBLEM:
            return f"no problem document: {answer.text[:300]}"
        if not document["code"] or not document["detail"]:
            return f"no reason: {answer.text[:300]}"
    return ""


def stands(up: Up | Stage) -> list[str]:
    """What did not outlive the attack: all are ready, and the ledger balances, with nothing on its way."""
    wrong = [f"{service} is not ready" for service in SERVICES if not up.ready(service)]

    def settled() -> bool:
        ledger = up.get("analyzer", "/v1/ledger").json()
        return bool(ledger["balanced"]) and ledger["in_flight"] == 0

    eventually(settled, 60)
    return wrong


def restarted(up: Up, pids: dict[str, int]) -> list[str]:
    """Processes that are not those they were."""
    return [f"{name} was restarted" for name, pid in pids.items() if up.pid_of(name) != pid]


def processes(up: Up) -> dict[str, int]:
    """Process ids of the services and the learner."""
    return {name: up.pid_of(name) for name in (*SERVICES, "learner")}
