"""What falls due by itself: looks at trials, and the end of what is remembered.

Something due at a time comes after every event of that journal time, and before any later one. What it makes
of a customer depends on nobody else, so it is the same whether it comes at once, with his next event, or
with a tick; its lesson carries the time it was due, and the number of the decision.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey
from services.analyzer.model.lessons import TrialLesson
from services.analyzer.model.trials.record import (
    LOOKS,
    DecisionRecord,
    Kept,
    Trial,
    Trials,
    age_of,
    end_of,
    keep,
    lesson_of,
)

LOOK_PARTS = 4_096
"""Parts of the lessons of a decision below this are of its own event; looks come after them."""


class Look(NamedTuple):
    """A lesson that fell due, and its place: the number of its decision, and a part that no other has."""

    number: int
    part: int
    lesson: TrialLesson


def pass_time(customer: CustomerKey, trials: Trials, now: Millis) -> tuple[Trials, list[Look]]:
    """Do what is due before journal time ``now``."""
    if trials.due >= now:
        return trials, []
    looks: list[Look] = []
    kept: dict[str, Kept] = {}
    for decision_id, one in trials.kept.items():
        left = _passed(customer, one, now, looks) if one.due < now else one
        if left is not None:
            kept[decision_id] = left
    return Trials.of(kept), looks


def _passed(customer: CustomerKey, kept: Kept, now: Millis, looks: list[Look]) -> Kept | None:
    record = kept.record
    trials = list(record.trials)
    for slot, trial in enumerate(trials):
        while trial.open and (due := trial.shown_at + age_of(record.window, trial.looks)) < now:
            lesson = _look(customer, record, trial, due)
            seen_to = trial.seen_to
            if lesson is not None:
                looks.append(Look(kept.number, LOOK_PARTS * (trial.looks + 1) + slot, lesson))
                seen_to = lesson.age_to
            trial = replace(trial, looks=trial.looks + 1, seen_to=seen_to)
        if trial.looks == LOOKS and not trial.converted and trial.vector:
            # Nothing can be learned from it any more.
            trial = replace(trial, vector=b"")
        trials[slot] = trial
    record = replace(record, trials=tuple(trials))
    if not any(trial.open for trial in trials) and end_of(record) < now:
        return None
    return keep(kept.number, record)


def _look(customer: CustomerKey, record: DecisionRecord, trial: Trial, due: Millis) -> TrialLesson | None:
    """None for one that says nothing: a ghost is only judged, and so is what was converted."""
    last = trial.looks == LOOKS - 1
    age = age_of(record.window, trial.looks)
    span = trial.seen_to, age
    if trial.converted or trial.ghost:
        if not last:
            return None
        span = age, age
    return lesson_of(customer, record, trial, "look", due, due, span=span, judged=last)


def look_early(
    customer: CustomerKey, record: DecisionRecord, trial: Trial, now: Millis
) -> TrialLesson | None:
    """The look that ``trial`` has reached when it must leave before its time; it is not judged."""
    if not trial.open or trial.converted or trial.ghost:
        return None
    return lesson_of(customer, record, trial, "look", now, now)
