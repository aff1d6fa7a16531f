"""Bodies: read within limits, unpacked within limits, of a content type that is JSON."""

from __future__ import annotations

import zlib
from functools import lru_cache

from starlette.types import Receive

from libs.common.http.problems import Refused

MISSING = b""
MAX_MEMBERS = 64
"""Members of a gzip body. Each costs a copy of all that comes after it, and an empty one has 20 bytes."""
_LINES = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)
_LENIENT = frozenset({"text/plain", "application/x-www-form-urlencoded", ""})


class ClientGone(Exception):
    """The caller hung up before his request was complete; there is nobody to answer."""


@lru_cache(maxsize=256)
def content_kind(content_type: bytes, lenient: bool, lines_allowed: bool) -> bool:
    """Whether a body of this Content-Type is JSON Lines (True) or JSON; raises 415 for all else."""
    media, *parameters = content_type.decode("latin-1").lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip("\"'") not in ("utf-8", "utf8"):
            raise Refused(415, "charset", "bodies must be UTF-8")
    kind = media.strip()
    if kind in _LINES and lines_allowed:
        return True
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return False
    if lenient and kind in _LENIENT:
        return False
    wanted = "application/json or application/x-ndjson" if lines_allowed else "application/json"
    raise Refused(415, "content_type", f"Content-Type must be {wanted}")


def too_large(limit: int) -> Refused:
    """The 413 for a body over ``limit`` bytes."""
    return Refused(413, "body_too_large", f"the body is larger than {limit} bytes")


async def read_body(receive: Receive, length: bytes | None, encoding: bytes, limit: int) -> bytes:
    """The whole body, unpacked; raises `Refused` 413, 415 or 400, `ClientGone` when the caller hangs up."""
    packing = encoding.strip().lower()
    if packing not in (b"", b"identity", b"gzip", b"x-gzip"):
        raise Refused(415, "content_encoding", "Content-Encoding must be gzip or identity")
    if length is not None and length.isdigit() and int(length) > limit:
        raise too_large(limit)
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    data: bytes = message.get("body", b"")
    if message.get("more_body", False):
        data = await _rest(receive, data, limit)
    if len(data) > limit:
        raise too_large(limit)
    return gunzip(data, limit) if packing in (b"gzip", b"x-gzip") else data


async def _rest(receive: Receive, first: bytes, limit: int) -> bytes:
    parts, size = [first], len(first)
    more = True
    while more:
        if size > limit:
            raise too_large(limit)
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def gunzip(data: bytes, limit: int) -> bytes:
    """Unpack gzip of up to `MAX_MEMBERS`, never more than ``limit`` bytes; raises `Refused` 400 or 413."""
    parts: list[bytes] = []
    room = limit
    rest = data
    try:
        for _ in range(MAX_MEMBERS):
            unpacker = zlib.decompressobj(wbits=31)
            # Trap: max_length 0 means no limit; one byte more than fits tells a full body from a bomb.
            part = unpacker.decompress(rest, room + 1)
            parts.append(part)
            room -= len(part)
            if room < 0:
                raise too_large(limit)
            if not unpacker.eof:
                raise Refused(400, "bad_gzip", "the gzip body is broken or cut short")
            rest = unpacker.unused_data.lstrip(b"\0")
            if not rest:
                return b"".join(parts)
    except zlib.error:
        raise Refused(400, "bad_gzip", "the gzip body is broken or cut short") from None
    raise Refused(400, "bad_gzip", f"a gzip body may have {MAX_MEMBERS} members")
