"""Models and events as people and scripts read them over HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_event import (
    AboutCustomer,
    ConsentGiven,
    Decision,
    IdentityLinked,
    Outcome,
    Touchpoint,
)
from libs.common.contracts.customer_model import Decayed, Items, Profile
from libs.common.contracts.identity import CustomerKey
from libs.common.scoring.decay import (
    HALF_LIFE_DAY,
    HALF_LIFE_FORTNIGHT,
    HALF_LIFE_SEASON,
    faded,
)
from libs.common.times import format_time
from services.analyzer.model.fold import type_of

MOST_ITEMS = 100


class ActivityView(Struct, frozen=True):
    """Touchpoints of one channel and type; counts that fade with half-lives of 1, 14 and 120 days."""

    channel: str
    type: str
    total: int
    last_at: str
    day: float
    fortnight: float
    season: float


class PurchasesView(Struct, frozen=True):
    """All orders; amounts in the base currency, ``recent_value`` with a half-life of 120 days."""

    orders: int
    value: float
    first_at: str | None
    last_at: str | None
    recent_value: float


class ConsentView(Struct, frozen=True):
    purpose: str
    granted: bool
    at: str


class RecentView(Struct, frozen=True):
    """One of the latest touchpoints."""

    type: str
    channel: str
    occurred_at: str
    product_id: str | None


class DecisionView(Struct, frozen=True):
    """A decision that may still find outcomes, and those it found."""

    decision_id: str
    decided_at: str
    placement: str
    offers: list[str]
    outcomes: list[str]


class ItemView(Struct, frozen=True):
    """A product in the customer's life; ``bought`` (120 days) and ``viewed`` (14 days) fade by half-lives."""

    product_id: str
    orders: int
    bought: float
    last_bought_at: str | None
    cycle_days: float | None
    quantity: float
    price: float | None
    viewed: float
    last_viewed_at: str | None


class CustomerView(Struct, frozen=True):
    """What is known about a customer, his visitor keys included.

    Fading counts are told as of ``last_at``. ``totals`` are events by type; ``recent`` the latest
    touchpoints, newest first; ``hours`` touchpoints by hour of day in UTC; ``satisfaction`` from -1 to 1;
    ``items`` the most recent products.
    """

    customer: CustomerKey
    owner: CustomerKey | None
    links: list[CustomerKey]
    first_at: str | None
    last_at: str | None
    totals: dict[str, int]
    recent: list[RecentView]
    activity: list[ActivityView]
    purchases: PurchasesView
    hours: dict[str, float]
    satisfaction: float | None
    consents: list[ConsentView]
    decisions: list[DecisionView]
    items: list[ItemView]


class TimelineEntry(Struct, frozen=True):
    """An event that counted. ``id`` is unique within the customer; a decision's is its decision_id."""

    id: str
    kind: str
    type: str
    channel: str | None
    occurred_at: str
    recorded_at: str
    properties: dict[str, Any]


def readable(profile: Profile, items: Items) -> CustomerView:
    """A (merged) model for people."""
    at = profile.last_at
    return CustomerView(
        customer=profile.customer,
        owner=profile.owner or None,
        links=list(profile.links),
        first_at=_time(profile.first_at),
        last_at=_time(at),
        totals=profile.totals,
        recent=[
            RecentView(touch.type, touch.channel, format_time(touch.at), touch.product_id)
            for touch in reversed(profile.recent)
        ],
        activity=_activity(profile, at),
        purchases=_purchases(profile, at),
        hours={
            str(hour): _rounded(count, at, HALF_LIFE_SEASON)
            for hour, count in enumerate(profile.hours)
            if count.weight > 0.0
        },
        satisfaction=_satisfaction(profile),
        consents=[
            ConsentView(purpose, consent.granted, format_time(consent.at))
            for purpose, consent in sorted(profile.consents.items())
        ],
        decisions=[
            DecisionView(
                made.decision_id,
                format_time(made.at),
                made.placement,
                list(made.offers),
                list(made.outcomes),
            )
            for made in reversed(profile.decisions)
        ],
        items=_items(items, at),
    )


def _time(at: Millis) -> str | None:
    return format_time(at) if at else None


def _rounded(count: Decayed, at: Millis, half_life: Millis) -> float:
    return round(faded(count, at, half_life), 4)


def _activity(profile: Profile, at: Millis) -> list[ActivityView]:
    views = []
    for name, activity in sorted(profile.activity.items()):
        channel, _, type_ = name.partition("/")
        views.append(
            ActivityView(
                channel=channel,
                type=type_,
                total=activity.total,
                last_at=format_time(activity.last_at),
                day=_rounded(activity.day, at, HALF_LIFE_DAY),
                fortnight=_rounded(activity.fortnight, at, HALF_LIFE_FORTNIGHT),
                season=_rounded(activity.season, at, HALF_LIFE_SEASON),
            )
        )
    return views


def _purchases(profile: Profile, at: Millis) -> PurchasesView:
    bought = profile.purchases
    return PurchasesView(
        orders=bought.orders,
        value=round(bought.value, 2),
        first_at=_time(bought.first_at),
        last_at=_time(bought.last_at),
        recent_value=round(faded(bought.recent_value, at, HALF_LIFE_SEASON), 2),
    )


def _satisfaction(profile: Profile) -> float | None:
    total, weight = profile.satisfaction
    return round(total.weight / weight.weight, 4) if weight.weight > 0.0 else None


def _items(items: Items, at: Millis) -> list[ItemView]:
    ranked = sorted(
        items.items.items(),
        key=lambda entry: (-max(entry[1].last_bought_at, entry[1].last_viewed_at), entry[0]),
    )
    return [
        ItemView(
            product_id=product_id,
            orders=item.orders,
            bought=_rounded(item.bought, at, HALF_LIFE_SEASON),
            last_bought_at=_time(item.last_bought_at),
            cycle_days=round(item.cycle / DAY, 2) if item.cycle else None,
            quantity=round(item.quantity, 4),
            price=item.price or None,
            viewed=_rounded(item.viewed, at, HALF_LIFE_FORTNIGHT),
            last_viewed_at=_time(item.last_viewed_at),
        )
        for product_id, item in ranked[:MOST_ITEMS]
    ]


def entry_of(event: AboutCustomer, id_: str, kind: str) -> TimelineEntry:
    """An event for people; ``id_`` is its id made unique."""
    return TimelineEntry(
        id=id_,
        kind=kind,
        type=type_of(event),
        channel=_channel(event),
        occurred_at=format_time(event.occurred_at),
        recorded_at=format_time(event.recorded_at),
        properties=_properties(event),
    )


def _channel(event: AboutCustomer) -> str | None:
    return event.channel if isinstance(event, Touchpoint | Decision | ConsentGiven) else None


def _properties(event: AboutCustomer) -> dict[str, Any]:
    if isinstance(event, Touchpoint):
        return event.properties
    if isinstance(event, Decision):
        return {
            "placement": event.placement,
            "group": event.group,
            "policy_version": event.policy_version,
            "offers": [
                {
                    "offer_id": offer.offer_id,
                    "product_id": offer.product_id,
                    "kind": offer.kind,
                    "rank": offer.rank,
                    "propensity": offer.propensity,
                }
                for offer in event.offers
            ],
        }
    names: tuple[str, ...] = ()
    if isinstance(event, Outcome):
        names = ("decision_id", "offer_id", "product_id", "value", "order_id", "placement")
    elif isinstance(event, ConsentGiven):
        names = ("purpose", "granted", "text_version")
    elif isinstance(event, IdentityLinked):
        names = ("customer_id", "anonymous_id")
    whole = msgspec.structs.asdict(event)
    return {name: whole[name] for name in names if whole[name] is not None}
