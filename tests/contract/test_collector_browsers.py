"""Browsers at the collector: what a publishable key may say, beacons, preflights, crawlers."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libs.common.keys import KeyFile, Scope
from tests.contract.collector_world import ORDER, VIEW, Collector, collecting


async def test_browser_may_not_report_sales_nor_speak_for_others(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add_publishable("page", ["https://shop.example"])
    headers = {"authorization": f"Bearer {made.key}", "origin": "https://shop.example"}
    visitor = {**ORDER, "anonymous_id": "v1"}
    del visitor["customer_id"]
    async with collecting(tmp_path) as collector:
        assert (await collector.post(visitor, headers=headers)).status_code == 202
        (order,) = collector.touchpoints
        assert (order.learn, order.flags) == (False, ("unverified",))
        answer = await collector.post(VIEW, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "signature_missing")
        signature = hmac.new((made.identity_secret or "").encode(), b"c1", hashlib.sha256).hexdigest()
        answer = await collector.post({**VIEW, "customer_signature": signature}, headers=headers)
        assert answer.status_code == 202
        answer = await collector.post(visitor, "/v1/touchpoints?mode=import", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    async with collecting(tmp_path, trust_browser_orders=True) as collector:
        assert (await collector.post(visitor, headers=headers)).status_code == 202
        assert collector.touchpoints[0].learn


BEACON = {"type": "page_viewed", "channel": "web", "anonymous_id": "v1"}


@pytest.mark.parametrize("many", [False, True])
async def test_beacon_brings_its_key_in_the_body(tmp_path: Path, many: bool) -> None:
    key = KeyFile(tmp_path).add_publishable("page", ["https://shop.example"]).key
    reader = KeyFile(tmp_path).add("reader", [Scope.OPS]).key
    body: dict[str, Any] = (
        {"write_key": key, "touchpoints": [BEACON] * 2} if many else {"write_key": key, **BEACON}
    )
    headers = {"origin": "https://shop.example", "content-type": "text/plain"}
    async with collecting(tmp_path) as collector:
        del collector.http.headers["authorization"]

        async def send(content: Any, url: str = "/v1/touchpoints", **more: str) -> tuple[int, str]:
            answer = await collector.http.post(url, content=json.dumps(content), headers=headers | more)
            return answer.status_code, answer.json().get("code", "")

        assert await send(body) == (202, "")
        assert [event.source for event in collector.touchpoints] == ["page"] * (1 + many)
        assert b"pk_" not in msgspec.json.encode(collector.touchpoints)
        assert await send(body, origin="https://evil.example") == (403, "origin_forbidden")
        assert await send({**body, "write_key": "pk_wrong"}) == (401, "key_unknown")
        assert await send({**body, "write_key": None}) == (401, "key_missing")
        assert await send([BEACON]) == (401, "key_missing")
        assert await send(body, "/v1/touchpoints?mode=import") == (401, "key_missing")
        assert await send(body, "/v1/consents", **{"content-type": "application/json"}) == (
            401,
            "key_missing",
        )
        refused = {**BEACON, "type": "Not a type"}
        assert (await send({**refused, "write_key": key}))[0] == 422
        assert await send({**body, "write_key": reader}) == (403, "scope_missing")
        assert len(collector.touchpoints) == 1 + many


async def test_browser_is_told_of_itself_what_it_may_ask(tmp_path: Path) -> None:
    KeyFile(tmp_path).add_publishable("page", ["https://shop.example"])
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    async with collecting(tmp_path) as collector:
        del collector.http.headers["authorization"]
        for path in ("/v1/touchpoints", "/v1/identities", "/v1/consents"):
            answer = await collector.http.options(path, headers=asked | {"origin": "https://shop.example"})
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == "https://shop.example"
            assert answer.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
            assert set(answer.headers["access-control-allow-headers"].split(", ")) == {
                "authorization",
                "content-type",
                "traceparent",
                "x-retry-count",
            }
            assert answer.headers["vary"] == "origin"
            assert "access-control-allow-credentials" not in answer.headers
        answer = await collector.http.options(path, headers=asked | {"origin": "https://evil.example"})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_forbidden")
        assert "access-control-allow-origin" not in answer.headers
        assert (await collector.http.options(path)).status_code == 405


async def test_page_may_read_answers_and_refusals_and_nobody_else(tmp_path: Path) -> None:
    made = KeyFile(tmp_path).add_publishable("page", ["https://shop.example"])
    KeyFile(tmp_path).add_publishable("blog", ["https://blog.example"])
    key = {"authorization": f"Bearer {made.key}"}
    async with collecting(tmp_path) as collector:
        for origin, status, readable in (
            ("https://shop.example", 202, True),
            ("https://blog.example", 403, True),
            ("https://evil.example", 403, False),
            ("null", 403, False),
        ):
            answer = await collector.post(BEACON, headers=key | {"origin": origin})
            shared = answer.headers.get("access-control-allow-origin")
            assert (answer.status_code, shared) == (status, origin if readable else None)
        answer = await collector.post(BEACON, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_forbidden")


BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
GOOGLE = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.mark.parametrize(
    ("headers", "flags"),
    [
        ({"user-agent": BROWSER}, ()),
        ({"user-agent": GOOGLE}, ("automatic:crawler",)),
        ({"user-agent": "Mozilla/5.0 (Linux; Android 10; CUBOT NOTE 20) Chrome/126.0 Mobile"}, ()),
        ({"user-agent": BROWSER.replace("Chrome", "shop/1.2 Electron/31.0 Chrome")}, ()),
        ({"user-agent": "Mozilla/5.0 (compatible; bingbot/2.0)"}, ("automatic:crawler",)),
        ({"user-agent": "Example_bot_2 (+https://bots.example)"}, ("automatic:crawler",)),
        ({"user-agent": BROWSER.replace("Chrome", "HeadlessChrome")}, ("automatic:headless",)),
        ({"user-agent": BROWSER, "sec-purpose": "prefetch;prerender"}, ("automatic:prefetch",)),
        ({"user-agent": BROWSER, "sec-gpc": "1"}, ("gpc",)),
    ],
)
async def test_what_a_browser_says_of_itself_is_flagged_and_not_learned_from(
    tmp_path: Path, headers: dict[str, str], flags: tuple[str, ...]
) -> None:
    made = KeyFile(tmp_path).add_publishable("shop", ["https://shop.example"])
    browser = {"authorization": f"Bearer {made.key}", "origin": "https://shop.example", **headers}
    view = {"type": "product_viewed", "channel": "web", "anonymous_id": "v", "properties": {}}
    async with collecting(tmp_path) as collector:
        assert (await collector.post(view, headers=browser)).status_code == 202
        (event,) = collector.touchpoints
    assert (event.flags, event.learn) == (flags, not flags)


async def test_servers_own_agent_is_no_crawler_and_may_name_that_of_others(collector: Collector) -> None:
    robot = {"user-agent": "python-requests/2.32"}
    await collector.post([VIEW, VIEW | {"context": {"user_agent": GOOGLE}}], headers=robot)
    await collector.post(VIEW | {"context": {"gpc": True}})
    assert [event.flags for event in collector.touchpoints] == [(), ("automatic:crawler",), ("gpc",)]
    assert [event.context for event in collector.touchpoints] == [{}, {}, {"gpc": True}]
