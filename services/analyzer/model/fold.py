"""One event and a customer's models in, his new models and perhaps lessons out."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from libs.common.clock import Millis
from libs.common.contracts.customer_event import (
    AboutCustomer,
    ConsentGiven,
    Decision,
    IdentityLinked,
    Outcome,
    Touchpoint,
)
from libs.common.contracts.customer_model import Items, Profile, refuses_analytics
from libs.common.contracts.flags import is_automatic
from libs.common.contracts.identity import CustomerKey, account_key, anonymous_key, is_anonymous, is_nobody
from libs.common.contracts.outcome import OBJECTIONS
from libs.common.contracts.touchpoint import (
    INSTALLED,
    ORDER_CHANGES,
    ORDERS,
    OUTBOUND,
    TYPED,
    Order,
    OrderChange,
    OrderLine,
    ProductSeen,
)
from libs.common.contracts.vocabulary.public import Lot
from libs.common.contracts.vocabulary.service import Conversation
from libs.common.errors import Invalid
from libs.common.scoring.decay import bounded
from services.analyzer.model import automatic
from services.analyzer.model import items as item_folds
from services.analyzer.model import profile as profile_folds
from services.analyzer.model.effects import EFFECTS, refused
from services.analyzer.model.idle import is_idle
from services.analyzer.model.lessons import Lesson, LessonLine, OrderChangeLesson, OrderLesson
from services.analyzer.model.panel import EVERYBODY, Panel
from services.analyzer.model.trials import folds as trial_folds
from services.analyzer.model.trials.folds import Told
from services.analyzer.model.trials.looks import Look, pass_time
from services.analyzer.model.trials.record import NO_TRIALS, Trials

CHECKED = ORDERS | ORDER_CHANGES | {"product_viewed"}
"""Types that are a dead letter where their properties have the wrong shape."""

LOOKS = frozenset({"product_viewed", "lot_watched", "bid_placed"})
"""Types that tell of a look at a product."""

_READ = {name: TYPED[name] for name in (*CHECKED, *LOOKS, *EFFECTS)}
"""Types whose properties move more than counts."""


class Models(NamedTuple):
    """All parts of what is known about one key; ``trials`` are never published."""

    profile: Profile
    items: Items
    trials: Trials = NO_TRIALS

    @classmethod
    def new(cls, customer: CustomerKey) -> Models:
        """A customer nothing is known about."""
        return cls(Profile(customer=customer), Items(customer=customer))

    def at(self, journal_time: Millis) -> Models:
        """What is known at that time: nothing of a visitor who is idle. Trials end by themselves.

        Trap: whoever asks what is known before an event is folded asks here. When the models are dropped
        hangs on how slices are cut.
        """
        if not is_idle(self.profile, journal_time):
            return self
        return Models.new(self.profile.customer)._replace(trials=self.trials)


class Step(NamedTuple):
    """What an event made of a customer. A part that is the same object as before did not change.

    ``looks`` fell due before it; ``dropped`` decisions were forgotten for it before their time. ``frozen`` is
    what a visitor key did for its last owner, under a key of its own from now on. ``labelled`` is the event
    as it is to be kept, where no person can have done it. ``idle``: his models were dropped before it.
    """

    models: Models
    lessons: tuple[Lesson, ...] = ()
    looks: tuple[Look, ...] = ()
    unmatched: bool = False
    dropped: int = 0
    frozen: Models | None = None
    labelled: Touchpoint | None = None
    idle: bool = False


def type_of(event: AboutCustomer) -> str:
    """The event's type, as totals and the timeline name it."""
    if type(event) is Touchpoint:
        return event.type
    if type(event) is Outcome:
        return event.outcome
    if type(event) is ConsentGiven:
        return "consent_given" if event.granted else "consent_refused"
    if type(event) is Decision:
        return "decision_made"
    if type(event) is IdentityLinked:
        return "identity_unlinked" if event.unlinked else "identity_linked"
    return "erased"


def fold(
    models: Models,
    event: AboutCustomer,
    journal_time: Millis,
    panel: Panel = EVERYBODY,
    *,
    number: int = 0,
) -> Step:
    """Fold ``event``, numbered ``number``, into ``models``, after all that fell due before ``journal_time``.

    Raises `Invalid` for an order, an end of one or a view of the wrong shape. Answers about nobody move
    nothing; echoes move trials alone. Who refuses analytics teaches nothing.
    """
    if is_nobody(event.customer):
        return Step(models)
    looks: list[Look] = []
    if models.trials.due < journal_time:
        trials, looks = pass_time(event.customer, models.trials, journal_time)
        # Trap: by what he had said until then. By what he says now, lessons would hang on how slices are cut.
        if refuses_analytics(models.profile.consents):
            looks = []
        models = models._replace(trials=trials)
    known = models.at(journal_time)
    idle, models = known is not models, known
    step = _fold(models, event, journal_time, panel, number)
    profile = step.models.profile
    if is_anonymous(event.customer) and (
        profile is not models.profile or step.models.items is not models.items
    ):
        seen = msgspec.structs.replace(profile, seen_at=journal_time)
        step = step._replace(models=step.models._replace(profile=seen))
    if step.lessons and refuses_analytics(step.models.profile.consents):
        step = step._replace(lessons=())
    return step._replace(looks=tuple(looks), idle=idle) if looks or idle else step


def _fold(models: Models, event: AboutCustomer, now: Millis, panel: Panel, number: int) -> Step:
    if type(event) is Touchpoint:
        return _on_touchpoint(models, event, now, panel)
    profile, told, unmatched = models.profile, None, False
    if type(event) is IdentityLinked:
        if event.customer == anonymous_key(event.anonymous_id):
            return _owned(models, event)
        profile = profile_folds.identified(profile, event)
        if event.internal:
            return Step(models._replace(profile=profile))
    elif type(event) is ConsentGiven:
        profile = profile_folds.consented(profile, event)
        if event.internal:
            return Step(models._replace(profile=profile))
    elif type(event) is Decision:
        profile = profile_folds.decided(profile, event)
        if event.analysed:
            told = trial_folds.remember(models.trials, event, now, number)
    elif type(event) is Outcome:
        if event.outcome in OBJECTIONS:
            profile = profile_folds.objected(profile, event)
        if event.learn:
            profile, matched = profile_folds.answered(profile, event)
            unmatched = not matched
            told = trial_folds.answer(models.trials, event, now)
    profile = profile_folds.counted(profile, type_of(event))
    if told is None:
        return Step(Models(profile, models.items, models.trials), unmatched=unmatched)
    after = Models(profile, models.items, told.trials)
    return Step(after, told.lessons, unmatched=unmatched, dropped=told.dropped)


def _owned(models: Models, event: IdentityLinked) -> Step:
    profile, frozen = profile_folds.owned(models.profile, event)
    if not event.internal:
        profile = profile_folds.counted(profile, type_of(event))
    if frozen is None:
        return Step(models._replace(profile=profile))
    items = msgspec.structs.replace(models.items, customer=frozen.customer)
    return Step(
        Models(profile, Items(customer=profile.customer), models.trials), frozen=Models(frozen, items)
    )


def _on_touchpoint(models: Models, event: Touchpoint, now: Millis, panel: Panel) -> Step:
    event = automatic.unjudged(event)
    shape = _READ.get(event.type)
    typed = _typed(event, shape) if shape is not None else None
    if event.echo:
        told = _tried(models.trials, event, typed, now)
        return Step(Models(models.profile, models.items, told.trials), told.lessons)
    if not event.learn:
        profile = refused(models.profile, typed, event)
        if not is_automatic(event.flags):
            profile = profile_folds.counted(profile, event.type)
        return Step(models._replace(profile=profile))
    profile, items = models.profile, models.items
    if event.type in automatic.JUDGED:
        profile, reason = automatic.judged(profile, typed, event)
        if reason is not None:
            labelled = msgspec.structs.replace(event, learn=False, flags=(*event.flags, reason))
            profile = profile_folds.counted(profile, event.type)
            return Step(models._replace(profile=profile), labelled=labelled)
    profile = _noted(profile, event, typed)
    at = event.occurred_at
    lessons: tuple[Lesson, ...] = ()
    # The types themselves: `isinstance` takes ten times as long where the answer is no.
    if type(typed) is Order:
        profile = profile_folds.bought(profile, typed, at)
        items = item_folds.bought(items, typed.products, at)
        lessons = (_order_lesson(event, typed, now, panel.before(models.items)),)
    elif type(typed) is OrderChange:
        if typed.products:
            items, value = item_folds.unbought(items, typed.products)
            profile = profile_folds.unbought(profile, value)
        else:
            profile = profile_folds.unbought(profile, None)
        lessons = (_change_lesson(event, typed, now),)
    elif (type(typed) is ProductSeen or type(typed) is Lot) and typed.product_id and event.type in LOOKS:
        items = item_folds.viewed(items, typed.product_id, at)
    if not lessons or not models.trials.kept:
        return Step(Models(profile, items, models.trials), lessons)
    told = _tried(models.trials, event, typed, now)
    return Step(Models(profile, items, told.trials), lessons + told.lessons)


def _noted(profile: Profile, event: Touchpoint, typed: msgspec.Struct | None) -> Profile:
    """All that a touchpoint does to a profile, orders apart."""
    missed = event.type == "call_missed" and isinstance(typed, Conversation) and typed.direction == "out"
    outbound = missed or event.type in OUTBOUND
    profile = (profile_folds.noted if outbound else profile_folds.touched)(profile, event)
    if event.account_id is not None and event.customer != account_key(event.account_id):
        profile = profile_folds.belonging(profile, event.account_id)
        if event.type in INSTALLED:
            return profile
    if typed is not None:
        for effect in EFFECTS.get(event.type, ()):
            profile = effect(profile, typed, event)
    return profile


def _tried(trials: Trials, event: Touchpoint, typed: msgspec.Struct | None, now: Millis) -> Told:
    """What an order, or the end of one, means for trials."""
    if not event.learn or not isinstance(typed, Order | OrderChange):
        return Told(trials)
    change = trial_folds.buy if isinstance(typed, Order) else trial_folds.unbuy
    return change(trials, event, typed.order_id, [line.product_id for line in typed.products], now)


def _typed(event: Touchpoint, shape: type[msgspec.Struct]) -> msgspec.Struct | None:
    try:
        return msgspec.convert(event.properties, shape)
    except msgspec.ValidationError as error:
        # An event of the time before its type had a shape: it counts, and nobody reads what it says.
        if event.type not in CHECKED:
            return None
        raise Invalid("wrong_type", f"{event.type}: {error}", "/properties") from None


def _lines(lines: list[OrderLine]) -> list[LessonLine]:
    return [
        LessonLine(line.product_id, line.quantity, None if line.price is None else bounded(line.price))
        for line in lines
    ]


def _order_lesson(event: Touchpoint, order: Order, journal_time: Millis, before: Items | None) -> OrderLesson:
    return OrderLesson(
        customer=event.customer,
        at=journal_time,
        occurred_at=event.occurred_at,
        order_id=order.order_id,
        lines=_lines(order.products),
        channel=event.channel,
        before=before,
    )


def _change_lesson(event: Touchpoint, change: OrderChange, journal_time: Millis) -> OrderChangeLesson:
    return OrderChangeLesson(
        customer=event.customer,
        at=journal_time,
        occurred_at=event.occurred_at,
        order_id=change.order_id,
        change="cancelled" if event.type == "order_cancelled" else "returned",
        lines=_lines(change.products),
    )
