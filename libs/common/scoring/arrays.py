"""Arrays of several decisions in one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_N = TypeVar("_N", bound=np.generic)


def parted(numbers: NDArray[_N], sizes: Iterable[int]) -> list[NDArray[_N]]:
    """``numbers`` in parts of so many rows, one after the other."""
    ends = list(accumulate(sizes))
    return [numbers[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
