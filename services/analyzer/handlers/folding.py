"""Events folded into the models of their customers; live slices and a rebuild both come through here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
)
from libs.common.contracts.identity import CustomerKey, is_nobody
from services.analyzer.model.fold import Models, fold
from services.analyzer.model.lessons import Lesson, encode_lesson, journal_second
from services.analyzer.model.lessons import kind_of as lesson_kind
from services.analyzer.model.panel import EVERYBODY, Panel
from services.analyzer.ports import LessonRow, ModelRow


@dataclass
class Changed:
    """A customer's models within a slice, and which event changed which part last (0: unchanged)."""

    models: Models
    profile: int = 0
    items: int = 0


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


def fold_into(
    customers: dict[CustomerKey, Changed],
    event: AboutCustomer,
    journal_time: Millis,
    number: int,
    panel: Panel = EVERYBODY,
) -> Lesson | None:
    """Fold ``event`` into its customer, and what is to be learned from it; slices and rebuilds come here."""
    if is_nobody(event.customer):
        return None
    changed = customers[event.customer]
    step = fold(changed.models, event, journal_time, panel)
    if step.models.profile is not changed.models.profile:
        changed.profile = number
    if step.models.items is not changed.models.items:
        changed.items = number
    changed.models = step.models
    return step.lesson


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
