"""What every service refuses, and how: paths, methods, request ids, and whatever breaks inside."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from libs.common.http.factory import create_http
from libs.common.http.health import Lifecycle
from libs.common.keys import KeyRing
from libs.common.telemetry import Metrics
from tests.contract.http_world import Caller, add_routes, caller, problem_of

__all__ = ["caller"]


async def test_paths_and_methods_that_do_not_exist_are_problems(caller: Caller) -> None:
    assert problem_of(await caller.client.get("/nowhere")) == (404, "not_found")
    assert problem_of(await caller.client.get("/v1/things/")) == (404, "not_found")
    response = await caller.client.delete("/v1/things")
    assert problem_of(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    assert problem_of(await caller.client.post("/docs"))[0] == 405


async def test_what_may_pass_carries_retry_after_and_what_broke_says_nothing_of_it(caller: Caller) -> None:
    later = await caller.client.get("/v1/fail/later")
    assert problem_of(later) == (503, "unavailable")
    assert later.headers["retry-after"] == "3"
    assert problem_of(await caller.client.get("/v1/fail/busy")) == (429, "rate_limited")
    broken = await caller.client.get("/v1/fail/otherwise")
    assert problem_of(broken) == (500, "internal")
    assert "secret" not in broken.text


async def test_service_that_has_not_started_answers_503_but_tells_its_state(tmp_path: Path) -> None:
    lifecycle = Lifecycle()
    app = create_http("collector", keys=KeyRing(tmp_path), metrics=Metrics("collector"), lifecycle=lifecycle)
    add_routes(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shelf") as client:
        assert problem_of(await client.post("/v1/things", json={})) == (503, "starting")
        response = await client.get("/readyz")
        assert problem_of(response) == (503, "not_ready")
        assert response.json()["phase"] == "new"
        assert (await client.get("/healthz")).status_code == 200


async def test_request_id_is_taken_over_where_it_is_harmless(caller: Caller) -> None:
    answers = [
        await caller.client.get("/healthz", headers={"x-request-id": i}) for i in ("abc-1", "a b", "x" * 99)
    ]
    assert answers[0].headers["x-request-id"] == "abc-1"
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert " " not in answers[1].headers["x-request-id"]


async def test_page_of_the_interface_loads_nothing_from_elsewhere(caller: Caller) -> None:
    page = (await caller.client.get("/docs")).text
    loaded = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page)
    assert len(loaded) == 4
    for address in loaded:
        assert "//" not in address
        assert (await caller.client.get(f"/{address}")).status_code == 200


async def test_every_service_shows_health_metrics_and_its_interface(caller: Caller) -> None:
    await caller.post({"name": "a"})
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert (await caller.client.get(path)).status_code == 200, path
    metrics = (await caller.client.get("/metrics")).text
    assert 'closedloop_collector_http_requests_total{route="/v1/things",status="202"} 1.0' in metrics
    document = (await caller.client.get("/openapi.json")).json()
    body = document["paths"]["/v1/things"]["post"]["requestBody"]["content"]
    assert {"application/json", "application/x-ndjson"} == body.keys()
    assert document["components"]["schemas"]["ThingIn"]["required"] == ["name"]
    assert document["paths"]["/v1/things/{id}"]["put"]["parameters"][0]["name"] == "id"


async def test_ids_in_paths_may_hold_anything_but_nul(caller: Caller) -> None:
    for quoted, plain in (("a%2Fb", "a/b"), ("%C3%A9%20%25", "é %"), ("x%3Fy%23", "x?y#"), ("a:b", "a:b")):
        assert (await caller.post({"name": "a"}, f"/v1/things/{quoted}")).json()["id"] == plain
    for quoted in ("a%00", "%FF"):
        assert await caller.refused({"name": "a"}, f"/v1/things/{quoted}") == (400, "bad_path")
    assert problem_of(await caller.client.put("/v1/things/a/b")) == (404, "not_found")
    for query in ("mode=%00", "mode=%FF", "&".join(["a=1"] * 1_001)):
        assert await caller.refused({"name": "a"}, f"/v1/things?{query}") == (400, "bad_query")
