"""What events do to trials: decisions are remembered, outcomes show and judge them, orders convert them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from libs.common.clock import Millis
from libs.common.contracts.customer_event import Decision, Outcome, Touchpoint
from services.analyzer.model.lessons import TrialLesson, TrialStep
from services.analyzer.model.trials.looks import look_early
from services.analyzer.model.trials.record import (
    MAX_ORDERS,
    DecisionRecord,
    Trial,
    Trials,
    checked,
    keep,
    lesson_of,
    record_of,
)

MAX_DECISIONS = 64
"""Decisions remembered of one customer; the oldest leave first."""

ENGAGED = frozenset({"opened", "clicked", "accepted"})


class Told(NamedTuple):
    """What an event made of the trials, and taught; ``dropped`` decisions had to leave before their time."""

    trials: Trials
    lessons: tuple[TrialLesson, ...] = ()
    dropped: int = 0


def remember(trials: Trials, event: Decision, now: Millis, number: int) -> Told:
    """A decision with offers waits for what comes of them; those assumed to be seen are shown at once."""
    if event.replay or not event.offers or event.id in trials.kept:
        return Told(trials)
    changes = _Changes(trials, event, now)
    record = record_of(event, now)
    dropped = changes.remember(number, record)
    for rank in sorted({trial.rank for trial in record.trials}):
        if 1 <= rank <= event.assumed_shown:
            changes.show(event.id, rank)
    return changes.told(dropped)


def answer(trials: Trials, event: Outcome, now: Millis) -> Told:
    """What is said of an offer, where its decision is remembered."""
    kept = trials.kept.get(event.decision_id)
    if kept is None:
        return Told(trials)
    for slot, trial in enumerate(kept.record.trials):
        if trial.offer_id == event.offer_id and not trial.ghost:
            return _answered(_Changes(trials, event, now), event, slot, trial)
    return Told(trials)


def _answered(changes: _Changes, event: Outcome, slot: int, trial: Trial) -> Told:
    place, word = (event.decision_id, slot), event.outcome
    if word == "shown":
        changes.show(event.decision_id, trial.rank)
    elif word in ENGAGED and not trial.engaged:
        changes.say(place, replace(trial, engaged=True), "engaged")
    elif word == "declined" and not trial.declined:
        changes.say(place, replace(trial, declined=True), "declined")
    elif word == "converted":
        order_id = event.order_id or ""
        if not changes.credited(order_id, changes.places(trial.product_id)):
            changes.convert(place, trial, order_id)
    elif word == "returned" and trial.credit is not None and event.order_id in (None, trial.credit):
        changes.take_back(place, trial, trial.credit)
    return changes.told()


def buy(trials: Trials, event: Touchpoint, order_id: str, product_ids: Iterable[str], now: Millis) -> Told:
    """An order: of each product the trial shown last gets the credit, and all of them are noted as bought."""
    if not trials.kept:
        return Told(trials)
    changes = _Changes(trials, event, now)
    found: dict[str | None, list[_At]] = {}
    for place, trial in changes.all():
        found.setdefault(trial.product_id, []).append(place)
    for product_id in dict.fromkeys(product_ids):
        _bought(changes, event, order_id, found.get(product_id, ()))
    return changes.told()


def _bought(changes: _Changes, event: Touchpoint, order_id: str, places: Sequence[_At]) -> None:
    """A line of an order: ``places`` are the trials of its product."""
    credited = changes.credited(order_id, places)
    latest: tuple[Millis, str, int] | None = None
    for place in places:
        trial = changes.at(place)
        # Trap: a late order may tell of a time before the offer was seen.
        if not trial.open or trial.happened_at > event.occurred_at:
            continue
        changes.put(place, replace(trial, orders=_with(trial.orders, order_id)))
        if not trial.ghost:
            latest = max(latest or (0, "", 0), (trial.shown_at, place[0], -place[1]))
    if latest is not None and not credited:
        place = latest[1], -latest[2]
        changes.convert(place, changes.at(place), order_id)


def unbuy(trials: Trials, event: Touchpoint, order_id: str, product_ids: Iterable[str], now: Millis) -> Told:
    """An order was cancelled or came back; without products the whole of it."""
    if not trials.kept:
        return Told(trials)
    changes = _Changes(trials, event, now)
    named = set(product_ids)
    for place, trial in changes.all():
        # Trap: of many orders a trial has forgotten some, and its credit may be the oldest.
        ours = order_id in trial.orders or order_id == trial.credit
        if ours and (not named or trial.product_id in named):
            changes.take_back(place, trial, order_id)
    return changes.told()


def _with(orders: tuple[str, ...], order_id: str) -> tuple[str, ...]:
    return orders if order_id in orders else (*orders, order_id)[-MAX_ORDERS:]


_At = tuple[str, int]
"""Where a trial is: the id of its decision, and the slot in its record."""


class _Changes:
    """The trials of a customer while ``event`` changes them at journal time ``now``, and what it teaches."""

    def __init__(self, trials: Trials, event: Decision | Outcome | Touchpoint, now: Millis) -> None:
        self._kept = trials.kept
        self._trials = trials
        self._event = event
        self._now = now
        self._changed: dict[str, list[Trial]] = {}
        self._lessons: list[TrialLesson] = []

    def told(self, dropped: int = 0) -> Told:
        """The end of it."""
        if not self._changed and self._kept is self._trials.kept:
            return Told(self._trials)
        after = dict(self._kept)
        for decision_id, trials in self._changed.items():
            number, _, record = after[decision_id]
            after[decision_id] = keep(number, replace(record, trials=tuple(trials)))
        return Told(Trials.of(after), tuple(self._lessons), dropped)

    def at(self, place: _At) -> Trial:
        decision_id, slot = place
        changed = self._changed.get(decision_id)
        return self._kept[decision_id].record.trials[slot] if changed is None else changed[slot]

    def all(self) -> Iterator[tuple[_At, Trial]]:
        """All trials as they are now, by decision so that no dict's order matters."""
        for decision_id in sorted(self._kept):
            for slot in range(len(self._kept[decision_id].record.trials)):
                place = decision_id, slot
                yield place, self.at(place)

    def places(self, product_id: str | None) -> list[_At]:
        """Where the trials of a product are."""
        return [place for place, trial in self.all() if trial.product_id == product_id]

    def credited(self, order_id: str, places: Sequence[_At]) -> bool:
        """Whether the line of ``order_id`` has its trial; ``places`` are those of its product.

        A conversion without an order may have been this one: it takes the name, where it is of an open trial.
        Where none is named it may be any that an open trial has the credit of.
        """
        trials = [(place, self.at(place)) for place in places]
        if order_id and any(trial.credit == order_id for _, trial in trials):
            return True
        for place, trial in trials:
            # Without a product it is the offer itself that was taken up, whatever came of others.
            if trial.product_id is None or not trial.open or trial.credit is None:
                continue
            if not order_id:
                return True
            # Trap: a late order may tell of a time before the offer was seen.
            if trial.credit == "" and trial.happened_at <= self._event.occurred_at:
                orders = tuple(dict.fromkeys(one or order_id for one in trial.orders))
                self.put(place, replace(trial, credit=order_id, orders=orders))
                return True
        return False

    def remember(self, number: int, record: DecisionRecord) -> int:
        """One decision more; how many had to leave for it, each open trial with the look it has reached."""
        kept = {**self._kept, record.decision_id: keep(number, record)}
        self._kept = kept
        if len(kept) <= MAX_DECISIONS:
            return 0
        crowd = sorted(kept, key=lambda key: (kept[key].record.at, key))[:-MAX_DECISIONS]
        for decision_id in crowd:
            gone = kept.pop(decision_id).record
            for trial in gone.trials:
                look = look_early(self._event.customer, gone, trial, self._now)
                if look is not None:
                    self._lessons.append(look)
        return len(crowd)

    def put(self, place: _At, trial: Trial) -> None:
        """``trial`` as it is from here on."""
        decision_id, slot = place
        if decision_id not in self._changed:
            self._changed[decision_id] = list(self._kept[decision_id].record.trials)
        self._changed[decision_id][slot] = trial

    def show(self, decision_id: str, rank: int) -> None:
        """The offer of ``rank`` was shown, within the window, and with it the ghosts whose place it has."""
        kept = self._kept.get(decision_id)
        if kept is None or self._now > kept.record.at + kept.record.window:
            return
        for slot, trial in enumerate(kept.record.trials):
            if trial.rank != rank or trial.shown_at:
                continue
            place = decision_id, slot
            shown = replace(
                trial,
                shown_at=self._now,
                happened_at=self._event.occurred_at,
                vector=checked(trial.vector),
            )
            if trial.ghost:
                self.put(place, shown)
                continue
            self.say(place, shown, "shown")
            # What was said before it could be believed.
            if shown.engaged:
                self._teach(place, "engaged")
            if shown.declined:
                self._teach(place, "declined")
            if shown.credit is not None:
                self._teach(place, "converted")

    def convert(self, place: _At, trial: Trial, order_id: str) -> None:
        """``trial`` has ``order_id`` to thank it for; once, until that comes back."""
        if trial.credit is not None or (trial.shown_at and not trial.open):
            return
        again = trial.converted
        after = replace(trial, converted=True, credit=order_id, orders=_with(trial.orders, order_id))
        # Trap: what looks have said against it is made good once.
        self.say(place, replace(after, seen_to=0) if again else after, "converted")

    def take_back(self, place: _At, trial: Trial, order_id: str) -> None:
        """``order_id`` came back: the product is not bought by it, and ``trial`` not converted by it."""
        after = replace(trial, orders=tuple(order for order in trial.orders if order != order_id))
        if trial.credit != order_id:
            self.put(place, after)
            return
        self.put(place, replace(after, credit=None))
        if trial.shown_at:
            self._teach(place, "returned")

    def say(self, place: _At, trial: Trial, step: TrialStep) -> None:
        """Keep ``trial``, and teach ``step`` where it was shown and is not judged yet."""
        self.put(place, trial)
        if trial.open:
            self._teach(place, step)

    def _teach(self, place: _At, step: TrialStep) -> None:
        record, event = self._kept[place[0]].record, self._event
        lesson = lesson_of(event.customer, record, self.at(place), step, self._now, event.occurred_at)
        self._lessons.append(lesson)
