"""Whom every service refuses: keys that are missing, wrong, too narrow, or of another origin."""

from __future__ import annotations

import asyncio
import base64

import pytest

from libs.common.keys import KeyFile, Scope
from tests.contract.http_world import Caller, caller, problem_of

__all__ = ["caller"]

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
