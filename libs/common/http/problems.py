"""Refusals as RFC 9457 problem documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from libs.common.errors import ClosedloopError, FieldError, Invalid


class Refused(ClosedloopError):
    """A request is refused: becomes a problem document with this status.

    ``more`` are further members of the document; ``headers`` of the response. 429 and 503 get Retry-After.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.more = dict(more or {})


def problem(refused: Refused, request_id: str) -> dict[str, Any]:
    """The problem document of ``refused``, e.g. for an item of a batch of requests."""
    ...


def refusal_of(error: Exception) -> Refused:
    """What the caller hears of ``error``: `Invalid` 422, `Transient` 503, `Refused` itself, all else 500."""
    ...
