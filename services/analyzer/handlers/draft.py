"""A slice in the making: what will be written, gathered record by record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey
from services.analyzer.handlers.folding import Changed
from services.analyzer.model.arrival import Arrival
from services.analyzer.model.erased import KeyHasher, Suppressed
from services.analyzer.model.erasures import Erased, Notice
from services.analyzer.model.facts import FactRow
from services.analyzer.model.letters import DeadLetter, Replayed
from services.analyzer.model.panel import Panel
from services.analyzer.ports import (
    FateKey,
    LessonRow,
    ModelRow,
    PartitionState,
    Seen,
    SpoolReport,
    StoredEvent,
    WaitingOutcome,
)

APPLIED, DUPLICATE, REJECTED = "applied", "duplicate", "rejected"
DEAD_LETTERED, ERASED, INTERNAL = "dead_lettered", "erased", "internal"
ID_REUSE = "id_reuse"
"""Code of a dead letter: its id was used for something else before."""
FATES = (APPLIED, DUPLICATE, REJECTED, DEAD_LETTERED, ERASED, INTERNAL)


@dataclass
class Draft:
    """A slice in the making: what will be written, gathered record by record.

    ``early`` are outcomes that wait for their decisions, by those. ``suppressed`` are the keys erased in this
    partition; ``past`` are all events of the customer whom the slice erases, ``erased``, ``withdrawn`` and
    ``notices`` what comes of that.
    """

    state: PartitionState
    known: dict[bytes, Seen]
    customers: dict[CustomerKey, Changed]
    number: int
    journal_time: Millis
    applied: dict[str, int]
    notes: dict[str, int]
    hasher: KeyHasher
    suppressed: Suppressed
    panel: Panel
    events: list[StoredEvent] = field(default_factory=list)
    ids: dict[bytes, Seen] = field(default_factory=dict)
    early: dict[tuple[CustomerKey, str], list[WaitingOutcome]] = field(default_factory=dict)
    waiting: list[WaitingOutcome] = field(default_factory=list)
    met: list[WaitingOutcome] = field(default_factory=list)
    replays: list[Replayed] = field(default_factory=list)
    lessons: list[LessonRow] = field(default_factory=list)
    facts: list[FactRow] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    reports: dict[str, SpoolReport] = field(default_factory=dict)
    fates: dict[FateKey, int] = field(default_factory=dict)
    next_offset: int = 0
    sent: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    gaps: set[str] = field(default_factory=set)
    past: Sequence[StoredEvent] = ()
    erased: Erased | None = None
    withdrawn: list[ModelRow] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def note(self, name: str, amount: int = 1) -> None:
        self.notes[name] = self.notes.get(name, 0) + amount

    def count(self, arrival: Arrival, fate: str) -> None:
        self.move(FateKey(arrival.spool, arrival.source, fate), 1)

    def move(self, key: FateKey, amount: int) -> None:
        self.fates[key] = self.fates.get(key, 0) + amount
