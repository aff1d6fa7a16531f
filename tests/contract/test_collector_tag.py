"""The site tag over HTTP: small, readable, cached, open to every page."""

from __future__ import annotations

import gzip
from pathlib import Path

from tests.contract.collector_world import collecting


async def test_tag_is_small_readable_and_the_same_packed_or_not(tmp_path: Path) -> None:
    async with collecting(tmp_path) as collector:
        del collector.http.headers["authorization"]
        plain = await collector.http.get("/closedloop.js", headers={"accept-encoding": "identity"})
        assert plain.status_code == 200
        assert plain.headers["content-type"] == "text/javascript; charset=utf-8"
        assert "content-encoding" not in plain.headers
        packed = await collector.http.get("/closedloop.js", headers={"accept-encoding": "br, gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < 4_000
        assert packed.content == plain.content
        assert len(gzip.compress(plain.content)) < 4_000
        assert plain.text.count("\n") > 150
        assert "\n  //" not in plain.text
        assert "set-cookie" not in plain.headers


async def test_tag_is_asked_for_again_only_when_it_changed(tmp_path: Path) -> None:
    async with collecting(tmp_path) as collector:
        first = await collector.http.get("/closedloop.js")
        assert first.headers["cache-control"].startswith("public, max-age=3600")
        assert first.headers["vary"] == "accept-encoding"
        etag = first.headers["etag"]
        again = await collector.http.get("/closedloop.js", headers={"if-none-match": etag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        other = await collector.http.get("/closedloop.js", headers={"if-none-match": 'W/"other"'})
        assert other.status_code == 200


async def test_any_page_may_load_the_tag_once_allowed_for_all(tmp_path: Path) -> None:
    async with collecting(tmp_path) as collector:
        answer = await collector.http.get("/closedloop.js", headers={"origin": "https://blog.example"})
        assert answer.headers.get_list("access-control-allow-origin") == ["*"]
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
