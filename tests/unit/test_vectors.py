"""Vectors of features in a decision's record: small, exact to three decimals, and never anything else."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from libs.common.contracts.customer_event import DecidedOffer, Decision, decode_event, encode_event
from libs.common.contracts.vectors import MOST, MOST_COLUMNS, SCALE, pack, trial_vector, unpack
from libs.common.scoring.trial import DECIMALS, LIMIT

numbers = st.one_of(st.just(0.0), st.integers(-32_767, 32_767).map(lambda thousandths: thousandths / 1000))


@given(arrays(np.float64, st.tuples(st.integers(0, 5), st.integers(0, MOST_COLUMNS)), elements=numbers))
def test_packed_rows_come_back_as_they_were(rows: np.ndarray) -> None:
    assert [unpack(data) for data in pack(rows)] == rows.tolist()


def test_what_says_nothing_takes_no_room() -> None:
    row = np.zeros((1, 40))
    row[0, ::3] = 0.1
    (data,) = pack(row)
    assert len(data) == 1 + 5 + 14 * 2
    assert unpack(data)[3] == 0.1


def test_what_a_trial_is_scored_with_is_what_is_recorded() -> None:
    assert (10.0**DECIMALS, LIMIT < MOST) == (SCALE, True)


def test_numbers_are_bounded_and_rounded_to_three_decimals() -> None:
    assert unpack(pack(np.array([[1e300, -1e9, 0.1234, 0.0004]]))[0]) == [32.767, -32.767, 0.123, 0.0]


@pytest.mark.parametrize("data", [b"\x09\x01", b"\x01\x01", b"\x01\x00\0\0", b"\x01\x01\x00"])
def test_what_is_no_vector_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="a vector with"):
        unpack(data)


def test_a_row_that_is_too_wide_is_refused() -> None:
    with pytest.raises(ValueError, match="255 columns"):
        pack(np.zeros((1, 256)))


def test_vector_of_a_trial_is_its_own_features_and_the_shared_ones() -> None:
    own, shared = pack(np.array([[1.0, 0.0]]))[0], pack(np.array([[0.5]]))[0]
    offer = DecidedOffer(
        offer_id="o", product_id=None, kind="content", rank=1, score=0.0, propensity=1.0, mean=0.0,
        source="authored", vector=own,
    )  # fmt: skip
    decision = Decision(
        id="d", source="recommender", customer="c", occurred_at=1, recorded_at=1, placement="p",
        channel="web",
        group="treatment", policy_version="v", model_version=1, catalogue_version=1, seed=1,
        objective="value",
        offers=(offer,), shared=shared,
    )  # fmt: skip
    read = decode_event(encode_event(decision))
    assert isinstance(read, Decision)
    assert trial_vector(read, read.offers[0]) == [1.0, 0.0, 0.5]
    bare = msgspec.structs.replace(offer, vector=b"")
    assert trial_vector(read, bare) == []
    assert trial_vector(read, msgspec.structs.replace(bare, features=(3.0,))) == [3.0]
