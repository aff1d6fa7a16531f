"""Positions and origins: what travels is read back, what was never given out is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.bus.ports import Message
from libs.common.errors import Invalid
from libs.common.journal import Origin, origin_of
from libs.common.position import Position

heads = st.dictionaries(st.integers(0, 11), st.integers(1, 2**53), max_size=12)


@given(heads)
def test_position_survives_its_text_form(where: dict[int, int]) -> None:
    position = Position("00ff00ff00ff00ff", where)
    assert Position.decode(position.encode()) == position
    assert position.covered_by(where)


@given(st.text(max_size=60))
def test_text_nobody_gave_out_is_refused_as_invalid(text: str) -> None:
    wrong = None
    try:
        position = Position.decode(text)
    except Invalid as error:
        wrong = error
    if wrong is None:
        assert position.encode() == text
    else:
        assert (wrong.code, wrong.field) == ("wrong_type", "/after")


@pytest.mark.parametrize(
    "raw", ["zz", "00ff00ff.1", "00ff00ff.1-2-3", "00ff00ff.1-2.1-2", "00ff00ff.01-2", "", "00FF00FF.1-1"]
)
def test_wrong_inside_of_a_position_is_refused(raw: str) -> None:
    with pytest.raises(Invalid):
        Position.decode(base64.urlsafe_b64encode(raw.encode()).rstrip(b"=").decode())


def test_position_is_covered_when_all_asked_partitions_are() -> None:
    position = Position("00ff00ff", {1: 5, 2: 7})
    assert position.covered_by({1: 5, 2: 8})
    assert not position.covered_by({1: 5})
    assert position.covered_by({1: 5}, frozenset({1, 3}))
    assert not position.covered_by({1: 4}, frozenset({1}))


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ((("spool", b"ab"), ("seq", b"12")), Origin("ab", 12)),
        ((("spool", b"ab"),), None),
        ((("seq", b"12"),), None),
        ((("spool", b"ab"), ("seq", b"-1")), None),
        ((("spool", b"ab"), ("seq", b"9" * 5_000)), None),
    ],
)
def test_origin_is_read_or_missing(headers: tuple[tuple[str, bytes], ...], origin: Origin | None) -> None:
    assert origin_of(Message("t", 0, 0, b"k", b"v", headers, 0)) == origin
