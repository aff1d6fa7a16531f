"""The features in a decision's record as few bytes: most numbers of a vector are 0."""

from __future__ import annotations

from struct import unpack_from

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.customer_event import DecidedOffer, Decision

MOST_COLUMNS = 255
SCALE = 1000.0
MOST = 32.767
"""Numbers are kept to three decimals within ±`MOST`."""
_NUMBER = np.dtype("<i2")


def pack(rows: NDArray[np.float64]) -> list[bytes]:
    """Each row of an array (n, columns) of finite numbers as bytes, to three decimals.

    One byte for the number of columns, one bit for each whether it is not 0, and two bytes for each that
    is not: about 40 for 40 columns of which 15 say something.
    """
    columns = rows.shape[1]
    if columns > MOST_COLUMNS:
        raise ValueError(f"a vector may have {MOST_COLUMNS} columns, not {columns}")
    numbers = np.rint(np.minimum(np.maximum(rows, -MOST), MOST) * SCALE).astype(_NUMBER)
    said = numbers != 0
    head = np.packbits(said, axis=1, bitorder="little")
    ends = (_NUMBER.itemsize * said.sum(axis=1).cumsum()).tolist()
    body = numbers[said].tobytes()
    width = columns.to_bytes(1)
    begins = [0, *ends]
    return [
        width + bits.tobytes() + body[begin:end] for bits, begin, end in zip(head, begins, ends, strict=False)
    ]


def unpack(data: bytes) -> list[float]:
    """The numbers of a packed row; none of no bytes. Raises `ValueError` for what `pack` did not make."""
    if not data:
        return []
    bits, numbers = _parts(data)
    found = [0.0] * data[0]
    for number in numbers:
        lowest = bits & -bits
        found[lowest.bit_length() - 1] = number / SCALE
        bits ^= lowest
    return found


def is_sound(data: bytes) -> bool:
    """Whether `unpack` can read ``data``."""
    try:
        _parts(data or b"\x00")
    except ValueError:
        return False
    return True


def _parts(data: bytes) -> tuple[int, tuple[int, ...]]:
    """Which columns are not 0, as bits, and their thousandths. Without numpy: so few are faster so."""
    body = 1 + (data[0] + 7) // 8
    bits = int.from_bytes(data[1:body], "little") & ((1 << data[0]) - 1)
    said = bits.bit_count()
    if len(data) != body + _NUMBER.itemsize * said:
        raise ValueError("a vector with too many or too few numbers")
    return bits, unpack_from(f"<{said}h", data, body)


def trial_vector(decision: Decision, offer: DecidedOffer) -> list[float]:
    """What was known of ``offer`` when it was chosen: its own features, then those shared by all.

    Empty where the record had no room for them. Raises `ValueError` for bytes that are no vector.
    """
    if not offer.vector:
        return list(offer.features)
    return unpack(offer.vector) + unpack(decision.shared)
