"""Bodies that are one object: wrong is 422 with ``errors``, not JSON is 400."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class ObjectDecoder(Generic[T]):
    """Reads bodies of one type. Make it once. Unknown top-level fields are refused."""

    def __init__(
        self, type_: type[T], *, not_supported: frozenset[str] = frozenset(), max_bytes: int = 32_000
    ) -> None: ...

    def decode(self, data: bytes) -> T:
        """Read a body; raises `Refused` 400 for what is not JSON, `Invalid` (422) for what is wrong."""
        ...
