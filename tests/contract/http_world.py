"""An application of one endpoint of each sort, and a caller with a key, for contract tests."""

from __future__ import annotations

import json
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
