"""Everything that is held about a customer, in one JSON document that is written as it is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from libs.common.contracts.customer_event import SpoolReported, Tick, decode_event
from libs.common.contracts.customer_model import Items, Profile
from libs.common.contracts.identity import CustomerKey
from libs.common.times import format_time
from services.analyzer.handlers.folding import assemble
from services.analyzer.model.fold import Models, type_of
from services.analyzer.model.lessons import Lesson, decode_lesson
from services.analyzer.model.letters import DeadLetter
from services.analyzer.model.readable import ConsentView, CustomerView
from services.analyzer.model.trials.record import DecisionRecord
from services.analyzer.ports import LessonRow, ReadStore, StoredEvent


class ExportedModel(Struct, frozen=True):
    """The model of one key, as it is stored: of the customer, or of a visitor linked to him."""

    key: CustomerKey
    profile: Profile
    items: Items
    trials: list[DecisionRecord]


class ExportedEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event as it is stored; ``record`` is what came on the journal, ``lessons`` what the learner got."""

    id: str
    kind: str
    type: str
    customer: CustomerKey
    occurred_at: str
    recorded_at: str
    record: msgspec.Raw
    lessons: tuple[Lesson, ...] = ()


class ExportedLetter(Struct, frozen=True):
    """A record that could not be processed; ``record`` is its text as far as that can be read."""

    code: str
    reason: str
    source: str
    journal_time: str
    record: str


class InFlight(Struct, frozen=True):
    """Records of whoever it may be that services have accepted and the analyzer has not applied yet.

    Spools hold them for moments; an export made when ``records`` is 0 lacks nothing.
    """

    records: int


class Export(Struct, frozen=True):
    """All that is held about a customer in the analyzer; `GET /v1/decisions` has what was offered him.

    ``model`` is readable and merged, ``models`` are as stored. ``events`` come in the order of the tables of
    days, those the platform made itself included.
    """

    customer: CustomerKey
    in_flight: InFlight
    model: CustomerView | None
    consents: list[ConsentView]
    models: list[ExportedModel]
    dead_letters: list[ExportedLetter]
    events: list[ExportedEvent]


class Held(NamedTuple):
    """Where the events of a customer lie: under ``keys``, of visitor keys that were others' too only those
    with a number in ``times``."""

    keys: list[CustomerKey]
    times: Mapping[CustomerKey, Sequence[range]]

    def holds(self, event: StoredEvent) -> bool:
        """Whether an event of one of the keys is his."""
        times = self.times.get(event.customer)
        return times is None or any(event.number in time for time in times)


async def export(
    store: ReadStore,
    key: CustomerKey,
    view: CustomerView | None,
    parts: Sequence[CustomerKey],
    held: Held,
    in_flight: int,
) -> AsyncIterator[bytes]:
    """The pieces of an `Export`: models of ``parts``, and what is ``held``, a few events at a time."""
    models = assemble(await store.customer(parts))
    letters = await store.dead_letters_of([one for one in held.keys if one not in held.times])
    head: dict[str, Any] = {
        "customer": key,
        "in_flight": InFlight(in_flight),
        "model": view,
        "consents": [] if view is None else view.consents,
        "models": [_model(part, models[part]) for part in parts if part in models],
        "dead_letters": [_letter(letter) for letter in letters],
    }
    yield msgspec.json.encode(head)[:-1] + b',"events":['
    before = b""
    async for found in store.all_events(held.keys):
        events = [stored for stored in found if held.holds(stored)]
        lessons: dict[tuple[int, int], list[LessonRow]] = {}
        for row in await store.lessons_of(events):
            lessons.setdefault((row.partition, row.number), []).append(row)
        for stored in events:
            told = lessons.get((stored.partition, stored.number), [])
            yield before + msgspec.json.encode(_event(stored, told))
            before = b","
    yield b"]}"


def _model(key: CustomerKey, models: Models) -> ExportedModel:
    records = [one.record for one in models.trials.kept.values()]
    return ExportedModel(key, models.profile, models.items, records)


def _event(stored: StoredEvent, lessons: Sequence[LessonRow]) -> ExportedEvent:
    event = decode_event(stored.body)
    return ExportedEvent(
        id=stored.id,
        kind=stored.kind,
        type="" if isinstance(event, Tick | SpoolReported) else type_of(event),
        customer=stored.customer,
        occurred_at=format_time(stored.occurred_at),
        recorded_at=format_time(stored.recorded_at),
        record=msgspec.Raw(stored.body),
        lessons=tuple(decode_lesson(lesson.body) for lesson in lessons),
    )


def _letter(letter: DeadLetter) -> ExportedLetter:
    return ExportedLetter(
        letter.code,
        letter.reason,
        letter.source,
        format_time(letter.journal_time),
        (letter.value or b"").decode("utf-8", "replace"),
    )
