"""Structs that refuse fields they do not have."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


def strict_variant(type_: type[T]) -> type[T]:
    """``type_`` itself where it forbids unknown fields, else a subclass that does."""
    config = type_.__struct_config__
    if config.forbid_unknown_fields:
        return type_
    made: Any = msgspec.defstruct(
        type_.__name__, [], bases=(type_,), forbid_unknown_fields=True, frozen=config.frozen
    )
    return cast("type[T]", made)
