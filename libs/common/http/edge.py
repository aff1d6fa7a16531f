"""The outermost layer: request ids, keys, limits, endpoints, refusals; everything on the hot path is here."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.errors import ClosedloopError
from libs.common.http.admission import Admission
from libs.common.http.auth import authenticate, authorize, key_in_body, key_missing
from libs.common.http.body import ClientGone, content_kind, read_body
from libs.common.http.calls import Call, Endpoint
from libs.common.http.cors import is_preflight, preflight, share
from libs.common.http.problems import Refused, problem_response, refusal_of
from libs.common.http.tables import is_csv, lines_of
from libs.common.keys import Key, KeyRing
from libs.common.keys import Scope as KeyScope

if TYPE_CHECKING:
    from libs.common.http.health import Lifecycle
    from libs.common.telemetry import Counter, Histogram

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")
_PARAMETER = re.compile(r"\{(\w+)\}")
_NO_PATH: Mapping[str, str] = {}


class RequestIds:
    """Ids no two requests share: a random part of this process, and a count."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6)
        self._count = itertools.count(1)

    def next(self) -> str:
        """A new id."""
        return f"{self._prefix}-{next(self._count):x}"


class Table:
    """Endpoints by path and method: a dictionary for fixed paths, patterns for those with parameters."""

    def __init__(self) -> None:
        self._fixed: dict[str, dict[str, Endpoint]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, Endpoint]]] = {}
        self.endpoints: list[Endpoint] = []

    def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint; raises ValueError where there is one already."""
        if "{" in endpoint.path:
            methods = self._patterns.setdefault(endpoint.path, (_pattern(endpoint.path), {}))[1]
        else:
            methods = self._fixed.setdefault(endpoint.path, {})
        if endpoint.method in methods:
            raise ValueError(f"{endpoint.method} {endpoint.path} is there already")
        methods[endpoint.method] = endpoint
        self.endpoints.append(endpoint)

    def find(self, scope: Scope) -> tuple[Mapping[str, Endpoint] | None, Mapping[str, str]]:
        """What is at the path of ``scope``, by method, and the parameters as they stand in it, quoted."""
        methods = self._fixed.get(scope["path"])
        if methods is not None:
            return methods, _NO_PATH
        # Trap: an id may hold a slash; the unquoted path cannot tell it from a separator.
        raw = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
        quoted = raw.decode("latin-1")
        for pattern, found in self._patterns.values():
            if match := pattern.match(quoted):
                return found, match.groupdict()
        return None, _NO_PATH


def _pattern(path: str) -> re.Pattern[str]:
    parts = _PARAMETER.split(path)
    text = "".join(f"(?P<{part}>[^/]+)" if odd % 2 else re.escape(part) for odd, part in enumerate(parts))
    return re.compile(text + r"\Z")


class Edge:
    """ASGI application around the FastAPI one; `Table` endpoints are answered here, the rest goes inside."""

    def __init__(
        self,
        inner: ASGIApp,
        table: Table,
        keys: KeyRing,
        lifecycle: Lifecycle,
        admission: Admission,
        requests: Counter,
        seconds: Histogram,
    ) -> None:
        self._inner = inner
        self._table = table
        self._keys = keys
        self._lifecycle = lifecycle
        self._admission = admission
        self._requests = requests
        self._seconds = seconds
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = self._request_id(headers)
        methods, path = self._table.find(scope)
        if methods is None:
            await self._inside(scope, receive, send, request_id)
            return
        route = "other"
        origin = headers.get(b"origin")
        try:
            if origin is not None and is_preflight(scope["method"], headers):
                response = preflight(self._keys, origin)
            else:
                endpoint = self._method(methods, scope)
                route = endpoint.path
                response = await self._answer(endpoint, scope, receive, headers, request_id, path)
        except ClientGone:
            return
        except Exception as error:
            response = self._refuse(error, request_id, route, next(iter(methods.values())).message)
        if origin is not None:
            share(response, self._keys, origin)
        response.raw_headers.append((b"x-request-id", request_id.encode()))
        await response(scope, receive, send)
        self._requests.add(1, route, str(response.status_code))
        self._seconds.observe(time.perf_counter() - began, route)

    async def _answer(
        self,
        endpoint: Endpoint,
        scope: Scope,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        request_id: str,
        path: Mapping[str, str],
    ) -> Response:
        if not self._lifecycle.serving and not endpoint.always:
            raise Refused(503, "starting", "the service is starting")
        call = Call(scope, request_id, _unquoted(path) if path else path)
        # An import is another matter than the rest of its endpoint: larger, and allowed by another scope.
        importing = endpoint.import_limit > endpoint.limit and call.query.get("mode") == "import"
        wanted = KeyScope.MANAGE if importing else endpoint.scope
        in_body = endpoint.beacon and not importing and b"authorization" not in headers
        if in_body:
            # Trap: before the body, which costs most and may be no JSON that names a key.
            self._admission.admit(None, scope)
        elif not endpoint.always:
            call.key = self._admitted(scope, endpoint, headers)
        if wanted is not None and call.key is not None:
            authorize(call.key, wanted, _origin(headers))
            if endpoint.secret and call.key.publishable:
                raise Refused(403, "scope_missing", f"the scope {wanted.value} of a page does not reach here")
            self._admission.admit_page(call.key)
        if endpoint.takes is not None:
            content_type = headers.get(b"content-type", b"")
            table = endpoint.tables and is_csv(content_type)
            if table:
                call.lines = True
            elif content_type or not endpoint.untyped:
                call.lines = content_kind(content_type, endpoint.lenient, endpoint.batch)
            limit = endpoint.import_limit if importing else endpoint.limit
            call.body = await read_body(
                receive, headers.get(b"content-length"), headers.get(b"content-encoding", b""), limit
            )
            if table:
                call.body = lines_of(call.body, endpoint.takes.type, endpoint.takes.max_items)
        if wanted is not None and in_body:
            call.key = key = key_in_body(self._keys, call.body)
            if not key.publishable:
                self._admission.admit(key, scope)
            authorize(key, wanted, _origin(headers))
            self._admission.admit_page(key)
        return await endpoint.handler(call)

    def _admitted(self, scope: Scope, endpoint: Endpoint, headers: Mapping[bytes, bytes]) -> Key | None:
        """The caller's key, as his headers name it; raises 429 where he sends too much, wrong keys too."""
        try:
            key = self._key(endpoint, headers)
        except Refused:
            self._admission.admit(None, scope)
            raise
        self._admission.admit(key, scope)
        return key

    def _method(self, methods: Mapping[str, Endpoint], scope: Scope) -> Endpoint:
        endpoint = methods.get(scope["method"])
        if endpoint is None and scope["method"] == "HEAD":
            endpoint = methods.get("GET")
        if endpoint is None:
            self._admission.admit(None, scope)
            allowed = ", ".join(sorted(methods))
            raise Refused(405, "method_not_allowed", f"use {allowed} here", headers={"allow": allowed})
        return endpoint

    def _key(self, endpoint: Endpoint, headers: Mapping[bytes, bytes]) -> Key | None:
        if endpoint.scope is None:
            return None
        authorization = headers.get(b"authorization")
        if authorization is not None:
            return authenticate(self._keys, authorization)
        if endpoint.key_optional:
            return None
        raise key_missing()

    def _refuse(self, error: Exception, request_id: str, route: str, message: bool) -> Response:
        refused = refusal_of(error)
        if message:
            refused.more["message"] = refused.detail
        if refused.status >= 500 and not isinstance(error, ClosedloopError):
            _log.error("request failed", exc_info=error, extra={"request_id": request_id, "route": route})
        return problem_response(refused, request_id)

    async def _inside(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        try:
            self._admission.admit(None, scope)
        except Refused as refused:
            response = self._refuse(refused, request_id, "other", False)
            response.raw_headers.append((b"x-request-id", request_id.encode()))
            await response(scope, receive, send)
            self._requests.add(1, "other", str(refused.status))
            return
        scope.setdefault("state", {})["request_id"] = request_id
        status = "0"

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        await self._inner(scope, receive, send_with_id)
        self._requests.add(1, "other", status)

    def _request_id(self, headers: Mapping[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.match(given):
            return given.decode("ascii")
        return self._ids.next()


def _origin(headers: Mapping[bytes, bytes]) -> str | None:
    origin = headers.get(b"origin")
    return origin.decode("latin-1") if origin is not None else None


def _unquoted(path: Mapping[str, str]) -> Mapping[str, str]:
    try:
        plain = {name: unquote(value, errors="strict") for name, value in path.items()}
    except UnicodeDecodeError:
        raise Refused(400, "bad_path", "the path is not UTF-8") from None
    if any("\0" in value for value in plain.values()):
        raise Refused(400, "bad_path", "the path holds NUL")
    return plain
