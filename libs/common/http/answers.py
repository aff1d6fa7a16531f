"""Responses with a JSON body, made with as little work as possible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

JSON = b"application/json"


class Answer(Response):
    """A JSON response: the body is encoded by msgspec, the headers are written once."""

    def __init__(
        self,
        content: Any,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: bytes = JSON,
    ) -> None:
        # Trap: Response.__init__ is left out on purpose; it costs more than the rest of a small answer.
        self.status_code = status
        self.background = None
        self.body = content if type(content) is bytes else msgspec.json.encode(content)
        self.raw_headers = [
            (b"content-length", str(len(self.body)).encode()),
            (b"content-type", media_type),
        ]
        if headers:
            self.raw_headers += [
                (n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers.items()
            ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``content`` (Struct, dict, list, or bytes that are JSON already) as a JSON answer."""
    return Answer(content, status, headers)
