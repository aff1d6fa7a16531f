"""Items as callers send them: from raw JSON values to checked Structs, refusals with pointer and code."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

import msgspec

from libs.common.errors import Invalid

T = TypeVar("T", bound=msgspec.Struct)

MAX_DEPTH = 16
MAX_ITEM_BYTES = 32_768
_SHOWN = 64

_MISSING = re.compile(r"Object missing required field `(.+?)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.+?)`")
_PATH = re.compile(r" - at `(?:key in )?\$(.*)`\Z", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_EXPECTED = re.compile(r"Expected `([^`]+)`(.*)\Z", re.DOTALL)
_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a finite number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


def convert_item(
    raw: object, type_: type[T], not_supported: frozenset[str] = frozenset(), *, loose: bool = False
) -> T:
    """``raw`` (what a JSON parser gave) as a ``type_``; unknown fields are refused unless ``loose``.

    Raises `Invalid` with a JSON pointer and a stable code for the first thing that is wrong.
    """
    if not isinstance(raw, dict):
        raise Invalid("wrong_type", "must be an object")
    check_values(raw)
    if not loose:
        refuse_unknown(raw, known_fields(type_), not_supported)
    try:
        return msgspec.convert(raw, type_)
    except msgspec.ValidationError as error:
        raise invalid_from(error, type_) from None
    except OverflowError:
        raise Invalid("not_finite", "holds a number that is too large") from None


def known_fields(type_: type[msgspec.Struct]) -> frozenset[str]:
    """The names ``type_`` reads, its tag included."""
    names = set(type_.__struct_encode_fields__)
    if type_.__struct_config__.tag_field:
        names.add(type_.__struct_config__.tag_field)
    return frozenset(names)


def refuse_unknown(raw: Iterable[str], known: frozenset[str], not_supported: frozenset[str]) -> None:
    """Raise `Invalid` for the first field that is not ``known``: ``not_supported`` or ``unknown_field``."""
    for name in raw:
        if name in known:
            continue
        shown = printable(name)
        if name in not_supported:
            raise Invalid("not_supported", f"{shown} is not supported yet", pointer(name))
        near = get_close_matches(shown.lower(), sorted(known | not_supported), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known fields are {', '.join(sorted(known))}"
        raise Invalid("unknown_field", f"unknown field {shown}; {hint}", pointer(name))


def check_values(raw: object) -> None:
    """Refuse what no event may hold: depth over 16, infinite numbers, NUL or lone surrogates in strings."""
    _check(raw, (), 1)


def _check(value: object, path: tuple[str | int, ...], depth: int) -> None:
    if isinstance(value, str):
        if not is_clean(value):
            raise Invalid("bad_string", "must not hold NUL or half a surrogate pair", pointer(*path))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid("not_finite", f"{_leaf(path)} must be a finite number", pointer(*path))
    elif isinstance(value, int):
        if value.bit_length() > 1_023:
            raise Invalid("not_finite", f"{_leaf(path)} must be a finite number", pointer(*path))
    elif isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise Invalid("too_deep", f"nested more than {MAX_DEPTH} levels deep", pointer(*path[:2]))
        if isinstance(value, list):
            for index, item in enumerate(value):
                _check(item, (*path, index), depth + 1)
            return
        for name, item in value.items():
            if not is_clean(name):
                raise Invalid("bad_string", "a name holds NUL or half a surrogate pair", pointer(*path))
            _check(item, (*path, name), depth + 1)


def is_clean(text: str) -> bool:
    """Whether ``text`` holds neither NUL nor a lone surrogate."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """``text`` cut and cleaned so that it can be shown in an answer."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return cut.encode("utf-8", "replace").decode().replace("\0", "?")


def pointer(*steps: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + printable(str(step)).replace("~", "~0").replace("/", "~1") for step in steps)


def invalid_from(error: msgspec.ValidationError, type_: Any = None) -> Invalid:
    """What msgspec found wrong, in the words of the external contract."""
    text = str(error)
    steps: tuple[str | int, ...] = ()
    if found := _PATH.search(text):
        steps = tuple(
            name or ("*" if index == "..." else int(index)) for name, index in _STEP.findall(found[1])
        )
        text = text[: found.start()]
    if match := _MISSING.match(text):
        return Invalid("missing", f"{match[1]} is required", pointer(*steps, match[1]))
    if match := _UNKNOWN.match(text):
        return Invalid("unknown_field", f"unknown field {printable(match[1])}", pointer(*steps, match[1]))
    leaf = _leaf(steps)
    if text.startswith("Invalid RFC3339"):
        reason = f"{leaf} must be an RFC 3339 time, e.g. 2025-03-01T12:00:00Z"
        return Invalid("bad_time", reason, pointer(*steps))
    if "out of range" in text:
        return Invalid("not_finite", f"{leaf} must be a finite number", pointer(*steps))
    if match := _EXPECTED.match(text):
        return Invalid(
            _code_of(match[1], match[2]), f"{leaf} must be {_wanted(match[1], match[2])}", pointer(*steps)
        )
    # What is left quotes the caller's value (enums): say what is allowed instead.
    allowed = _allowed(type_, steps)
    known = f"one of {', '.join(map(str, allowed))}" if allowed else "one of the known values"
    return Invalid("wrong_type", f"{leaf} must be {known}", pointer(*steps))


def _code_of(types: str, rest: str) -> str:
    """The code for what msgspec expected: ``types``, and the ``rest`` of its sentence."""
    if "of length <=" in rest:
        return "too_large"
    if "float" in types and rest.lstrip().startswith(("<", ">")):
        return "not_finite"
    return "wrong_type"


def _wanted(types: str, rest: str) -> str:
    wanted = " or ".join(_WORDS.get(name, name) for name in types.split(" | "))
    got = re.search(r", got `(\w+)`", rest)
    if got:
        return f"{wanted}, not {_WORDS.get(got[1], got[1])}"
    return wanted + re.sub(r"\.0\b", "", rest)


def _allowed(type_: Any, steps: tuple[str | int, ...]) -> tuple[Any, ...]:
    """The words of a Literal at a top-level field, where that is what ``steps`` points to."""
    if type_ is None or not steps:
        return ()
    for field in msgspec.structs.fields(type_):
        if field.encode_name == steps[0]:
            return tuple(arg for arg in _flatten(field.type) if isinstance(arg, str))
    return ()


def _flatten(type_: Any) -> list[Any]:
    args = get_args(type_)
    if not args:
        return [type_]
    return [leaf for arg in args for leaf in _flatten(arg)]


def _leaf(path: tuple[str | int, ...]) -> str:
    names = [step for step in path if isinstance(step, str)]
    return printable(names[-1]) if names else "the value"
