"""Erasures as values: what goes, what is remembered of it, and who else must be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey


class Notice(NamedTuple):
    """To be told to ``target``, in whatever partition: ``linked`` is erased, nothing there may name it.

    ``owned``: the target was linked to it, and goes too where it is nobody else's. ``mark`` is a keyed hash
    of both, under which the target's partition says that it is done; ``recorded_at`` is the erasure's.
    """

    partition: int
    erasure: str
    mark: bytes
    target: CustomerKey
    linked: CustomerKey
    owned: bool
    recorded_at: Millis


class EventRow(NamedTuple):
    """A stored event that goes, or stays with another ``body``."""

    recorded_at: Millis
    number: int
    body: bytes = b""


@dataclass(frozen=True)
class Erased:
    """What an erasure takes out of one partition, and what is remembered of it.

    Parameters
    ----------
    customer:
        Whose rows go.
    erasure, mark:
        Which erasure, and a keyed hash of what it did here: they name the row of the certificate.
    suppressed:
        Keyed hash of the key that may not come back: his own, or that of whom he named.
    whole:
        Whether the customer himself is erased.
    events:
        Events that go, with their lessons.
    rewritten:
        Events that stay with another body.
    ids:
        Hashes of ids that are not needed any more: of one who stays they keep repeats of what went away.
    naming:
        Dead letters of the customer that hold these bytes go; all of them where it is empty.
    times:
        Outcomes that wait for their decisions since these journal times, from and to, go.
    """

    customer: CustomerKey
    erasure: str
    mark: bytes
    suppressed: bytes
    recorded_at: Millis
    journal_time: Millis
    whole: bool
    events: Sequence[EventRow]
    rewritten: Sequence[EventRow] = ()
    ids: Sequence[bytes] = ()
    naming: bytes = b""
    times: Sequence[tuple[Millis, Millis]] = ()


class ErasedRow(NamedTuple):
    """What an erasure has done in one partition: a line of its certificate, without anybody's key."""

    partition: int
    erasure: str
    mark: bytes
    whole: bool
    recorded_at: Millis
    journal_time: Millis
    events: int
    lessons: int
    dead_letters: int


class SuppressedRow(NamedTuple):
    """The keyed hash of a key that must not come back in ``partition``, and the erasure it is of."""

    partition: int
    hash: bytes
    erasure: str


class ErasureRows(NamedTuple):
    """An erasure: what it did where, how many keys are still to be told, and models still to be withdrawn."""

    done: Sequence[ErasedRow]
    waiting: int
    unpublished: int
