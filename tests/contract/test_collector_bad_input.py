"""Whatever is posted: the contract's codes, the good part kept, no 5xx, and a service that stays ready."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.clock import ManualClock
from libs.common.contracts.customer_event import Touchpoint
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.spool.memory import MemoryJournal
from services.collector.app import create_service
from services.collector.settings import CollectorSettings

PATHS = ("/v1/touchpoints", "/v1/identities", "/v1/consents")
SECRET = "nobody-should-read-this-in-a-log"
GOOD: dict[str, Any] = {
    "type": "visit_completed", "channel": "web", "customer_id": "good", "properties": {"note": SECRET}
}  # fmt: skip
ORDER = '{"type":"order_completed","channel":"web","customer_id":"c","properties":%s}'


class Caller:
    """Posts raw bodies to a collector in this process."""

    def __init__(self, http: httpx.AsyncClient, journal: MemoryJournal) -> None:
        self.http = http
        self.journal = journal

    async def post(self, body: str | bytes, path: str = PATHS[0], **headers: str) -> httpx.Response:
        kind = {"content-type": "application/json"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(path, content=body, headers={**kind, **named})

    def kept(self) -> list[Touchpoint]:
        return [event for event in self.journal.events if isinstance(event, Touchpoint)]


@pytest.fixture
async def caller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Caller]:
    caplog.set_level(logging.DEBUG)
    journal = MemoryJournal()
    service = create_service(
        CollectorSettings(data_dir=tmp_path, dev_key="dev-key"),
        bus=MemoryBus(),
        journal=journal,
        board=ProgressBoard(),
        clock=ManualClock(1_760_000_000_000),
    )
    headers = {"authorization": "Bearer dev-key"}
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    async with (
        running(service),
        httpx.AsyncClient(transport=transport, base_url="http://c", headers=headers) as http,
    ):
        yield Caller(http, journal)
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.post(PATHS[0], json=GOOD)).status_code == 202
    written = [record for record in caplog.records if not record.name.startswith("httpx")]
    assert [record for record in written if record.levelno >= logging.ERROR] == []
    assert all(SECRET not in record.getMessage() for record in written)


def is_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "code", "detail", "errors", "request_id"} <= set(body)
    assert isinstance(body, dict)
    return body


NOT_JSON = {
    "syntax": b'{"type":',
    "bare word": b"hello",
    "NaN": b'{"type":"x","channel":"web","customer_id":"c","properties":{"a":NaN}}',
    "Infinity": b'[{"a":-Infinity}]',
    "invalid UTF-8": b'{"type":"\xff\xfe"}',
    "nesting of 10,000": b"[" * 10_000 + b"]" * 10_000,
    "nesting of 600": b'{"a":' * 600 + b"1" + b"}" * 600,
    "trailing text": b'{"type":"x"} {}',
    "empty": b"",
    "blank": b" \n\t ",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_what_is_not_json_refuses_the_body(caller: Caller, path: str, body: bytes) -> None:
    is_problem(await caller.post(body, path), 400)
    assert caller.kept() == []


def good_with(**fields: Any) -> str:
    return json.dumps({**GOOD, **fields})


BAD_ITEMS: dict[str, tuple[str, str, str]] = {
    "not an object": ("17", "wrong_type", ""),
    "null": ("null", "wrong_type", ""),
    "a list": ("[]", "wrong_type", ""),
    "wrong type": (good_with(type=5), "wrong_type", "/type"),
    "type missing": ('{"channel":"web","customer_id":"c"}', "missing", "/type"),
    "channel missing": ('{"type":"x","customer_id":"c"}', "missing", "/channel"),
    "nobody named": ('{"type":"x","channel":"web"}', "missing", "/customer_id"),
    "type not snake_case": (good_with(type="Product Viewed"), "bad_string", "/type"),
    "properties not an object": (good_with(properties=[]), "wrong_type", "/properties"),
    "1e400 in free data": (good_with(properties=0).replace(": 0", ': {"a":[1,1e400]}'), "not_finite",
                           "/properties/a/1"),
    "1e400 as price": (ORDER % '{"order_id":"o","products":[{"product_id":"p","price":1e400}]}', "not_finite",
                       "/properties/products/0/price"),
    "integer of 400 digits": (good_with(properties=0).replace(": 0", ': {"a":' + "9" * 400 + "}"),
                              "not_finite", "/properties/a"),
    "depth over 16": (good_with(context=0).replace(": 0", ":" + '{"a":' * 17 + "1" + "}" * 17), "too_deep",
                      "/context/a"),
    "100 kB string": (good_with(context={"a": "x" * 100_000}), "too_large", ""),
    "NUL": (good_with(context={"a": "x\0y"}), "bad_string", "/context/a"),
    "NUL in a name": (good_with(context={"x\0": 1}), "bad_string", "/context"),
    "lone surrogate": ('{"type":"x","channel":"web","customer_id":"\\ud800"}', "bad_string", "/customer_id"),
    "lone low surrogate": (good_with(context={"a": ["\udc00"]}), "bad_string", "/context/a/0"),
    "date that cannot be read": (good_with(occurred_at="yesterday"), "bad_time", "/occurred_at"),
    "date before year 1": (good_with(occurred_at="0000-12-31T23:59:59Z"), "bad_time", "/occurred_at"),
    "date before year 1 by its zone": (good_with(occurred_at="0001-01-01T00:00:00+01:00"), "bad_time",
                                       "/occurred_at"),
    "date after year 9999": (good_with(occurred_at="10000-01-01T00:00:00Z"), "bad_time", "/occurred_at"),
    "date after year 9999 by its zone": (good_with(occurred_at="9999-12-31T23:59:59-01:00"), "bad_time",
                                         "/occurred_at"),
    "time as a number": (good_with(occurred_at=1_760_000_000), "wrong_type", "/occurred_at"),
    "unknown field": (good_with(colour="red"), "unknown_field", "/colour"),
    "misspelt field": (good_with(custmer_id="c"), "unknown_field", "/custmer_id"),
    "reserved name": (good_with(customer_id="event:1"), "bad_string", "/customer_id"),
    "id that is too long": (good_with(id="x" * 300), "too_large", "/id"),
}  # fmt: skip


@pytest.mark.parametrize(("item", "code", "field"), BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
@pytest.mark.parametrize("form", ["list", "envelope", "lines"])
async def test_bad_item_is_refused_and_the_good_one_kept(
    caller: Caller, item: str, code: str, field: str, form: str
) -> None:
    good = json.dumps(GOOD)
    if form == "lines":
        answer = await caller.post(f"{good}\n{item}\n{good}\n", content_type="application/x-ndjson")
    else:
        body = f"[{good},{item},{good}]"
        answer = await caller.post(body if form == "list" else f'{{"touchpoints":{body}}}')
    assert answer.status_code == 202, answer.text
    assert answer.json()["accepted"] == 2
    ((index, found, where),) = [(r["index"], r["code"], r["field"]) for r in answer.json()["rejected"]]
    assert (index, found, where) == (1, code, field)
    assert [event.customer for event in caller.kept()] == ["good", "good"]


@pytest.mark.parametrize(("item", "code", "field"), BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
async def test_bad_item_alone_is_422(caller: Caller, item: str, code: str, field: str) -> None:
    body = is_problem(await caller.post(f"[{item}]"), 422)
    assert [(error["code"], error["field"]) for error in body["errors"]] == [(code, "/0" + field)]
    assert caller.kept() == []


async def test_misspelt_field_gets_a_suggestion(caller: Caller) -> None:
    body = is_problem(await caller.post(good_with(custmer_id="c")), 422)
    assert "customer_id" in body["errors"][0]["reason"]


async def test_broken_line_is_one_bad_item(caller: Caller) -> None:
    good = json.dumps(GOOD).encode()
    lines = b"\n".join([good, b'{"type":', b'{"type":"\xff"}', b"NaN", good])
    answer = await caller.post(lines, content_type="application/x-ndjson")
    assert answer.status_code == 202
    assert [r["index"] for r in answer.json()["rejected"]] == [1, 2, 3]
    assert len(caller.kept()) == 2


async def test_of_duplicate_names_the_last_counts(caller: Caller) -> None:
    body = '{"type":"x","channel":"web","customer_id":"a","customer_id":"b","context":{"k":1,"k":2}}'
    assert (await caller.post(body)).status_code == 202
    (event,) = caller.kept()
    assert (event.customer, event.context) == ("b", {"k": 2})


@pytest.mark.parametrize("year", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
async def test_first_and_last_year_are_kept(caller: Caller, year: str) -> None:
    assert (await caller.post(good_with(occurred_at=year))).status_code == 202
    assert caller.kept()[0].flags == ("out_of_window",)


@pytest.mark.parametrize("body", ["[]", '{"touchpoints":[]}'])
async def test_empty_batch_is_422(caller: Caller, body: str) -> None:
    is_problem(await caller.post(body), 422)


async def test_batch_of_2500_is_taken_and_one_more_is_413(caller: Caller) -> None:
    item = '{"type":"x","channel":"web","customer_id":"c"}'
    many = ",".join([item] * 2_500)
    assert (await caller.post(f"[{many}]")).status_code == 202
    kept = len(caller.kept())
    is_problem(await caller.post(f"[{many},{item}]"), 413)
    lines = "\n".join([item] * 2_501)
    is_problem(await caller.post(lines, content_type="application/x-ndjson"), 413)
    assert len(caller.kept()) == kept == 2_500


async def test_body_over_one_megabyte_is_413(caller: Caller) -> None:
    is_problem(await caller.post(b" " * 1_100_000), 413)


async def test_gzip_bomb_is_413_and_never_unpacked(caller: Caller) -> None:
    bomb = gzip.compress(b"[" + b" " * 200_000_000 + b"]", 9)
    is_problem(await caller.post(bomb, content_encoding="gzip"), 413)


@pytest.mark.parametrize("body", [b"", b"not gzip", gzip.compress(json.dumps(GOOD).encode())[:-9]])
async def test_broken_gzip_is_400(caller: Caller, body: bytes) -> None:
    is_problem(await caller.post(body, content_encoding="gzip"), 400)


async def test_gzip_of_some_members_is_read_and_of_many_empty_ones_is_400(caller: Caller) -> None:
    good = json.dumps(GOOD).encode()
    packed = [gzip.compress(good[:10]), gzip.compress(good[10:]), *[gzip.compress(b"")] * 62]
    assert (await caller.post(b"".join(packed), content_encoding="gzip")).status_code == 202
    packed.append(gzip.compress(b""))
    is_problem(await caller.post(b"".join(packed), content_encoding="gzip"), 400)


@pytest.mark.parametrize(
    "headers",
    [
        {"content_encoding": "br"},
        {"content_encoding": "deflate"},
        {"content_type": "application/json; charset=latin-1"},
        {"content_type": "text/plain; charset=utf-16"},
        {"content_type": "application/xml"},
        {"content_type": "multipart/form-data; boundary=x"},
    ],
)
async def test_what_we_do_not_read_is_415(caller: Caller, headers: dict[str, str]) -> None:
    body = zlib.compress(json.dumps(GOOD).encode())
    is_problem(await caller.post(body, **headers), 415)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "key_missing"),
        ("Bearer wrong", "key_unknown"),
        ("Bearer", "key_unknown"),
        ("Basic !!!", "key_unknown"),
        ("Digest x", "key_unknown"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
async def test_wrong_key_is_401(caller: Caller, authorization: str | None, code: str, path: str) -> None:
    del caller.http.headers["authorization"]
    headers = {"authorization": authorization} if authorization is not None else {}
    assert is_problem(await caller.post(json.dumps(GOOD), path, **headers), 401)["code"] == code
    caller.http.headers["authorization"] = "Bearer dev-key"
    assert caller.kept() == []


async def test_unknown_path_and_method_are_problems(caller: Caller) -> None:
    is_problem(await caller.http.get("/v1/nothing"), 404)
    is_problem(await caller.http.get("/v1/touchpoints"), 405)
    is_problem(await caller.http.delete("/v1/touchpoints"), 405)
