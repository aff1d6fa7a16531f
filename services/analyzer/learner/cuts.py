"""Where what is published is cut into parts: by bytes, because ids may be long and of any script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

PART_BYTES = 128_000
"""Aim for the size of a part; half of what is allowed leaves room for uneven ones."""


def text_bytes(text: str) -> int:
    """Bytes of ``text`` in a record, with the mark before it."""
    return len(text.encode("utf-8", "surrogatepass")) + 5


def cuts(sizes: Iterable[int]) -> Iterator[slice]:
    """Slices of about `PART_BYTES` over rows of ``sizes``, in order; none where there are no rows."""
    begin = end = filled = 0
    for end, size in enumerate(sizes, 1):
        filled += size
        if filled > PART_BYTES and end - 1 > begin:
            yield slice(begin, end - 1)
            begin, filled = end - 1, size
    if end > begin:
        yield slice(begin, end)
