"""The journal as services see it: append events, know where they stand, wait until that is durable."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from libs.common.contracts.customer_event import CustomerEvent
from libs.common.position import Position


class Durability(StrEnum):
    """How safe an event is before its sender hears 202."""

    SPOOL = "spool"
    """Fsynced in this service's spool."""
    BUS = "bus"
    """Acknowledged by Kafka."""


class Journal(Protocol):
    """Where a service publishes what happened, in one order per customer."""

    def append(self, events: Sequence[CustomerEvent]) -> Position:
        """Put ``events`` in line, all in one spool transaction.

        Never waits. The partition follows from each event's key. Returns the position of the spool's
        head afterwards, so it covers these events and all that were accepted before. Raises `Transient`
        when the spool takes no more (full disk, quota, stopping).
        """
        ...

    async def durable(self, position: Position, level: Durability) -> Durability:
        """Wait until ``position`` is as durable as ``level`` asks; return the level that was reached.

        Raises `Transient` where even the spool could not take it. A bus that does not answer in time
        (2 s) is no error: the answer is then `Durability.SPOOL`.
        """
        ...
