"""A call as an endpoint sees it, and what an endpoint is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import starlette.types
from starlette.responses import Response

from libs.common.http.answers import reply
from libs.common.http.auth import authorize, key_missing
from libs.common.http.problems import Refused
from libs.common.keys import Key, Scope

__all__ = ["Call", "Endpoint", "Handler", "reply"]


class Call:
    """One request, its body read, its key checked.

    Attributes
    ----------
    key:
        The key of the caller; None only at endpoints without scope or with ``key_optional``.
    body:
        The whole body, unpacked; empty where the endpoint takes none.
    lines:
        The body is JSON Lines.
    path:
        Parameters of the path.
    request_id:
        As in the answer's ``X-Request-Id``.
    scope:
        The ASGI scope.
    """

    __slots__ = ("_pairs", "body", "key", "lines", "path", "request_id", "scope")

    def __init__(
        self,
        scope: starlette.types.Scope,
        request_id: str,
        path: Mapping[str, str],
        key: Key | None = None,
        body: bytes = b"",
        lines: bool = False,
    ) -> None:
        self.scope = scope
        self.request_id = request_id
        self.path = path
        self.key = key
        self.body = body
        self.lines = lines
        self._pairs: list[tuple[str, str]] | None = None

    @property
    def query(self) -> Mapping[str, str]:
        """The query parameters; of a repeated one the last counts."""
        return dict(self.query_pairs)

    @property
    def query_pairs(self) -> Sequence[tuple[str, str]]:
        """The query parameters in their order, repeated ones too."""
        if self._pairs is None:
            raw: bytes = self.scope["query_string"]
            self._pairs = parse_query(raw) if raw else []
        return self._pairs

    @property
    def source(self) -> str:
        """The key's name: who says so. Empty without a key."""
        return self.key.name if self.key is not None else ""

    def header(self, name: str) -> str | None:
        """A request header by its lower-case name."""
        wanted = name.encode("latin-1")
        for key, value in self.scope["headers"]:
            if key == wanted:
                text: str = value.decode("latin-1")
                return text
        return None

    def require(self, scope: Scope) -> Key:
        """The caller's key where it has ``scope``; raises 401 ``key_missing`` or 403 ``scope_missing``."""
        if self.key is None:
            raise key_missing()
        authorize(self.key, scope, self.header("origin"))
        return self.key


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """Query parameters; raises `Refused` 400 for what is not UTF-8, holds NUL, or too many of them."""
    try:
        text = raw.decode("ascii")
        found = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1_000)
    except ValueError:
        raise Refused(400, "bad_query", "the query cannot be read") from None
    if any("\0" in part for pair in found for part in pair):
        raise Refused(400, "bad_query", "the query holds NUL")
    return found


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """What `HttpApp.endpoint` was told; see there."""

    method: str
    path: str
    handler: Handler
    summary: str
    scope: Scope | None
    key_optional: bool
    takes: Any
    gives: Any
    status: int
    lenient: bool
    limit: int
    import_limit: int
    batch: bool
    always: bool
    beacon: bool = False
    untyped: bool = False
    message: bool = False
    tables: bool = False
    secret: bool = False
    query: Mapping[str, str] = field(default_factory=dict)
