"""Arrays as they stand in checkpoints: doubles, little endian, the same bytes on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def packed(array: NDArray[np.float64]) -> bytes:
    """The numbers of ``array``, row by row."""
    return array.astype("<f8").tobytes()


def unpacked(data: bytes) -> NDArray[np.float64]:
    """A flat array that may be written to."""
    return np.frombuffer(data, "<f8").astype(np.float64)
