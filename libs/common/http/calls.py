"""A call as an endpoint sees it, and the answers it gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import Response

from libs.common.keys import Key, Scope


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
    """

    __slots__ = ("body", "key", "lines", "path", "request_id", "scope")

    body: bytes
    key: Key | None
    lines: bool
    path: Mapping[str, str]
    request_id: str

    @property
    def query(self) -> Mapping[str, str]:
        """The query parameters; of a repeated one the last counts."""
        ...

    @property
    def source(self) -> str:
        """The key's name: who says so. Empty without a key."""
        ...

    def header(self, name: str) -> str | None:
        """A request header by its lower-case name."""
        ...

    def require(self, scope: Scope) -> Key:
        """The caller's key where it has ``scope``; raises 401 ``key_missing`` or 403 ``scope_missing``."""
        ...


Handler = Callable[[Call], Awaitable[Response]]


def reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``content`` (Struct, dict, list) as JSON."""
    ...
