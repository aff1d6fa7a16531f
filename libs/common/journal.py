"""The journal as services see it: append events, know where they stand, wait until that is durable."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from libs.common.bus.ports import Message
from libs.common.contracts.customer_event import CustomerEvent
from libs.common.contracts.topics import HEADER_SEQ, HEADER_SPOOL
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


class LocalRow(NamedTuple):
    """A row of the local lane: not for the bus, drained by the service itself into its own store."""

    spool: str
    number: int
    key: str
    body: bytes


class LocalJournal(Journal, Protocol):
    """A journal with a local lane: what must be as durable as its event, but is nobody else's business."""

    def append(self, events: Sequence[CustomerEvent], local: Sequence[tuple[str, bytes]] = ()) -> Position:
        """As `Journal.append`; the ``local`` rows (key, body) go into the same spool transaction."""
        ...

    async def local_rows(self, limit: int) -> Sequence[LocalRow]:
        """The oldest committed local rows not acknowledged yet, at most ``limit``."""
        ...

    async def release_local(self, rows: Sequence[LocalRow]) -> None:
        """Forget ``rows`` and all older ones of their spools: they lie safely elsewhere."""
        ...

    async def find_local(self, key: str) -> bytes | None:
        """The newest local row under ``key`` that is still here, uncommitted ones included."""
        ...


class Origin(NamedTuple):
    """Where a journal record was born."""

    spool: str
    seq: int


def origin_of(message: Message) -> Origin | None:
    """The spool and sequence number in the headers (both ASCII text); None where they are missing or bad."""
    spool, seq = message.header(HEADER_SPOOL), message.header(HEADER_SEQ)
    if spool is None or seq is None or not seq.isdigit() or len(seq) > 18:
        return None
    return Origin(spool.decode("ascii", "replace"), int(seq))
