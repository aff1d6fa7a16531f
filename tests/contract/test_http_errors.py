"""What every service refuses, and how: the lines Errors and Batches of the external contract."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct
from starlette.responses import Response

from libs.common.errors import Invalid, Transient
from libs.common.http.batches import BatchAnswer, BatchDecoder
from libs.common.http.calls import Call, reply
from libs.common.http.factory import HttpApp, create_http
from libs.common.http.health import Lifecycle
from libs.common.http.objects import ObjectDecoder
from libs.common.http.problems import Refused
from libs.common.keys import KeyFile, KeyRing, Scope
from libs.common.runtime import Service, running
from libs.common.telemetry import Metrics
from libs.common.times import parse_time

PROBLEM = {"type", "title", "status", "code", "detail", "errors", "request_id"}


class Line(Struct, frozen=True):
    """A line of a thing."""

    price: float


class ThingIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An item of the echo endpoint."""

    id: str | None = None
    name: str
    at: str | None = None
    size: float = 0.0
    lines: list[Line] = []
    properties: dict[str, Any] = {}


def add_routes(app: HttpApp) -> None:
    things = BatchDecoder(
        ThingIn, "things", not_supported=frozenset({"hologram"}), envelope=frozenset({"write_key"})
    )
    thing = ObjectDecoder(ThingIn, not_supported=frozenset({"hologram"}))

    async def post_things(call: Call) -> Response:
        batch = things.decode(call.body, lines=call.lines)
        for index, item in batch.items:
            try:
                if item.at is not None:
                    parse_time(item.at, "/at")
            except Invalid as error:
                batch.refuse(index, error)
        return batch.answer("here", source=call.source, size=len(call.body))

    async def put_thing(call: Call) -> Response:
        return reply({"id": call.path["id"], "thing": thing.decode(call.body)})

    async def fail(call: Call) -> Response:
        error = {
            "later": Transient("the shelf is full", 2.5),
            "busy": Refused(429, "rate_limited", "slow down"),
        }
        raise error.get(call.path["how"], RuntimeError("a secret detail"))

    endpoint = app.endpoint
    post, collect = "POST", Scope.COLLECT
    endpoint(post, "/v1/things", post_things, summary="Echo", scope=collect, takes=things, gives=BatchAnswer,
             status=202, lenient=True, imports=True)  # fmt: skip
    endpoint(post, "/v1/strict", post_things, summary="Echo", scope=collect, takes=things, gives=BatchAnswer)
    endpoint("PUT", "/v1/things/{id}", put_thing, summary="Store", scope=collect, takes=thing, gives=ThingIn)
    endpoint("GET", "/v1/fail/{how}", fail, summary="Fail")
    endpoint(post, "/v1/open", post_things, summary="Echo", scope=collect, key_optional=True, takes=things)


class Caller:
    """Speaks to the application with a key that may collect."""

    def __init__(self, client: httpx.AsyncClient, data_dir: Path) -> None:
        self.client = client
        self.data_dir = data_dir
        self.key = KeyFile(data_dir).add("shop", [Scope.COLLECT]).key

    async def post(self, body: object, path: str = "/v1/things", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes | str) else json.dumps(body)
        sent = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        method = "PUT" if path.startswith("/v1/things/") else "POST"
        return await self.client.request(
            method, path, content=content, headers={name: value for name, value in sent.items() if value}
        )

    async def refused(self, body: object, path: str = "/v1/things", **headers: str) -> tuple[int, str]:
        """Status and code of a refusal, its document checked."""
        return problem_of(await self.post(body, path, **headers))


def problem_of(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document.keys() >= PROBLEM
    assert document["status"] == response.status_code
    assert document["request_id"] == response.headers["x-request-id"] != ""
    assert all(error.keys() == {"field", "code", "reason"} for error in document["errors"])
    if response.status_code in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return response.status_code, document["code"]


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    app = create_http(
        "collector",
        keys=KeyRing(tmp_path, "open-sesame"),
        metrics=Metrics("collector"),
        lifecycle=Lifecycle(),
    )
    add_routes(app)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        running(Service("collector", app)),
        httpx.AsyncClient(transport=transport, base_url="http://shelf") as client,
    ):
        yield Caller(client, tmp_path)


# Refusals of the application


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


# Keys


# Trap: RFC 7617 wants a colon after the user name, also where the name alone is a key.
BASIC_WITHOUT_COLON = f"Basic {base64.b64encode(b'open-sesame').decode()}"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Nonsense abc", "Basic !!!", "Basic /w==", BASIC_WITHOUT_COLON, "Bearer no"],
)
async def test_header_that_cannot_be_read_or_is_unknown_is_401(caller: Caller, header: str) -> None:
    response = await caller.client.post("/v1/things", json={"name": "a"}, headers={"authorization": header})
    assert problem_of(response) == (401, "key_unknown")
    raw = await caller.client.post(
        "/v1/things", json={"name": "a"}, headers={"authorization": b"Bearer \xff\xfe"}
    )
    assert problem_of(raw) == (401, "key_unknown")


async def test_missing_key_and_missing_scope_are_told_apart(caller: Caller) -> None:
    assert problem_of(await caller.client.post("/v1/things", json={"name": "a"})) == (401, "key_missing")
    other = KeyFile(caller.data_dir).add("ops", [Scope.OPS]).key
    await asyncio.sleep(0.6)
    response = await caller.post({"name": "a"}, authorization=f"Bearer {other}")
    assert problem_of(response) == (403, "scope_missing")
    assert "collect" in response.json()["detail"]


async def test_key_as_basic_user_name_and_the_dev_key_are_known(caller: Caller) -> None:
    basic = base64.b64encode(f"{caller.key}:".encode()).decode()
    assert (await caller.post({"name": "a"}, authorization=f"Basic {basic}")).json()["source"] == "shop"
    assert (await caller.post({"name": "a"}, authorization="bearer open-sesame")).json()["source"] == "dev"


async def test_endpoint_with_optional_key_takes_none_but_no_wrong_one(caller: Caller) -> None:
    assert (await caller.post({"name": "a"}, "/v1/open", authorization="")).status_code == 202
    assert await caller.refused({"name": "a"}, "/v1/open", authorization="Bearer no") == (401, "key_unknown")


async def test_publishable_key_is_held_to_its_origins(caller: Caller) -> None:
    key = KeyFile(caller.data_dir).add_publishable("site", ["https://shop.example"]).key
    bearer = f"Bearer {key}"
    good = await caller.post({"name": "a"}, authorization=bearer, origin="https://shop.example")
    assert good.status_code == 202
    for origin in ("https://evil.example", ""):
        refusal = await caller.refused({"name": "a"}, authorization=bearer, origin=origin)
        assert refusal == (403, "origin_forbidden")


# Bodies that are refused as a whole


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_body"),
        (b" \n", "empty_body"),
        (b"{", "not_json"),
        (b'{"name": "a"} x', "not_json"),
        (b"{'name': 1}", "not_json"),
        (b'{"name": "a", "size": NaN}', "not_json"),
        (b'{"name": "a", "properties": {"x": [-Infinity]}}', "not_json"),
        (b'{"name": "\xff\xfe"}', "not_json"),
        (b'{"name": "a\nb"}', "not_json"),
        (b'\xef\xbb\xbf{"name": "a"}', "not_json"),
        (b'[{"name": "a"}, {"name": ]', "not_json"),
        (b'{"name": "a", "properties": ' + b'{"a":' * 512 + b"1" + b"}" * 513, "not_json"),
        (b"[" * 10_000 + b"]" * 10_000, "not_json"),
        (b"[" * 900_000, "not_json"),
        (b'{"name": "a", "x": "' + b'\\"' * 400_000, "not_json"),
    ],
)
async def test_what_is_not_json_is_400(caller: Caller, body: bytes, code: str) -> None:
    assert await caller.refused(body) == (400, code)
    assert await caller.refused(body, "/v1/things/1") == (400, code)


async def test_nesting_up_to_512_refuses_only_the_item(caller: Caller) -> None:
    deep = '{"name": "deep", "properties": ' + '{"a":' * 509 + "1" + "}" * 510
    answer = (await caller.post(f'[{{"name": "a"}}, {deep}]')).json()
    assert (answer["accepted"], answer["rejected"][0]["code"]) == (1, "too_deep")


async def test_content_type_is_free_only_where_beacons_post(caller: Caller) -> None:
    for kind in ("text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", ""):
        assert (await caller.post({"name": "a"}, content_type=kind)).status_code == 202, kind
        assert await caller.refused({"name": "a"}, "/v1/strict", content_type=kind) == (415, "content_type")
    for kind in ("text/html", "application/xml", "image/gif", "nonsense"):
        assert await caller.refused({"name": "a"}, content_type=kind) == (415, "content_type")
    assert (
        await caller.post({"name": "a"}, "/v1/strict", content_type="Application/JSON")
    ).status_code == 202


async def test_charset_and_encoding_that_are_not_ours_are_415(caller: Caller) -> None:
    for charset in ("utf-8", '"UTF-8"', "utf8"):
        assert (
            await caller.post({"name": "a"}, content_type=f"application/json; charset={charset}")
        ).is_success
    for charset in ("latin-1", "utf-16"):
        refusal = await caller.refused({"name": "a"}, content_type=f"application/json; charset={charset}")
        assert refusal == (415, "charset")
    for encoding in ("br", "deflate", "gzip, gzip", "zstd"):
        assert await caller.refused({"name": "a"}, content_encoding=encoding) == (415, "content_encoding")
    assert (await caller.post({"name": "a"}, content_encoding="identity")).status_code == 202


async def test_gzip_is_unpacked_and_broken_gzip_is_400(caller: Caller) -> None:
    good = gzip.compress(b'{"name": "a"}')
    assert (await caller.post(good, content_encoding="gzip")).status_code == 202
    two_members = gzip.compress(b'[{"name": "a"},') + gzip.compress(b'{"name": "b"}]')
    assert (await caller.post(two_members, content_encoding="gzip")).json()["accepted"] == 2
    for broken in (b"", good[:-1], good[:5], b"plain text", good + b"tail", good[:-6] + b"xxxxxx"):
        assert await caller.refused(broken, content_encoding="gzip") == (400, "bad_gzip")
    assert await caller.refused(gzip.compress(b""), content_encoding="gzip") == (400, "empty_body")


async def test_body_over_a_megabyte_is_413_however_it_comes(caller: Caller) -> None:
    large = json.dumps([{"name": "a" * 1000}] * 1100).encode()
    assert await caller.refused(large) == (413, "body_too_large")
    assert await caller.refused(gzip.compress(large), content_encoding="gzip") == (413, "body_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    headers = {"authorization": f"Bearer {caller.key}", "content-type": "application/json"}
    chunked = await caller.client.post("/v1/things", content=chunks(), headers=headers)
    assert problem_of(chunked) == (413, "body_too_large")


async def test_gzip_bomb_is_413_and_never_unpacked(caller: Caller) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(500)) + packer.flush()
    assert len(bomb) < 1_000_000
    began = asyncio.get_running_loop().time()
    assert await caller.refused(bomb, content_encoding="gzip") == (413, "body_too_large")
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_imports_may_be_larger_for_those_who_manage(caller: Caller) -> None:
    large = [{"name": "a" * 1000}] * 1100
    importing = "/v1/things?mode=import"
    assert await caller.refused(large) == (413, "body_too_large")
    assert await caller.refused(large, importing) == (403, "scope_missing")
    good = await caller.post(large, importing, authorization="Bearer open-sesame")
    assert good.json()["accepted"] == 1100
    huge = b"[" + b" " * 10_500_000 + b"]"
    assert (await caller.refused(huge, importing, authorization="Bearer open-sesame"))[0] == 413


async def test_batch_over_2500_items_is_413_and_the_limit_itself_is_fine(caller: Caller) -> None:
    assert (await caller.post([{"name": "a"}] * 2_500)).json()["accepted"] == 2_500
    over = [{"name": "a"}] * 2_501
    assert await caller.refused(over) == (413, "too_many_items")
    assert await caller.refused([1] * 2_501) == (413, "too_many_items")
    assert await caller.refused({"things": over}) == (413, "too_many_items")
    lines = "\n".join(map(json.dumps, over))
    assert await caller.refused(lines, content_type="application/x-ndjson") == (413, "too_many_items")


# Items that are refused, each in all four forms, beside good neighbours

BAD_ITEMS = [
    ("{}", "missing", "/name"),
    ('{"name": 1}', "wrong_type", "/name"),
    ('{"name": null}', "wrong_type", "/name"),
    ('{"name": "a", "lines": [{"price": 1}, {"price": "x"}]}', "wrong_type", "/lines/1/price"),
    ('{"name": "a", "lines": [{"price": 1}, {}]}', "missing", "/lines/1/price"),
    ('{"name": "a", "lines": [{"price": 1e400}]}', "not_finite", "/lines/0/price"),
    ('{"name": "a", "size": -1e400}', "not_finite", "/size"),
    ('{"name": "a", "size": %s}' % ("9" * 400), "not_finite", "/size"),
    ('{"name": "a", "properties": {"x": %s}}' % ("9" * 5000), "not_finite", "/properties/x"),
    ('{"name": "a", "properties": {"x": [1e999]}}', "not_finite", "/properties/x/0"),
    ('{"name": "a\\u0000"}', "bad_string", "/name"),
    ('{"name": "\\ud800"}', "bad_string", "/name"),
    ('{"name": "a", "properties": {"x": ["\\udc00 "]}}', "bad_string", "/properties/x/0"),
    ('{"name": "a", "properties": {"\\ud800": 1}}', "bad_string", "/properties"),
    ('{"name": "a", "properties": ' + '{"a":' * 15 + "{}" + "}" * 16, "too_deep", "/properties/a"),
    ('{"name": "a", "properties": {"x": "%s"}}' % ("x" * 100_000), "too_large", ""),
    ('{"name": "a", "at": "yesterday"}', "bad_time", "/at"),
    ('{"name": "a", "at": "10000-01-01T00:00:00Z"}', "bad_time", "/at"),
    ('{"name": "a", "at": "0000-12-31"}', "bad_time", "/at"),
    ('{"name": "a", "nmae": "b"}', "unknown_field", "/nmae"),
    ('{"name": "a", "\\ud800": "b"}', "bad_string", ""),
    ('{"name": "a", "hologram": 1}', "not_supported", "/hologram"),
    ("7", "wrong_type", ""),
    ("null", "wrong_type", ""),
    ('"text"', "wrong_type", ""),
    ("[]", "wrong_type", ""),
]
GOOD = '{"name": "good", "at": "2025-01-01"}'


@pytest.mark.parametrize(("bad", "code", "field"), BAD_ITEMS, ids=lambda value: str(value)[:40])
async def test_bad_item_is_named_and_its_neighbours_are_taken(
    caller: Caller, bad: str, code: str, field: str
) -> None:
    for body, kind in (
        (f"[{GOOD}, {bad}, {GOOD}]", "application/json"),
        (f'{{"things": [{GOOD}, {bad}, {GOOD}]}}', "application/json"),
        (f"{GOOD}\n{bad}\n\r\n{GOOD}\n", "application/x-ndjson"),
    ):
        response = await caller.post(body, content_type=kind)
        assert response.status_code == 202, response.text
        answer = response.json()
        assert answer["accepted"] == 2
        assert answer["position"] == "here"
        assert len(answer["rejected"]) == 1
        rejected = answer["rejected"][0]
        assert rejected.keys() == {"index", "id", "code", "field", "reason"}
        assert (rejected["index"], rejected["code"], rejected["field"]) == (1, code, field)


@pytest.mark.parametrize(("bad", "code", "field"), BAD_ITEMS, ids=lambda value: str(value)[:40])
async def test_bad_item_alone_is_422_with_its_code(caller: Caller, bad: str, code: str, field: str) -> None:
    if bad != "[]":
        response = await caller.post(bad)
        assert problem_of(response) == (422, code)
        assert [(e["field"], e["code"]) for e in response.json()["errors"]] == [(field, code)]
    response = await caller.post(f"[{bad}]")
    assert problem_of(response) == (422, code)
    assert [(e["field"], e["code"]) for e in response.json()["errors"]] == [(f"/0{field}", code)]
    if code != "bad_time":
        single = await caller.post(bad, "/v1/things/1")
        assert problem_of(single) == (422, code)
        assert single.json()["errors"][0]["field"] == field


async def test_reasons_can_be_acted_on(caller: Caller) -> None:
    async def reason(item: str) -> str:
        return str((await caller.post(item)).json()["errors"][0]["reason"])

    assert "did you mean name?" in await reason('{"nmae": "a"}')
    assert "did you mean" not in await reason('{"name": "a", "zzzzzz": 1}')
    assert await reason('{"name": "a", "size": "5"}') == "size must be a finite number, not a string"
    assert await reason("{}") == "name is required"


async def test_rejected_items_are_named_by_their_id_where_it_can_be_shown(caller: Caller) -> None:
    body = r'[{"name": "a"}, {"id": "i-1", "x": 1}, {"id": "\ud800"}, {"id": 7}]'
    assert [item["id"] for item in (await caller.post(body)).json()["rejected"]] == ["i-1", None, None]


async def test_empty_batch_and_all_bad_batch_are_422(caller: Caller) -> None:
    assert await caller.refused([]) == (422, "missing")
    assert await caller.refused({"things": []}) == (422, "missing")
    response = await caller.post([{"nmae": 1}, {"name": 5}, 7])
    assert problem_of(response)[0] == 422
    assert [error["code"] for error in response.json()["errors"]] == [
        "unknown_field",
        "wrong_type",
        "wrong_type",
    ]


async def test_all_four_forms_and_gzip_are_taken(caller: Caller) -> None:
    one = {"name": "a"}
    lines = "\n".join([json.dumps(one)] * 3)
    assert (await caller.post(one)).json()["accepted"] == 1
    assert (await caller.post([one, one])).json()["accepted"] == 2
    assert (await caller.post({"things": [one, one], "write_key": "pk"})).json()["accepted"] == 2
    assert (await caller.post({"write_key": "x" * 600, "things": [one]})).json()["accepted"] == 1
    assert (await caller.post(lines, content_type="application/x-ndjson")).json()["accepted"] == 3
    packed = gzip.compress(lines.encode())
    sent = await caller.post(packed, content_type="application/x-ndjson", content_encoding="gzip")
    assert sent.json()["accepted"] == 3
    assert await caller.refused({"things": [one], "wriet_key": 1}) == (422, "unknown_field")
    misspelt = (await caller.post({"things": [one], "notes": 1})).json()["errors"][0]
    assert misspelt["reason"] == "unknown field notes; known fields are things, write_key"
    no_list = (await caller.post({"things": 5})).json()["errors"]
    assert no_list == [{"field": "/things", "code": "wrong_type", "reason": "things must be a list"}]


async def test_broken_lines_are_bad_items_each(caller: Caller) -> None:
    body = b'{"name": "a"}\n{"name": \nNaN\n{"name": "\xff"}\n' + b"[" * 600 + b'\n\n{"name": "b"}'
    answer = (await caller.post(body, content_type="application/x-ndjson")).json()
    assert answer["accepted"] == 2
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == [
        (1, "wrong_type"), (2, "not_finite"), (3, "bad_string"), (4, "too_deep")
    ]  # fmt: skip


async def test_last_of_duplicate_keys_counts(caller: Caller) -> None:
    assert (await caller.post('{"name": 1, "name": "a"}')).status_code == 202
    assert await caller.refused('{"name": "a", "name": 1}') == (422, "wrong_type")
    stored = await caller.post('{"name": "a", "name": "b"}', "/v1/things/1")
    assert stored.json()["thing"]["name"] == "b"


async def test_limits_of_an_item_are_inclusive(caller: Caller) -> None:
    deepest = '{"name": "a", "properties": ' + '{"a":' * 14 + "{}" + "}" * 15
    frame = len('{"name":""}')
    for body in (deepest, json.dumps({"name": "x" * (32_768 - frame)})):
        assert (await caller.post(f"[{body},{body}]")).json()["accepted"] == 2
        assert (await caller.post(body)).status_code == 202
    over = json.dumps({"name": "x" * (32_769 - frame)}, separators=(",", ":"))
    assert await caller.refused(over) == (422, "too_large")


async def test_text_that_only_looks_bad_is_taken(caller: Caller) -> None:
    for text in (
        '"\\\\u0000"',
        '"{[{[{[{[{[{[{[{[{[{[{["',
        '"\\"}}}}}}}}}}}}}}}}}}"',
        '"\\ud83d\\ude00"',
        '"%s"' % ("1" * 999),
    ):
        response = await caller.post(f'[{{"name": {text}}}]')
        assert response.status_code == 202, text


async def test_depth_cannot_hide_behind_brackets_in_strings(caller: Caller) -> None:
    hidden = "1"
    for _ in range(40):
        hidden = '{"x": "}", "y": ' + hidden + ', "z": "{"}'
    assert await caller.refused('{"name": "a", "properties": ' + hidden + "}") == (422, "too_deep")
