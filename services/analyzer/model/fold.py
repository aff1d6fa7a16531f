"""One event and a customer's models in, his new models and perhaps a lesson out."""

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
from libs.common.contracts.customer_model import Items, Profile
from libs.common.contracts.identity import CustomerKey, is_nobody
from libs.common.contracts.touchpoint import TYPED, Order, OrderChange, OrderLine, ProductSeen
from libs.common.errors import Invalid
from libs.common.scoring.decay import bounded
from services.analyzer.model import items as item_folds
from services.analyzer.model import profile as profile_folds
from services.analyzer.model.lessons import Lesson, LessonLine, OrderChangeLesson, OrderLesson
from services.analyzer.model.panel import EVERYBODY, Panel


class Models(NamedTuple):
    """Both parts of what is known about one key."""

    profile: Profile
    items: Items

    @classmethod
    def new(cls, customer: CustomerKey) -> Models:
        """A customer nothing is known about."""
        return cls(Profile(customer=customer), Items(customer=customer))


class Step(NamedTuple):
    """What an event made of a customer. A part that is the same object as before did not change."""

    models: Models
    lesson: Lesson | None = None
    unmatched: bool = False


def type_of(event: AboutCustomer) -> str:
    """The event's type, as totals and the timeline name it."""
    if isinstance(event, Touchpoint):
        return event.type
    if isinstance(event, Outcome):
        return event.outcome
    if isinstance(event, ConsentGiven):
        return "consent_given" if event.granted else "consent_refused"
    if isinstance(event, Decision):
        return "decision_made"
    return "identity_linked" if isinstance(event, IdentityLinked) else "erased"


def fold(models: Models, event: AboutCustomer, journal_time: Millis, panel: Panel = EVERYBODY) -> Step:
    """Fold ``event`` into ``models``; raises `Invalid` for a typed touchpoint of the wrong shape.

    Echoes and answers about nobody move nothing.
    """
    if is_nobody(event.customer):
        return Step(models)
    if isinstance(event, Touchpoint):
        if event.echo:
            return Step(models)
        return _on_touchpoint(models, event, journal_time, panel)
    profile = models.profile
    unmatched = False
    if isinstance(event, IdentityLinked):
        profile = profile_folds.identified(profile, event)
        if event.internal:
            return Step(models._replace(profile=profile))
    elif isinstance(event, ConsentGiven):
        profile = profile_folds.consented(profile, event)
    elif isinstance(event, Decision):
        profile = profile_folds.decided(profile, event)
    elif isinstance(event, Outcome) and event.learn:
        profile, matched = profile_folds.answered(profile, event)
        unmatched = not matched
    profile = profile_folds.counted(profile, type_of(event))
    return Step(models._replace(profile=profile), unmatched=unmatched)


def _on_touchpoint(models: Models, event: Touchpoint, journal_time: Millis, panel: Panel) -> Step:
    shape = TYPED.get(event.type)
    typed = _typed(event, shape) if shape is not None else None
    if not event.learn:
        return Step(models._replace(profile=profile_folds.counted(models.profile, event.type)))
    profile, items = profile_folds.touched(models.profile, event), models.items
    at = event.occurred_at
    lesson: Lesson | None = None
    if isinstance(typed, Order):
        profile = profile_folds.bought(profile, typed, at)
        items = item_folds.bought(items, typed.products, at)
        lesson = _order_lesson(event, typed, journal_time, panel.before(models.items))
    elif isinstance(typed, OrderChange):
        if typed.products:
            items, value = item_folds.unbought(items, typed.products)
            profile = profile_folds.unbought(profile, value)
        else:
            profile = profile_folds.unbought(profile, None)
        lesson = _change_lesson(event, typed, journal_time)
    elif isinstance(typed, ProductSeen) and typed.product_id and event.type == "product_viewed":
        items = item_folds.viewed(items, typed.product_id, at)
    rating = profile_folds.rating_of(event)
    if rating is not None:
        profile = profile_folds.rated(profile, rating, at)
    return Step(Models(profile, items), lesson)


def _typed(event: Touchpoint, shape: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return msgspec.convert(event.properties, shape)
    except msgspec.ValidationError as error:
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
