"""Arrays of several decisions in one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_N = TypeVar("_N", bound=np.generic)


def joined(parts: Sequence[NDArray[_N]], axis: int = 0) -> NDArray[_N]:
    """All ``parts``, one after the other; of a single one itself, which must not be written to."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def parted(numbers: NDArray[_N], sizes: Sequence[int]) -> list[NDArray[_N]]:
    """``numbers`` in parts of so many rows, one after the other."""
    if len(sizes) == 1:
        return [numbers]
    ends = list(accumulate(sizes))
    return [numbers[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
