"""Refusals as RFC 9457 problem documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from libs.common.errors import ClosedloopError, FieldError, Invalid, Rejected, Transient
from libs.common.http.answers import Answer

PROBLEM_JSON = b"application/problem+json"
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 500: "internal"}


class Problem(msgspec.Struct, frozen=True):
    """The problem document, for the reference: what every refusal looks like."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError]
    request_id: str


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
        if status in (429, 503):
            self.headers.setdefault("retry-after", "1")


def problem(refused: Refused, request_id: str) -> dict[str, Any]:
    """The problem document of ``refused``, e.g. for an item of a batch of requests."""
    try:
        title = HTTPStatus(refused.status).phrase
    except ValueError:
        title = "Refused"
    return {
        "type": f"urn:closedloop:problem:{refused.code}",
        "title": title,
        "status": refused.status,
        "code": refused.code,
        "detail": refused.detail,
        "errors": refused.errors,
        "request_id": request_id,
        **refused.more,
    }


def problem_response(refused: Refused, request_id: str) -> Response:
    """``refused`` as a response."""
    return Answer(problem(refused, request_id), refused.status, refused.headers, PROBLEM_JSON)


def refusal_of(error: Exception) -> Refused:
    """What the caller hears of ``error``: `Invalid` 422, `Transient` 503, `Refused` itself, all else 500."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Invalid):
        return Refused(422, error.code, f"{error.field or 'the body'}: {error.reason}", error.errors)
    if isinstance(error, Transient):
        seconds = str(max(1, math.ceil(error.retry_after)))
        return Refused(503, error.code, error.reason, headers={"retry-after": seconds})
    if isinstance(error, Rejected):
        return Refused(422, error.code, str(error), [FieldError("", error.code, str(error))])
    if isinstance(error, HTTPException):
        status = error.status_code
        code = _CODES.get(status, f"http_{status}")
        return Refused(status, code, str(error.detail), headers=error.headers)
    return Refused(500, "internal", "something went wrong here; it has been logged under the request id")
