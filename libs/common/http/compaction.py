"""``POST /v1/compactions/SERVICE``: have a service write its files anew, so that deleted bytes are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct
from starlette.responses import Response

from libs.common.http.calls import Call, reply
from libs.common.http.factory import HttpApp
from libs.common.keys import Scope


class Compacted(Struct, frozen=True):
    """A store that was written anew; ``left`` says in words what could not be cleared, and until when."""

    store: str
    left: list[str] = []


class Compaction(Struct, frozen=True):
    """All stores of a service."""

    service: str
    stores: list[Compacted]


Compact = Callable[[], Awaitable[list[Compacted]]]


def add_compaction(app: HttpApp, service: str, compact: Compact) -> None:
    """Add the endpoint; one compaction at a time, answered when it is done."""
    one = asyncio.Lock()

    async def post(call: Call) -> Response:
        async with one:
            return reply(Compaction(service, await compact()))

    app.endpoint(
        "POST",
        f"/v1/compactions/{service}",
        post,
        scope=Scope.MANAGE,
        gives=Compaction,
        summary="Write the files of this service anew, so that what was deleted leaves no bytes",
    )
