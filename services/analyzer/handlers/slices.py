"""A slice of one partition: what it makes of the journal's records, as one write.

Reads the ids seen before and the models its customers have; writes everything in the one transaction of
`SliceWrite`. Idempotent: a record's sequence number says whether it was here before (a redelivery, skipped
and not counted), an event's id whether it was posted before (a duplicate, counted and otherwise ignored).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from libs.common.bus.ports import Message
from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_event import AboutCustomer, SpoolReported, Tick
from libs.common.contracts.customer_model import (
    ITEMS,
    PROFILE,
    Items,
    Profile,
    decode_items,
    decode_profile,
    encode_model,
)
from libs.common.contracts.identity import CustomerKey, is_nobody
from libs.common.errors import Invalid, Rejected
from services.analyzer.model.arrival import Arrival, accept, arrive, id_hash, is_internal, kind_of
from services.analyzer.model.cache import ModelCache
from services.analyzer.model.fold import Models, fold
from services.analyzer.model.lessons import Lesson, encode_lesson, journal_second
from services.analyzer.model.lessons import kind_of as lesson_kind
from services.analyzer.ports import (
    DeadLetter,
    FateKey,
    LessonRow,
    ModelRow,
    PartitionState,
    SliceStore,
    SliceWrite,
    SpoolReport,
    StoredEvent,
)

DEDUPE_WINDOW: Millis = 30 * DAY
"""How long an id counts once, in journal time."""

APPLIED, DUPLICATE, REJECTED = "applied", "duplicate", "rejected"
DEAD_LETTERED, ERASED, INTERNAL = "dead_lettered", "erased", "internal"
FATES = (APPLIED, DUPLICATE, REJECTED, DEAD_LETTERED, ERASED, INTERNAL)

_log = logging.getLogger(__name__)


@dataclass
class Changed:
    """A customer's models within a slice, and which event changed which part last (0: unchanged)."""

    models: Models
    profile: int = 0
    items: int = 0


@dataclass
class _Draft:
    """A slice in the making: what will be written, gathered record by record."""

    state: PartitionState
    known: dict[bytes, Millis]
    customers: dict[CustomerKey, Changed]
    number: int
    journal_time: Millis
    applied: dict[str, int]
    notes: dict[str, int]
    events: list[StoredEvent] = field(default_factory=list)
    ids: dict[bytes, Millis] = field(default_factory=dict)
    lessons: list[LessonRow] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    reports: dict[str, SpoolReport] = field(default_factory=dict)
    fates: dict[FateKey, int] = field(default_factory=dict)
    next_offset: int = 0

    def note(self, name: str) -> None:
        self.notes[name] = self.notes.get(name, 0) + 1

    def count(self, arrival: Arrival, fate: str) -> None:
        key = FateKey(arrival.spool, arrival.source, fate)
        self.fates[key] = self.fates.get(key, 0) + 1


@dataclass(frozen=True)
class Slice:
    """A slice ready to be written, and the models to remember once it is."""

    write: SliceWrite
    customers: dict[CustomerKey, Changed]
    noted: dict[str, int]

    @property
    def urgent(self) -> bool:
        """Whether somebody may be waiting for it: anything but ticks and reports of spools."""
        return any(key.source for key in self.write.fates) or bool(self.write.dead_letters)


class SliceHandler:
    """Turns messages of one partition into one write.

    Parameters
    ----------
    store:
        Where ids and models are read; nothing is written here.
    """

    def __init__(self, store: SliceStore) -> None:
        self._store = store

    async def prepare(
        self, state: PartitionState, cache: ModelCache, messages: Sequence[Message]
    ) -> Slice | None:
        """What ``messages`` make of ``state``; None where all of them were here before.

        Reads the store, changes neither ``state`` nor ``cache`` (it may fill it with what is stored).
        """
        arrivals = [arrive(message) for message in messages if message.offset >= state.next_offset]
        if not arrivals:
            return None
        events = [a.event for a in arrivals if a.event is not None]
        about = [event for event in events if not isinstance(event, Tick | SpoolReported)]
        hashes = list({id_hash(event) for event in about})
        known = await self._store.known_ids(state.partition, hashes) if hashes else {}
        customers = await self._models(state.partition, cache, about)
        draft = _Draft(
            state=state,
            known=known,
            customers={key: Changed(models) for key, models in customers.items()},
            number=state.number,
            journal_time=state.journal_time,
            applied=dict(state.applied),
            notes=dict(state.notes),
        )
        for arrival in arrivals:
            _take(draft, arrival)
        noted = {name: n - state.notes.get(name, 0) for name, n in draft.notes.items()}
        return Slice(_written(draft), draft.customers, noted)

    async def _models(
        self, partition: int, cache: ModelCache, events: Sequence[AboutCustomer]
    ) -> dict[CustomerKey, Models]:
        found: dict[CustomerKey, Models] = {}
        missing: list[CustomerKey] = []
        for key in dict.fromkeys(event.customer for event in events):
            if is_nobody(key):
                continue
            models = cache.get(key)
            if models is None:
                missing.append(key)
            else:
                found[key] = models
        if missing:
            rows = await self._store.models(partition, missing)
            stored = assemble(rows)
            sizes: dict[CustomerKey, int] = {}
            for row in rows:
                sizes[row.customer] = sizes.get(row.customer, 0) + len(row.body)
            for key in missing:
                found[key] = stored.get(key) or Models.new(key)
                cache.put(key, found[key], sizes.get(key, 0))
        return found


def assemble(rows: Sequence[ModelRow]) -> dict[CustomerKey, Models]:
    """Models by key out of their stored parts."""
    profiles: dict[CustomerKey, Profile] = {}
    items: dict[CustomerKey, Items] = {}
    for row in rows:
        if row.part == PROFILE:
            profiles[row.customer] = decode_profile(row.body)
        elif row.part == ITEMS:
            items[row.customer] = decode_items(row.body)
    return {
        key: Models(
            profiles.get(key) or Profile(customer=key),
            items.get(key) or Items(customer=key),
        )
        for key in (profiles | items)
    }


def _take(draft: _Draft, arrival: Arrival) -> None:
    """One record: skipped as redelivered, or given exactly one fate."""
    draft.next_offset = arrival.message.offset + 1
    if arrival.spool:
        before = draft.applied.get(arrival.spool, 0)
        if arrival.seq <= before:
            draft.note("redelivered")
            return
        if arrival.seq != before + 1:
            draft.note("gaps")
            _log.error(
                "records of a spool are missing on the journal",
                extra={"partition": draft.state.partition, "spool": arrival.spool, "after": before},
            )
        draft.applied[arrival.spool] = arrival.seq
    event = arrival.event
    if arrival.error is not None or event is None:
        _bury(draft, arrival, arrival.error or Invalid("undecodable", "no event"))
        return
    draft.journal_time = max(draft.journal_time, event.recorded_at)
    if isinstance(event, Tick):
        draft.count(arrival, INTERNAL)
    elif isinstance(event, SpoolReported):
        draft.reports[event.spool] = SpoolReport(
            draft.state.partition, event.spool, event.service, event.recorded_at, event.accepted
        )
        draft.count(arrival, INTERNAL)
    else:
        _take_event(draft, arrival, event)


def _take_event(draft: _Draft, arrival: Arrival, event: AboutCustomer) -> None:
    hashed = id_hash(event)
    seen = draft.known.get(hashed)
    internal = is_internal(event)
    if seen is not None and draft.journal_time - seen <= DEDUPE_WINDOW:
        draft.count(arrival, INTERNAL if internal else DUPLICATE)
        return
    try:
        accept(event)
        number = draft.number + 1
        lesson = fold_into(draft.customers, event, draft.journal_time, number)
    except Rejected:
        draft.count(arrival, REJECTED)
        return
    except Invalid as error:
        _bury(draft, arrival, error)
        return
    draft.number = number
    draft.known[hashed] = draft.ids[hashed] = draft.journal_time
    if lesson.unmatched:
        draft.note("unmatched")
    if lesson.row is not None:
        draft.lessons.append(
            lesson_row(draft.state.partition, number, draft.journal_time, lesson.row),
        )
    draft.events.append(
        StoredEvent(
            partition=draft.state.partition,
            number=number,
            recorded_at=event.recorded_at,
            journal_time=draft.journal_time,
            occurred_at=event.occurred_at,
            customer=event.customer,
            kind=kind_of(event),
            id=event.id,
            body=arrival.message.value or b"",
        )
    )
    draft.count(arrival, INTERNAL if internal else APPLIED)


@dataclass(frozen=True)
class Learned:
    """What folding one event gave besides models."""

    row: Lesson | None
    unmatched: bool


def fold_into(
    customers: dict[CustomerKey, Changed], event: AboutCustomer, journal_time: Millis, number: int
) -> Learned:
    """Fold ``event`` into its customer; live slices and a rebuild both come through here."""
    if is_nobody(event.customer):
        return Learned(None, False)
    changed = customers[event.customer]
    step = fold(changed.models, event, journal_time)
    if step.models.profile is not changed.models.profile:
        changed.profile = number
    if step.models.items is not changed.models.items:
        changed.items = number
    changed.models = step.models
    return Learned(step.lesson, step.unmatched)


def lesson_row(partition: int, number: int, journal_time: Millis, lesson: Lesson) -> LessonRow:
    """A lesson as it is stored."""
    return LessonRow(
        partition, number, journal_second(journal_time), lesson_kind(lesson), encode_lesson(lesson)
    )


def model_rows(partition: int, customers: dict[CustomerKey, Changed]) -> list[ModelRow]:
    """The parts that changed, encoded."""
    rows: list[ModelRow] = []
    for key, changed in customers.items():
        if changed.items:
            rows.append(ModelRow(partition, key, ITEMS, changed.items, encode_model(changed.models.items)))
        if changed.profile:
            rows.append(
                ModelRow(partition, key, PROFILE, changed.profile, encode_model(changed.models.profile))
            )
    return rows


def _bury(draft: _Draft, arrival: Arrival, error: Invalid) -> None:
    message = arrival.message
    draft.dead_letters.append(
        DeadLetter(
            partition=draft.state.partition,
            cluster=draft.state.cluster,
            offset=message.offset,
            spool=arrival.spool,
            seq=arrival.seq,
            source=arrival.source,
            code=error.code,
            reason=error.reason.replace("\x00", "")[:500],
            journal_time=draft.journal_time,
            key=message.key or b"",
            value=message.value,
        )
    )
    draft.count(arrival, DEAD_LETTERED)


def _written(draft: _Draft) -> SliceWrite:
    counters = dict(draft.state.counters)
    for key, amount in draft.fates.items():
        counters[key.fate] = counters.get(key.fate, 0) + amount
    state = replace(
        draft.state,
        next_offset=draft.next_offset,
        number=draft.number,
        journal_time=draft.journal_time,
        applied=draft.applied,
        counters=counters,
        notes=draft.notes,
    )
    new_day = draft.journal_time // DAY > draft.state.journal_time // DAY
    return SliceWrite(
        state=state,
        events=draft.events,
        ids=draft.ids,
        models=model_rows(draft.state.partition, draft.customers),
        lessons=draft.lessons,
        dead_letters=draft.dead_letters,
        reports=list(draft.reports.values()),
        fates=draft.fates,
        forget_before=draft.journal_time - DEDUPE_WINDOW if new_day else None,
    )
