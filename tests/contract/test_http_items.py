"""Items that every service refuses, each in all four forms of a batch, beside good neighbours."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.contract.http_world import Caller, caller, problem_of

__all__ = ["caller"]

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
