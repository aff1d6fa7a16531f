"""Items as callers send them: from raw JSON values to checked Structs, every refusal with pointer and code."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

MAX_DEPTH = 16
MAX_ITEM_BYTES = 32_000


def convert_item(raw: object, type_: type[T]) -> T:
    """``raw`` (what a JSON parser gave) as a ``type_``; unknown top-level fields are refused.

    Raises `Invalid` with a JSON pointer and a stable code for the first thing that is wrong.
    """
    ...


def check_values(raw: object) -> None:
    """Refuse what no event may hold: depth over 16, infinite numbers, NUL or lone surrogates in strings."""


def not_supported(raw: dict[str, Any], *fields: str) -> None:
    """Refuse an item that uses a field of the contract that is not built yet."""
