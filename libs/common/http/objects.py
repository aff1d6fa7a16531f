"""Bodies that are one object: wrong is 422 with ``errors``, not JSON is 400."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from libs.common.errors import Invalid
from libs.common.http.json_text import empty_body, encoded_size, is_suspicious, parse_json
from libs.common.http.strict import strict_variant
from libs.common.items import MAX_DEPTH, MAX_ITEM_BYTES, convert_item

T = TypeVar("T", bound=msgspec.Struct)


class ObjectDecoder(Generic[T]):
    """Reads bodies of one type. Make it once. Unknown top-level fields are refused."""

    def __init__(
        self, type_: type[T], *, not_supported: frozenset[str] = frozenset(), max_bytes: int = MAX_ITEM_BYTES
    ) -> None:
        self.type = type_
        self._not_supported = not_supported
        self._max_bytes = max_bytes
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(strict_variant(type_))

    def decode(self, data: bytes) -> T:
        """Read a body; raises `Refused` 400 for what is not JSON, `Invalid` (422) for what is wrong."""
        if not data or data.isspace():
            raise empty_body()
        if len(data) <= self._max_bytes:
            try:
                value = self._decoder.decode(data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if not is_suspicious(data, MAX_DEPTH):
                    return value
        raw = parse_json(data)
        if len(data) > self._max_bytes and encoded_size(raw) > self._max_bytes:
            raise Invalid("too_large", f"the object may have {self._max_bytes} bytes")
        return convert_item(raw, self.type, self._not_supported)
