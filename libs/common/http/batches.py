"""Batches: one object, a list, ``{"<plural>": [...]}`` or JSON Lines; good items go on, bad ones are named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec
from starlette.responses import Response

from libs.common.errors import Invalid
from libs.common.http.problems import Refused

T = TypeVar("T", bound=msgspec.Struct)

MAX_ITEMS = 2_500


class Rejection(msgspec.Struct, frozen=True):
    """An item that was refused, and why."""

    index: int
    id: str | None
    code: str
    field: str
    reason: str


class BatchAnswer(msgspec.Struct, frozen=True):
    """The answer to a batch."""

    accepted: int
    rejected: list[Rejection]
    position: str | None


class Batch(Generic[T]):
    """A batch as it came: ``items`` are (index, well-formed item); ``rejected`` grows by `refuse`.

    ``envelope`` holds the other members of an ``{"<plural>": [...]}`` object.
    """

    items: list[tuple[int, T]]
    rejected: list[Rejection]
    envelope: Mapping[str, Any]

    def refuse(self, index: int, error: Invalid) -> None:
        """Take item ``index`` out of what is accepted."""

    @property
    def accepted(self) -> int:
        """How many items are still good."""
        ...

    def nothing_accepted(self) -> Refused:
        """The 422 for a batch that is empty or all bad: raise it."""
        ...

    def answer(self, position: str | None, status: int = 202, **more: Any) -> Response:
        """``{accepted, rejected, position}`` and ``more``; the 422 where nothing was accepted."""
        ...


class BatchDecoder(Generic[T]):
    """Reads batches of one type of item. Make it once.

    Parameters
    ----------
    type_:
        Struct of an item; fields it does not have are refused (``unknown_field``).
    plural:
        Name of the list in the envelope form.
    id_field:
        What names an item in ``rejected``.
    not_supported:
        Fields of the contract that are not built yet.
    envelope:
        Members allowed beside the list, e.g. ``write_key``.
    """

    def __init__(
        self,
        type_: type[T],
        plural: str,
        *,
        id_field: str = "id",
        not_supported: frozenset[str] = frozenset(),
        envelope: frozenset[str] = frozenset(),
        max_items: int = MAX_ITEMS,
    ) -> None: ...

    def decode(self, data: bytes, *, lines: bool = False) -> Batch[T]:
        """Read a body; raises `Refused` 400 for what is not JSON, 413 for too many items."""
        ...
