"""What can go wrong, by fate: the type of an exception decides what happens to the record or request."""

from __future__ import annotations

from dataclasses import dataclass


class ClosedloopError(Exception):
    """Everything this project raises on purpose."""


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong with one field.

    Parameters
    ----------
    field:
        JSON pointer into the item, e.g. ``/products/3/price``; empty for the item as a whole.
    code:
        One of the stable codes of the external contract, e.g. ``not_finite``.
    reason:
        A sentence a person can act on, e.g. ``price must be a finite number >= 0``.
    """

    field: str
    code: str
    reason: str


class Invalid(ClosedloopError):
    """The record or item can never be processed as it is: dead letter on the bus, refused over HTTP."""

    def __init__(self, code: str, reason: str, field: str = "", *more: FieldError) -> None:
        super().__init__(f"{field or 'item'}: {reason} ({code})")
        self.errors: tuple[FieldError, ...] = (FieldError(field, code, reason), *more)

    @property
    def code(self) -> str:
        return self.errors[0].code

    @property
    def field(self) -> str:
        return self.errors[0].field

    @property
    def reason(self) -> str:
        return self.errors[0].reason


class Rejected(ClosedloopError):
    """A rule of ours says no to a well-formed record: it is counted under ``code`` and work goes on."""

    def __init__(self, code: str, reason: str = "") -> None:
        super().__init__(reason or code)
        self.code = code


class Transient(ClosedloopError):
    """It may work later: pause and retry with backoff on the bus, 503 with Retry-After over HTTP."""

    code = "unavailable"

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class SpoolFull(Transient):
    """The spool has reached its quota, or its disk has too little room left: nothing of this was taken."""

    code = "spool_full"

    def __init__(self, reason: str) -> None:
        super().__init__(reason, retry_after=5.0)


class Fenced(ClosedloopError):
    """Another process owns this partition or role now: drop everything in hand and claim anew."""


class Misconfigured(ClosedloopError):
    """The installation cannot work as set up; the message is one line that says what to do."""
