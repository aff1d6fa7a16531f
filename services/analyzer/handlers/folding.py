"""Events folded into the models of their customers; live slices and a rebuild both come through here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from libs.common.clock import Millis
from libs.common.contracts.customer_event import AboutCustomer
from libs.common.contracts.customer_model import (
    ITEMS,
    PROFILE,
    Items,
    Profile,
    decode_items,
    decode_profile,
    encode_model,
    refuses_analytics,
)
from libs.common.contracts.identity import CustomerKey, is_nobody
from services.analyzer.model.fold import Models, Step, fold
from services.analyzer.model.idle import IdleTimer, is_nothing, next_look
from services.analyzer.model.lessons import encode_lesson, journal_second
from services.analyzer.model.lessons import kind_of as lesson_kind
from services.analyzer.model.panel import EVERYBODY, Panel
from services.analyzer.model.trials.looks import Look, pass_time
from services.analyzer.model.trials.record import TRIALS, Kept, Trials, encode_record, kept_of
from services.analyzer.model.trials.rows import TrialRow
from services.analyzer.ports import LessonRow, ModelRow


@dataclass
class Changed:
    """A customer's models within a slice, and which event changed which part last (0: unchanged).

    ``erased``: an erasure took from it. ``stored`` are the records of his decisions as they were found,
    ``seen_at`` is when he had been heard of.
    """

    models: Models
    profile: int = 0
    items: int = 0
    erased: bool = False
    stored: Mapping[str, Kept] = field(init=False)
    seen_at: Millis = field(init=False)

    def __post_init__(self) -> None:
        self.stored = self.models.trials.kept
        self.seen_at = self.models.profile.seen_at


def assemble(rows: Sequence[ModelRow]) -> dict[CustomerKey, Models]:
    """Models by key out of their stored parts."""
    profiles: dict[CustomerKey, Profile] = {}
    items: dict[CustomerKey, Items] = {}
    trials: dict[CustomerKey, dict[str, Kept]] = {}
    for row in rows:
        if row.part == PROFILE:
            profiles[row.customer] = decode_profile(row.body)
        elif row.part == ITEMS:
            items[row.customer] = decode_items(row.body)
        elif row.part.startswith(TRIALS):
            kept = trials.setdefault(row.customer, {})
            kept[row.part.removeprefix(TRIALS)] = kept_of(row.revision, row.body)
    return {
        key: Models(
            profiles.get(key) or Profile(customer=key),
            items.get(key) or Items(customer=key),
            Trials.of(trials.get(key, {})),
        )
        for key in (profiles | items | trials)
    }


def fold_into(
    customers: dict[CustomerKey, Changed],
    event: AboutCustomer,
    journal_time: Millis,
    number: int,
    panel: Panel = EVERYBODY,
) -> Step | None:
    """Fold ``event`` into its customer, None where it is about nobody; slices and rebuilds come here."""
    if is_nobody(event.customer):
        return None
    changed = customers[event.customer]
    step = fold(changed.models, event, journal_time, panel, number=number)
    if step.models.profile is not changed.models.profile:
        changed.profile = number
    if step.models.items is not changed.models.items:
        changed.items = number
    changed.models = step.models
    if step.frozen is not None:
        customers[step.frozen.profile.customer] = Changed(step.frozen, number, number)
    return step


def fire(customers: Mapping[CustomerKey, Changed], partition: int, journal_time: Millis) -> list[LessonRow]:
    """Do what fell due before ``journal_time`` for ``customers``; its lessons."""
    rows: list[LessonRow] = []
    for key, changed in customers.items():
        if changed.models.trials.due < journal_time:
            trials, looks = pass_time(key, changed.models.trials, journal_time)
            changed.models = changed.models._replace(trials=trials)
            if not refuses_analytics(changed.models.profile.consents):
                rows += look_rows(partition, looks)
    return rows


def drop_idle(customers: Mapping[CustomerKey, Changed], journal_time: Millis, number: int) -> int:
    """Drop the models of visitors who are idle, as of ``number``; how many."""
    dropped = 0
    for changed in customers.values():
        models = changed.models.at(journal_time)
        if models is not changed.models:
            changed.models = models
            changed.profile = changed.items = number
            dropped += 1
    return dropped


def idle_timers(
    partition: int,
    customers: Mapping[CustomerKey, Changed],
    looked_at: Collection[CustomerKey],
    journal_time: Millis,
) -> list[IdleTimer]:
    """The timers of visitors who are new, were heard of earlier than was believed, or were ``looked_at``."""
    rows = []
    for key, changed in customers.items():
        profile = changed.models.profile
        if key in looked_at or (profile.seen_at and not 0 < changed.seen_at <= profile.seen_at):
            rows.append(IdleTimer(partition, key, next_look(profile, journal_time)))
    return rows


def lesson_rows(partition: int, number: int, journal_time: Millis, step: Step) -> list[LessonRow]:
    """The lessons of event ``number``, and of what fell due before it, as they are stored."""
    second = journal_second(journal_time)
    own = [
        LessonRow(partition, number, second, lesson_kind(lesson), encode_lesson(lesson), part)
        for part, lesson in enumerate(step.lessons)
    ]
    return own + look_rows(partition, step.looks) if step.looks else own


def look_rows(partition: int, looks: Sequence[Look]) -> list[LessonRow]:
    """Looks under the second they were due in."""
    return [
        LessonRow(
            partition,
            look.number,
            journal_second(look.lesson.at),
            lesson_kind(look.lesson),
            encode_lesson(look.lesson),
            look.part,
        )
        for look in looks
    ]


def trial_rows(partition: int, customers: dict[CustomerKey, Changed]) -> list[TrialRow]:
    """The records of decisions that changed, encoded; an empty one is forgotten."""
    rows: list[TrialRow] = []
    for key, changed in customers.items():
        kept, stored = changed.models.trials.kept, changed.stored
        if kept is stored:
            continue
        for decision_id, one in kept.items():
            if stored.get(decision_id) is not one:
                body = encode_record(one.record)
                rows.append(TrialRow(partition, key, decision_id, one.number, one.due, body))
        rows += [
            TrialRow(partition, key, decision_id, one.number, 0, b"")
            for decision_id, one in stored.items()
            if decision_id not in kept
        ]
    return rows


def model_rows(partition: int, customers: dict[CustomerKey, Changed]) -> list[ModelRow]:
    """The parts that changed, encoded; withdrawn where nothing is in them (any more)."""
    rows: list[ModelRow] = []
    for key, changed in customers.items():
        if changed.items:
            items = changed.models.items
            body = encode_model(items) if items.items else b""
            dropped = not body and not changed.erased
            rows.append(ModelRow(partition, key, ITEMS, changed.items, body, dropped))
        if changed.profile:
            profile = changed.models.profile
            body = b"" if is_nothing(profile) else encode_model(profile)
            dropped = not body and not changed.erased
            rows.append(ModelRow(partition, key, PROFILE, changed.profile, body, dropped))
    return rows
