"""What the collector's handlers need from outside."""

from __future__ import annotations

from typing import Protocol

from libs.common.intake import Intake
from libs.common.journal import Durability, Journal

__all__ = ["Durability", "Ids", "Intake", "Journal"]


class Ids(Protocol):
    """Names for events that came without one."""

    def __call__(self) -> str:
        """An id nobody has used before."""
        ...
