"""The site tag: one script, served as it stands in `closedloop.js`, its comments left out."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files

from starlette.responses import Response

from libs.common.http.calls import Call
from libs.common.http.factory import HttpApp

PATH = "/closedloop.js"
FILE = "closedloop.js"
HEADER = "// closedloop site tag: how to use it, and its source with comments, is in docs/integrate.md\n"
_HEADERS = {
    "content-type": "text/javascript; charset=utf-8",
    # An hour of an old tag is harmless; after it one small question tells whether it is still the same.
    "cache-control": "public, max-age=3600, stale-while-revalidate=86400",
    "vary": "accept-encoding",
    # Any page may load it, also one that asks for CORS, isolation or integrity; it holds no secret.
    "access-control-allow-origin": "*",
    "cross-origin-resource-policy": "cross-origin",
    "x-content-type-options": "nosniff",
}


def add_tag(app: HttpApp) -> None:
    """``GET /closedloop.js``: small, cached, the same for everybody."""
    plain = script().encode()
    packed = gzip.compress(plain, 9, mtime=0)
    headers = _HEADERS | {"etag": f'W/"{hashlib.sha256(plain).hexdigest()[:32]}"'}

    async def get(call: Call) -> Response:
        if headers["etag"] in (call.header("if-none-match") or ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in (call.header("accept-encoding") or ""):
            return Response(packed, headers=headers | {"content-encoding": "gzip"})
        return Response(plain, headers=headers)

    app.endpoint("GET", PATH, get, summary="The site tag, a script for web pages", always=True)


def script() -> str:
    """The script that pages load: lines that are nothing but comment stay here."""
    source = files(__package__).joinpath(FILE).read_text("utf-8")
    return HEADER + "".join(
        line for line in source.splitlines(keepends=True) if not line.lstrip().startswith("//")
    )
