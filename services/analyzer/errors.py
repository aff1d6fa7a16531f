"""What can go wrong in the analyzer only."""

from __future__ import annotations

from libs.common.errors import ClosedloopError


class TooManyDeadLetters(ClosedloopError):
    """So many of the latest records could not be processed that something else must be wrong: consuming
    stops before the whole topic lies among the dead letters."""


class UnknownCustomer(ClosedloopError):
    """Nothing was ever heard of this customer."""


class UnknownErasure(ClosedloopError):
    """No erasure with this id has been applied."""
