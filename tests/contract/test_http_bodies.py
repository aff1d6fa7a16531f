"""Bodies that every service refuses as a whole: no JSON, too large, of another type or encoding."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator

import pytest

from tests.contract.http_world import Caller, caller, problem_of

__all__ = ["caller"]


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
