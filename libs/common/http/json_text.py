"""JSON as text: the slow, exact reader behind msgspec, and the quick look that says when it is needed."""

from __future__ import annotations

import json
import re
from typing import Any

from libs.common.errors import Invalid
from libs.common.http.problems import Refused

MAX_NESTING = 512
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_KEEP = b'{}[]"\\'
_DROP = bytes(byte for byte in range(256) if byte not in _KEEP)
_BRACKETS = bytes.maketrans(b"[]", b"{}")
_DIGITS = bytes(ord("0") if chr(byte) in "0123456789" else 32 for byte in range(256))
_LONG_NUMBER = b"0" * 300


class NotJson(Refused):
    """A body that is not JSON: 400. ``item_code`` is what a single line of JSON Lines is refused with."""

    def __init__(self, detail: str, item_code: str = "wrong_type") -> None:
        super().__init__(400, "not_json", detail)
        self.item_code = item_code

    def as_item(self) -> Invalid:
        """The same about one line."""
        return Invalid(self.item_code, f"this line is not JSON: {self.detail}")


def empty_body() -> Refused:
    """The 400 for a body without anything in it."""
    return Refused(400, "empty_body", "the body is empty")


def is_suspicious(data: bytes, levels: int) -> bool:
    """Whether well-formed ``data`` may hold NUL, a number no float can hold, or nest deeper than ``levels``.

    False is certain; True asks for a look at every value. Costs about 1 ns per byte.
    """
    if b"\\u0000" in data:
        return True
    if data.count(b"{") + data.count(b"[") > levels and _nesting_over(data, levels):
        return True
    return len(data) > len(_LONG_NUMBER) and _LONG_NUMBER in data.translate(_DIGITS)


def _nesting_over(data: bytes, levels: int) -> bool:
    brackets = _skeleton(data)
    for _ in range(levels):
        if not brackets:
            return False
        # Trap: one kind of bracket, so that each round takes away exactly one level.
        brackets = brackets.replace(b"{}", b"")
    return bool(brackets)


def _skeleton(data: bytes) -> bytes:
    """The brackets of ``data`` that stand outside of strings, written as braces."""
    shape = data.translate(_BRACKETS, _DROP)
    if b"\\" not in shape:
        shape = shape.replace(b'""', b"")
        # A string that holds a bracket leaves at least one quote: only then is the text taken apart.
        if b'"' not in shape:
            return shape
    data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(data.split(b'"')[::2]).translate(_BRACKETS, _DROP)


def parse_json(data: bytes) -> Any:
    """``data`` as Python values; lone surrogates and infinite numbers come through, for items to be refused.

    Raises `NotJson` for syntax errors, NaN and Infinity, invalid UTF-8, and nesting over 512.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NotJson("invalid UTF-8", "bad_string") from None
    _refuse_nesting(data)
    try:
        return _decoder().decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise NotJson(f"nested more than {MAX_NESTING} levels deep", "too_deep") from None


def _refuse_nesting(data: bytes) -> None:
    if data.count(b"{") + data.count(b"[") <= MAX_NESTING:
        return
    depth = 0
    for byte in _STRING.sub(b"", data).translate(_BRACKETS, _DROP):
        depth += (byte == 0x7B) - (byte == 0x7D)
        if depth > MAX_NESTING:
            raise NotJson(f"nested more than {MAX_NESTING} levels deep", "too_deep")


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_read_int)


def _refuse_constant(name: str) -> float:
    raise NotJson(f"{name} is not JSON", "not_finite")


def _read_int(digits: str) -> int | float:
    # Trap: int() refuses more than 4,300 digits, and takes quadratic time before that.
    return int(digits) if len(digits) <= 308 else float(digits)


def encoded_size(raw: object) -> int:
    """How many bytes ``raw`` takes as JSON without spaces."""
    text = json.dumps(raw, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "surrogatepass"))
