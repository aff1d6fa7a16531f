"""Calls from web pages of other origins: whom browsers may let read answers, and what preflights are told."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from libs.common.http.problems import Refused
from libs.common.keys import KeyRing

_ALLOW = b"access-control-allow-origin"
_VARY = (b"vary", b"origin")
_EXPOSE = (b"access-control-expose-headers", b"retry-after, x-request-id")
_ALLOWED = {
    "access-control-allow-methods": "GET, POST, OPTIONS",
    "access-control-allow-headers": "authorization, content-type, traceparent, x-retry-count",
    # As long as browsers keep it at all. A key that is revoked is found out by the call itself.
    "access-control-max-age": "7200",
}


def is_preflight(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks what it may ask; everything else is a call of its own."""
    return method == "OPTIONS" and b"access-control-request-method" in headers


def preflight(keys: KeyRing, origin: bytes) -> Response:
    """The answer to a preflight, which never carries a key: yes where ``origin`` has a publishable key.

    Raises 403 ``origin_forbidden`` where it has none.
    """
    if not keys.admits(origin.decode("latin-1")):
        raise Refused(403, "origin_forbidden", "no publishable key may be used from this origin")
    return Response(status_code=204, headers=_ALLOWED)


def share(response: Response, keys: KeyRing, origin: bytes) -> None:
    """Let pages of ``origin`` read ``response``, refusals too, where a publishable key is bound to it.

    Never with credentials: cookies play no part here, a key is all a caller has.
    """
    if keys.admits(origin.decode("latin-1")) and all(name != _ALLOW for name, _ in response.raw_headers):
        response.raw_headers += [(_ALLOW, origin), _EXPOSE, _VARY]
