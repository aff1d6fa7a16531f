"""Items and times: the checks behind every body, where they are easiest to get wrong."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from libs.common.errors import Invalid
from libs.common.http.json_text import MAX_NESTING, NotJson, is_suspicious, parse_json
from libs.common.items import convert_item
from libs.common.times import format_time, parse_time

texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["{", "}", "[[[", "]", '"', "\\", '\\"', "\\\\", '"}"', "\\u0000", "\0", "1" * 400]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=25,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def holds_nul(value: object) -> bool:
    if isinstance(value, dict):
        return any(holds_nul(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(map(holds_nul, value))
    return isinstance(value, str) and "\0" in value


@given(values, st.integers(0, 5), st.booleans())
def test_quick_look_never_misses_depth_or_nul(value: object, levels: int, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    if depth(value) > levels or holds_nul(value):
        assert is_suspicious(data, levels)


@pytest.mark.parametrize("escape", ["", "\\n"])
def test_quick_look_is_not_fooled_by_brackets_in_strings(escape: str) -> None:
    hidden: object = 1
    for _ in range(20):
        hidden = {"x": "}" + escape, "y": hidden, "z": escape + "{"}
    assert is_suspicious(json.dumps(hidden).encode(), 16)
    assert not is_suspicious(json.dumps([{"x": "{[{" + escape, "y": "}"}] * 30).encode(), 16)


@given(values)
def test_slow_reader_agrees_with_msgspec_on_good_json(value: object) -> None:
    data = json.dumps(value).encode()
    assert parse_json(data) == msgspec.json.decode(data)


@given(st.text(alphabet='{}[]",:\\u0d81aeINt -.\n', max_size=30))
def test_slow_reader_takes_whatever_msgspec_takes(text: str) -> None:
    data = text.encode()
    try:
        quick = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert parse_json(data) == quick


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_is_refused_over_its_limit_only(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    inner = "[]" if opening == "[" else "{}"
    fits = opening * (MAX_NESTING - 1) + inner + closing * (MAX_NESTING - 1)
    parse_json(fits.encode())
    with pytest.raises(NotJson):
        parse_json((opening + fits + closing).encode())


class Part(Struct, frozen=True):
    """Part of a whole."""

    price: Annotated[float, Meta(ge=0)]


class Whole(Struct, frozen=True, kw_only=True, tag="whole"):
    """What is converted here. Does not forbid unknown fields by itself."""

    name: Annotated[str, Meta(min_length=1, max_length=4)]
    parts: Annotated[list[Part], Meta(max_length=2)] = []
    word: Literal["one", "two"] | None = None
    by_name: dict[str, Part] = {}


def refusal(raw: Any) -> tuple[str, str, str]:
    with pytest.raises(Invalid) as caught:
        convert_item(raw, Whole)
    return caught.value.code, caught.value.field, caught.value.reason


@pytest.mark.parametrize(
    ("raw", "code", "field", "reason"),
    [
        ({}, "missing", "/name", "name is required"),
        ({"name": ""}, "wrong_type", "/name", "name must be a string of length >= 1"),
        ({"name": "aaaaa"}, "too_large", "/name", "name must be a string of length <= 4"),
        ({"name": "a", "parts": [{"price": -1}]}, "not_finite", "/parts/0/price",
         "price must be a finite number >= 0"),
        ({"name": "a", "parts": [{"price": 1}] * 3}, "too_large", "/parts",
         "parts must be a list of length <= 2"),
        ({"name": "a", "word": "three"}, "wrong_type", "/word", "word must be one of one, two"),
        ({"name": "a", "by_name": {"x/y": {}}}, "missing", "/by_name/*/price", "price is required"),
        ({"name": "a", "a~/b": math.inf}, "not_finite", "/a~0~1b", "a~/b must be a finite number"),
        ({"name": "a", "zzzz": 1}, "unknown_field", "/zzzz", None),
        ([], "wrong_type", "", "must be an object"),
    ],
)  # fmt: skip
def test_refusal_says_where_what_and_why(raw: Any, code: str, field: str, reason: str | None) -> None:
    said = refusal(raw)
    assert said[:2] == (code, field)
    assert reason is None or said[2] == reason


def test_tag_of_a_struct_is_a_known_field() -> None:
    assert convert_item({"type": "whole", "name": "a"}, Whole).name == "a"


def test_refusal_never_quotes_a_value() -> None:
    for raw in ({"name": "a", "word": "hush-hush"}, {"name": ["hush-hush"]}, {"name": "hush-hush"}):
        assert "hush" not in "".join(refusal(raw))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-03-01", "2025-03-01T00:00:00.000Z"),
        ("2025-03-01T12:30", "2025-03-01T12:30:00.000Z"),
        ("2025-03-01t12:30:01z", "2025-03-01T12:30:01.000Z"),
        ("2025-03-01 12:30:01.5+02:00", "2025-03-01T10:30:01.500Z"),
        ("20250301T123001Z", "2025-03-01T12:30:01.000Z"),
        ("2025-03-01T12:30:01.123456789-00:30", "2025-03-01T13:00:01.123Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_time_is_read_as_utc(text: str, expected: str) -> None:
    assert format_time(parse_time(text, "/at")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2025", "2025-13-01", "2025-02-30", "2025-03-01T25:00", "2025-03-01T12:00:60Z",
        "0000-01-01", "10000-01-01", "-0001-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00",
        "2025-03-01x12:00", "1740830400", "2025-03-01T12:00:00+99:00", "2025-03-01T",
        "٢٠٢٥-01-01", "2" * 5000,
        "2025-03-01\n", "2025-03-01T12:00Zjunk",
    ],
)  # fmt: skip
def test_time_that_cannot_be_read_is_bad_time(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_time(text, "/at")
    assert (caught.value.code, caught.value.field) == ("bad_time", "/at")


@given(st.datetimes(timezones=st.just(UTC)))
def test_time_comes_back_to_the_millisecond(moment: datetime) -> None:
    at = parse_time(moment.isoformat(), "/at")
    assert parse_time(format_time(at), "/at") == at
    assert format_time(at)[:19] == moment.isoformat()[:19]
