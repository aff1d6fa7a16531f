"""Too many requests: 429, its problem document and Retry-After, at every kind of endpoint of a collector."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.clock import ManualClock
from libs.common.errors import Misconfigured
from libs.common.keys import KeyFile, Scope
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.settings import load_settings
from libs.common.spool.memory import MemoryJournal
from services.collector.app import create_service
from services.collector.settings import CollectorSettings

ORIGIN = "https://shop.example"
TOUCH = {"type": "page_viewed", "channel": "web", "anonymous_id": "v-1"}


@asynccontextmanager
async def collector(
    folder: Path, address: str = "203.0.113.9", **limits: Any
) -> AsyncIterator[httpx.AsyncClient]:
    options: dict[str, Any] = {"rate_address": 0, "rate_publishable": 0, **limits}
    service = create_service(
        CollectorSettings(data_dir=folder, dev_key="dev-key", **options),
        bus=MemoryBus(),
        journal=MemoryJournal(),
        board=ProgressBoard(),
        clock=ManualClock(1_760_000_000_000),
    )
    transport = httpx.ASGITransport(service.app, client=(address, 4711))
    async with (
        running(service),
        httpx.AsyncClient(transport=transport, base_url="http://c") as http,
    ):
        yield http


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", **more}


async def refusal(http: httpx.AsyncClient, method: str, path: str, **sent: Any) -> dict[str, Any]:
    """Ask until it is refused, which is after ten times a rate of one, and what comes then."""
    let_in = 0
    while (answer := await http.request(method, path, **sent)).status_code != 429:
        let_in += 1
        assert let_in < 100, answer.text
    assert let_in >= 10
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    document: dict[str, Any] = answer.json()
    assert document["code"] == "rate_limited"
    assert document["request_id"] == answer.headers["x-request-id"]
    assert str(document["limit"]).replace("_", " ") in document["detail"]
    return document


async def test_an_address_without_key(tmp_path: Path) -> None:
    async with collector(tmp_path, rate_address=1) as http:
        assert (await refusal(http, "POST", "/v1/touchpoints", json=TOUCH))["limit"] == "address"
        for path in ("/v1/m", "/v1/nothing", "/docs"):
            answer = await http.request("POST" if path == "/v1/m" else "GET", path)
            assert answer.status_code == 429, path
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
        # Who looks after the service, and servers, are let in all the same.
        for path in ("/healthz", "/readyz", "/metrics", "/closedloop.js"):
            assert (await http.get(path)).status_code == 200
        served = await http.post("/v1/touchpoints", json=TOUCH, headers=bearer("dev-key"))
        assert served.status_code == 202
        assert 'http_rate_limited_total{limit="address"}' in (await http.get("/metrics")).text


async def test_guessing_of_keys(tmp_path: Path) -> None:
    async with collector(tmp_path, rate_address=1) as http:
        wrong = bearer("sk_wrong")
        assert (await refusal(http, "POST", "/v1/touchpoints", json=TOUCH, headers=wrong))[
            "limit"
        ] == "address"
    async with collector(tmp_path, rate_address=1) as http:
        body = json.dumps({**TOUCH, "write_key": "pk_wrong"})
        assert (await refusal(http, "POST", "/v1/touchpoints", content=body))["limit"] == "address"


@pytest.mark.parametrize(
    ("method", "headers", "content"),
    [
        ("POST", {"content-encoding": "gzip"}, b"no gzip"),
        ("POST", {}, b" " * 2_000_000),
        ("POST", {"content-type": "application/pdf"}, b"{}"),
        ("POST", {}, b"[" * 100),
        ("DELETE", {}, b""),
    ],
)
async def test_what_is_refused_before_a_key_is_read(
    tmp_path: Path, method: str, headers: dict[str, str], content: bytes
) -> None:
    async with collector(tmp_path, rate_address=1) as http:
        said = await refusal(http, method, "/v1/touchpoints", headers=headers, content=content)
        assert said["limit"] == "address"


async def test_a_beacon_counts_once_for_its_address(tmp_path: Path) -> None:
    key = KeyFile(tmp_path).add_publishable("site", [ORIGIN]).key
    async with collector(tmp_path, rate_address=1) as http:
        body = json.dumps({**TOUCH, "write_key": key})
        for _ in range(10):
            answer = await http.post("/v1/touchpoints", content=body, headers={"origin": ORIGIN})
            assert answer.status_code == 202


@pytest.mark.parametrize("beacon", [False, True])
@pytest.mark.parametrize(
    ("path", "origin"),
    [("/v1/touchpoints", "https://thief.example"), ("/v1/touchpoints?mode=import", ORIGIN)],
)
async def test_refused_calls_cost_the_pages_nothing(
    tmp_path: Path, beacon: bool, path: str, origin: str
) -> None:
    key = KeyFile(tmp_path).add_publishable("site", [ORIGIN]).key
    async with collector(tmp_path, rate_publishable=1) as http:
        named = {} if beacon else bearer(key)
        body = json.dumps({**TOUCH, **({"write_key": key} if beacon else {})})
        for _ in range(20):
            answer = await http.post(path, content=body, headers={"origin": origin, **named})
            assert answer.status_code in (401, 403), answer.text
        good = {"origin": ORIGIN, **named}
        assert (await http.post("/v1/touchpoints", content=body, headers=good)).status_code == 202


@pytest.mark.parametrize("beacon", [False, True])
async def test_pages_can_read_their_refusal(tmp_path: Path, beacon: bool) -> None:
    key = KeyFile(tmp_path).add_publishable("site", [ORIGIN]).key
    async with collector(tmp_path, rate_publishable=1) as http:
        body = json.dumps({**TOUCH, **({"write_key": key} if beacon else {})})
        headers = {"origin": ORIGIN, "content-type": "text/plain"} | ({} if beacon else bearer(key))
        sent = {"content": body, "headers": headers}
        assert (await refusal(http, "POST", "/v1/touchpoints", **sent))["limit"] == "publishable_key"
        answer = await http.post("/v1/touchpoints", **sent)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "retry-after" in answer.headers["access-control-expose-headers"]
        asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
        assert (await http.options("/v1/touchpoints", headers=asked)).status_code == 204


async def test_secret_keys_where_that_is_set(tmp_path: Path) -> None:
    key = KeyFile(tmp_path).add("shop", [Scope.COLLECT]).key
    async with collector(tmp_path, rate_server=1) as http:
        said = await refusal(http, "POST", "/v1/touchpoints", json=TOUCH, headers=bearer(key))
        assert said["limit"] == "secret_key"
        other = await http.post("/v1/touchpoints", json=TOUCH, headers=bearer("dev-key"))
        assert other.status_code == 202, "another key has a bucket of its own"
        message = {"userId": "c-1", "event": "Product Viewed"}
        answer = await http.post("/v1/track", json=message, headers=bearer(key))
        assert answer.status_code == 429
        assert answer.json()["message"] == answer.json()["detail"], "where Segment's clients look"


async def test_visitors_behind_a_proxy(tmp_path: Path) -> None:
    async with collector(tmp_path, "10.0.0.1", rate_address=1, trusted_proxies="10.0.0.0/8") as http:
        one = {"x-forwarded-for": "198.51.100.1"}
        await refusal(http, "POST", "/v1/m", headers=one)
        assert (await http.post("/v1/m", headers={"x-forwarded-for": "198.51.100.2"})).status_code == 200
        forged = {"x-forwarded-for": "8.8.8.8, 198.51.100.1"}
        assert (await http.post("/v1/m", headers=forged)).status_code == 429


async def test_what_is_served_when_nothing_is_set(tmp_path: Path) -> None:
    settings = CollectorSettings(data_dir=tmp_path)
    assert (settings.rate_publishable, settings.rate_address, settings.rate_server) == (1_000, 100, 0)
    assert settings.trusted_proxies == ()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CLOSEDLOOP_RATE_ADDRESS", "-1"),
        ("CLOSEDLOOP_RATE_SERVER", "many"),
        ("CLOSEDLOOP_TRUSTED_PROXIES", "10.0.0.0/8,proxy.example"),
        ("CLOSEDLOOP_TRUSTED_PROXIES", "10.0.0.1/8"),
    ],
)
def test_settings_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured, match=variable):
        load_settings(CollectorSettings)
