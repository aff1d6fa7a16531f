"""What the handlers need from outside, as protocols, and the values that pass through them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey
from services.analyzer.model.erasures import Erased, ErasureRows, Notice, SuppressedRow
from services.analyzer.model.facts import FactRow
from services.analyzer.model.idle import IdleTimer
from services.analyzer.model.letters import Buried, DeadLetter, LetterFilter, Replayed
from services.analyzer.model.trials.rows import Due, TrialRow


@dataclass(frozen=True)
class PartitionState:
    """How far a partition is: one row, updated by every slice.

    Parameters
    ----------
    epoch:
        Which claim of the partition this is; only the newest may write.
    number:
        Order number of the last event stored, or of what was withdrawn after it.
    applied:
        By spool: highest sequence number whose fate is decided.
    leaves:
        By spool: the journal time at which it leaves ``applied`` if nothing comes from it until then.
    counters:
        Records by fate since the beginning.
    notes:
        Counts beside the fates: ``redelivered``, ``gaps`` (passed over, a record before them is missing; they
        come again), ``unmatched``, ``crowded`` (decisions forgotten early), ``automatic`` (no person did it),
        ``idle`` (visitors dropped).
    published:
        Models up to this revision are known to be on the bus.
    models_offset:
        Next offset of ``customer-models`` after them.
    losses:
        How often all that was published was lost: the number of the marker that closes a republication.
    """

    partition: int
    epoch: int
    cluster: str
    next_offset: int = 0
    number: int = 0
    journal_time: Millis = 0
    applied: Mapping[str, int] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    published: int = 0
    models_offset: int = 0
    losses: int = 0
    leaves: Mapping[str, Millis] = field(default_factory=dict)


class StoredEvent(NamedTuple):
    """A row of the long memory; ``body`` is the record as it came."""

    partition: int
    number: int
    recorded_at: Millis
    journal_time: Millis
    occurred_at: Millis
    customer: CustomerKey
    kind: str
    id: str
    body: bytes


class ModelRow(NamedTuple):
    """One part of a customer's model; ``revision`` is the number of the event that changed it last.

    Withdrawn where ``body`` is empty: ``dropped`` where nothing was erased, and it may come back.
    """

    partition: int
    customer: CustomerKey
    part: str
    revision: int
    body: bytes
    dropped: bool = False


class LessonRow(NamedTuple):
    partition: int
    number: int
    second: int
    kind: str
    body: bytes
    part: int = 0


class Seen(NamedTuple):
    """When an id was used last, in journal time, and for what: empty content is not compared."""

    at: Millis
    content: bytes = b""


class WaitingOutcome(NamedTuple):
    """An outcome that came before its decision; ``hash`` stands for its id, ``body`` is as it came."""

    partition: int
    customer: CustomerKey
    decision: str
    hash: bytes
    journal_time: Millis
    body: bytes


class SpoolReport(NamedTuple):
    """What a spool said it has accepted so far, by source."""

    partition: int
    spool: str
    service: str
    recorded_at: Millis
    accepted: Mapping[str, int]


class FateKey(NamedTuple):
    spool: str
    source: str
    fate: str


@dataclass(frozen=True)
class SliceWrite:
    """All that a slice changes, written in one transaction or not at all.

    ``before`` is the state it was made from: it is written only where that is still what is stored.
    ``ids`` are of events that are new; ``forget_before`` is set once a day of journal time: what is older
    goes. ``waiting`` are outcomes to keep for their decisions, ``met`` those that have met them; ``replays``
    what became of dead letters that were taken again.
    """

    state: PartitionState
    before: PartitionState
    events: Sequence[StoredEvent] = ()
    ids: Mapping[bytes, Seen] = field(default_factory=dict)
    models: Sequence[ModelRow] = ()
    trials: Sequence[TrialRow] = ()
    timers: Sequence[IdleTimer] = ()
    lessons: Sequence[LessonRow] = ()
    facts: Sequence[FactRow] = ()
    dead_letters: Sequence[DeadLetter] = ()
    reports: Sequence[SpoolReport] = ()
    fates: Mapping[FateKey, int] = field(default_factory=dict)
    forget_before: Millis | None = None
    waiting: Sequence[WaitingOutcome] = ()
    met: Sequence[WaitingOutcome] = ()
    replays: Sequence[Replayed] = ()
    erased: Erased | None = None
    notices: Sequence[Notice] = ()


GENERATION_SECONDS = 60.0
"""A group whose coordinator has lost it begins at generation 0 again: a lower generation than the last one
claims after its owner wrote nothing for so long, by the clock of the database. Ticks come every second."""


class SliceStore(Protocol):
    """What slices read and write. `Transient` when the database is away, `Fenced` when not the owner."""

    async def claim(self, partition: int, generation: int, cluster: str) -> PartitionState:
        """Become owner: epoch + 1. A generation lower than the last one of the same cluster is `Fenced`,
        unless its owner has been silent for `GENERATION_SECONDS`.

        On another cluster than before, offsets and what is published begin at 0.
        """
        ...

    async def load(self, partition: int, epoch: int) -> PartitionState:
        """The state as committed; `Fenced` where ``epoch`` is not the newest."""
        ...

    async def known_ids(self, partition: int, hashes: Sequence[bytes]) -> dict[bytes, Seen]:
        """Those of ``hashes`` that were seen, and when."""
        ...

    async def waiting(
        self, partition: int, decisions: Sequence[tuple[CustomerKey, str]]
    ) -> list[WaitingOutcome]:
        """Outcomes that wait for one of ``decisions``, in the order they came."""
        ...

    async def asked(self, partition: int, limit: int) -> list[Buried]:
        """Dead letters of ``partition`` that are to be taken again, oldest first."""
        ...

    async def decided(self, partition: int, spools: Sequence[str]) -> dict[str, int]:
        """How many records of each of ``spools`` have a fate: as each has one, also the highest number."""
        ...

    async def models(self, partition: int, customers: Sequence[CustomerKey]) -> list[ModelRow]:
        """All parts of the models of ``customers``, their trials too."""
        ...

    async def due(self, partition: int, before: Millis, limit: int) -> Due:
        """For whom something falls due before ``before``, or, where that is ``limit`` records, earlier."""
        ...

    async def suppressed(self, partition: int) -> dict[bytes, str]:
        """Hashes of the keys that are erased here, and by which erasure."""
        ...

    async def events_of(self, partition: int, customer: CustomerKey) -> list[StoredEvent]:
        """All events of ``customer``, in order of their numbers."""
        ...

    async def write(self, slice_: SliceWrite) -> None:
        """Write a slice in one transaction: `Fenced` where its epoch is not the newest, `Transient` where the
        partition is not as ``slice_.before`` says (an earlier write was committed, or a rebuild switched)."""
        ...

    async def unpublish(self, partition: int, epoch: int) -> None:
        """Note that nothing of ``partition`` is published any more, and end the claim ``epoch``, so that no
        slice under way says otherwise; `Fenced` for another owner's."""
        ...

    async def rewind(self, partition: int, epoch: int, offset: int) -> None:
        """Note that the log of ``partition`` was made anew and is read from ``offset``; `Fenced` as above."""
        ...

    async def unpublished(
        self, partition: int, above: int, after: tuple[CustomerKey, str], limit: int
    ) -> list[ModelRow]:
        """Models with a revision over ``above``, in order of (customer, part), beginning behind ``after``."""
        ...


class ErasedKeys(Protocol):
    """The erased keys as they are kept outside the database."""

    def read(self) -> set[SuppressedRow]: ...

    def add(self, rows: Iterable[SuppressedRow]) -> int:
        """Append those of ``rows`` that are not there, durably; answers how many."""
        ...


class ErrandStore(Protocol):
    """What is still to be done about erasures once a slice has committed them."""

    async def notices(self, partitions: Sequence[int]) -> list[Notice]:
        """Notices of ``partitions`` that their targets have not acted on; those they have are forgotten."""

    async def purge(self, partition: int, published: int, long_ago: int) -> bool:
        """Forget withdrawals published, of models that were ``dropped`` those of ``long_ago``; whether more
        of the others are left."""


class RestoreStore(SliceStore, Protocol):
    """What a start after a restore needs beside."""

    def restoring(self) -> AbstractAsyncContextManager[None]:
        """Wait until no other process restores; `Transient` where that takes long."""
        ...

    async def seize(self, partition: int) -> PartitionState:
        """Raise the epoch, so that whoever owns the partition must claim it again."""
        ...

    async def suppress(self, rows: Iterable[SuppressedRow]) -> None:
        """Keep these keys away; those known stay as they are."""
        ...

    async def keys_in(self, partition: int) -> list[CustomerKey]:
        """Every key that has events, models or dead letters in ``partition``."""
        ...


class Place(NamedTuple):
    """Where an event stands in the timeline, which runs from the greatest place down."""

    occurred_at: Millis
    recorded_at: Millis
    partition: int
    number: int


class LedgerRow(NamedTuple):
    partition: int
    spool: str
    source: str
    fate: str
    amount: int


class LedgerRows(NamedTuple):
    """What the ledger is summed from."""

    fates: Sequence[LedgerRow]
    reports: Sequence[SpoolReport]
    states: Sequence[PartitionState]


class LearnedState(NamedTuple):
    """What the learner has published last."""

    version: int
    journal_time: Millis
    orders: int
    trials: int


class ReadStore(Protocol):
    """What the HTTP side reads. `Transient` when the database is away."""

    async def customer(self, keys: Sequence[CustomerKey]) -> list[ModelRow]:
        """All parts of the models of ``keys``, their trials too."""
        ...

    async def timeline(
        self, keys: Sequence[CustomerKey], before: Place | None, limit: int
    ) -> list[StoredEvent]:
        """Listed events of ``keys``, from the greatest place below ``before`` down."""
        ...

    async def same_ids(self, keys: Sequence[CustomerKey], ids: Sequence[str]) -> list[StoredEvent]:
        """Every listed event of ``keys`` with one of ``ids``; bodies are left empty."""
        ...

    async def ledger(self) -> LedgerRows:
        """Everything the ledger needs, as of one moment."""
        ...

    async def digest(self, partition: int) -> bytes:
        """Of all models of ``partition``, as `model.digest.partition_digest`."""
        ...

    async def learned(self) -> LearnedState | None:
        """What the learner has published last, None before it has."""
        ...

    async def dead_letters(self, which: LetterFilter, before: int | None, limit: int) -> list[Buried]:
        """Dead letters below id ``before``, newest first, those replayed too; key and value only by id."""
        ...

    async def ask_replay(self, which: LetterFilter) -> int:
        """Have dead letters taken again, except those that have left; how many. Writes."""
        ...

    async def dead_letters_of(self, keys: Sequence[CustomerKey]) -> list[DeadLetter]:
        """All dead letters whose record key is one of ``keys``."""
        ...

    def all_events(self, keys: Sequence[CustomerKey]) -> AsyncIterator[Sequence[StoredEvent]]:
        """All events of ``keys``, unlisted ones too, some thousand at a time; of each key in order."""
        ...

    async def lessons_of(self, events: Sequence[StoredEvent]) -> list[LessonRow]:
        """The lessons of ``events``."""
        ...

    async def erasure(self, id_: str) -> ErasureRows:
        """What has become of an erasure, in every partition."""
        ...


class Publisher(Protocol):
    """Puts models and progress on the bus, in order, after the slice that changed them is committed."""

    @property
    def lost(self) -> bool:
        """Whether the bus turned out, since partitions were opened, to have lost models it acknowledged."""

    async def open(self, state: PartitionState) -> None:
        """Begin to publish for a partition just claimed, on the cluster it was claimed for."""

    def offer(self, state: PartitionState, models: Sequence[ModelRow], *, urgent: bool = True) -> None:
        """Publish ``models``, then the progress of ``state``; what is not urgent at most once a second."""

    def offer_models(self, partition: int, models: Sequence[ModelRow]) -> None:
        """Publish ``models`` of a partition that has not caught up yet; says nothing about progress."""

    def renew(self, partition: int, at: float) -> None:
        """The claim of ``partition`` was known to hold at monotonic time ``at``."""

    def close_republication(self, partition: int, number: int) -> None:
        """Follow the models offered so far, which are all there are, by marker ``number``."""

    def published(self, partition: int) -> tuple[int, int]:
        """Revision up to which everything is acknowledged, and the next offset of ``customer-models``."""

    async def room(self, partition: int) -> bool:
        """Wait while very much of ``partition`` is unsent; False where that lasts."""

    async def close(self, partitions: frozenset[int]) -> None:
        """Forget ``partitions``, after a short time to send what waits; the next claim sends the rest."""
