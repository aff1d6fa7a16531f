"""Words in ``flags`` of an event: why it is kept and not learned from."""

from __future__ import annotations

from collections.abc import Iterable

UNVERIFIED = "unverified"
GPC = "gpc"
AUTOMATIC = "automatic:"
"""What follows is the reason: no person did it."""


def is_automatic(flags: Iterable[str]) -> bool:
    """Whether a machine did it."""
    return any(flag.startswith(AUTOMATIC) for flag in flags)
