"""Folds of the profile: who the customer is and how he reacts, one event at a time.

Pure and deterministic to the bit: only what the event carries counts, and no result depends on the order
of a dict (decoding a stored model sorts its keys). Whatever arrives, a profile stays bounded.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from msgspec.structs import replace

from libs.common.clock import HOUR, Millis
from libs.common.contracts.customer_event import ConsentGiven, Decision, IdentityLinked, Outcome, Touchpoint
from libs.common.contracts.customer_model import (
    MARKETING,
    MAX_DECISIONS,
    MAX_FROZEN,
    MAX_LINKS,
    MAX_RECENT,
    Activity,
    Consent,
    Decayed,
    MadeDecision,
    Profile,
    Purchases,
    RecentTouch,
)
from libs.common.contracts.identity import NOBODYS, anonymous_key, frozen_key
from libs.common.contracts.touchpoint import Order, OrderLine
from libs.common.scoring.decay import (
    HALF_LIFE_DAY,
    HALF_LIFE_FORTNIGHT,
    HALF_LIFE_SEASON,
    added,
    bounded,
)

MAX_TOTALS = 64
MAX_ACTIVITY = 64
MAX_CONSENTS = 64
MAX_OFFERS = 32
MAX_NAME = 64
MAX_ID = 256
OTHER = "other"

_NO_ACTIVITY = Activity(total=0, last_at=0, day=Decayed(), fortnight=Decayed(), season=Decayed())
_NO_HOURS = (Decayed(),) * 24


def counted(profile: Profile, type_: str) -> Profile:
    """One more event of ``type_`` in the totals, and nothing else."""
    name = bounded_name(profile.totals, type_, MAX_TOTALS)
    return replace(profile, totals={**profile.totals, name: profile.totals.get(name, 0) + 1})


def bounded_name(known: Mapping[str, object], name: str, limit: int) -> str:
    """``name``, or `OTHER` where there are ``limit`` names already or it is too long to be one."""
    if name in known:
        return name
    return name if len(known) < limit and len(name) <= MAX_NAME else OTHER


def noted(profile: Profile, event: Touchpoint) -> Profile:
    """What was done to a customer, not by him, moves totals and activity alone."""
    total = bounded_name(profile.totals, event.type, MAX_TOTALS)
    place = activity_name(profile.activity, event.channel, event.type)
    activity = _more_active(profile.activity.get(place, _NO_ACTIVITY), event.occurred_at)
    return replace(
        profile,
        totals={**profile.totals, total: profile.totals.get(total, 0) + 1},
        activity={**profile.activity, place: activity},
    )


def touched(profile: Profile, event: Touchpoint) -> Profile:
    """A touchpoint moves totals, activity, hours, recency and the recent session."""
    at = event.occurred_at
    total = bounded_name(profile.totals, event.type, MAX_TOTALS)
    place = activity_name(profile.activity, event.channel, event.type)
    hours = list(profile.hours or _NO_HOURS)
    hour = at // HOUR % 24
    hours[hour] = added(hours[hour], 1.0, at, HALF_LIFE_SEASON)
    return replace(
        profile,
        first_at=min(profile.first_at, at) if profile.first_at else at,
        last_at=max(profile.last_at, at) if profile.last_at else at,
        totals={**profile.totals, total: profile.totals.get(total, 0) + 1},
        activity={**profile.activity, place: _more_active(profile.activity.get(place, _NO_ACTIVITY), at)},
        hours=tuple(hours),
        recent=_with_recent(profile.recent, event),
    )


def activity_name(known: Mapping[str, object], channel: str, type_: str) -> str:
    # Between the channel and type as said and nothing at all, the channel's other types keep the channel.
    name = f"{channel}/{type_}"
    if name in known or (len(known) < MAX_ACTIVITY and len(name) <= 2 * MAX_NAME):
        return name
    name = f"{channel}/{OTHER}"
    return name if name in known else f"{OTHER}/{OTHER}"


def _more_active(activity: Activity, at: Millis) -> Activity:
    return Activity(
        total=activity.total + 1,
        last_at=max(activity.last_at, at) if activity.total else at,
        day=added(activity.day, 1.0, at, HALF_LIFE_DAY),
        fortnight=added(activity.fortnight, 1.0, at, HALF_LIFE_FORTNIGHT),
        season=added(activity.season, 1.0, at, HALF_LIFE_SEASON),
    )


def _with_recent(recent: tuple[RecentTouch, ...], event: Touchpoint) -> tuple[RecentTouch, ...]:
    """Oldest first; touchpoints of the same moment in the order they arrived."""
    product = event.properties.get("product_id")
    touch = RecentTouch(
        event.occurred_at,
        event.type if len(event.type) <= MAX_NAME else OTHER,
        event.channel if len(event.channel) <= MAX_NAME else OTHER,
        product if isinstance(product, str) and 0 < len(product) <= 256 else None,
    )
    if not recent or touch.at >= recent[-1].at:
        return (*recent, touch)[-MAX_RECENT:]
    place = bisect_right(recent, touch.at, key=lambda other: other.at)
    return (*recent[:place], touch, *recent[place:])[-MAX_RECENT:]


def worth(lines: list[OrderLine]) -> float:
    """What ``lines`` cost together; a line without price counts nothing."""
    return bounded(sum(line.price * line.quantity for line in lines if line.price is not None))


def bought(profile: Profile, order: Order, at: Millis) -> Profile:
    """An order moves recency, frequency and monetary value."""
    value = worth(order.products)
    if value == 0.0 and order.total is not None:
        value = bounded(order.total)
    old = profile.purchases
    return replace(
        profile,
        purchases=Purchases(
            orders=old.orders + 1,
            value=bounded(old.value + value),
            first_at=min(old.first_at, at) if old.orders else at,
            last_at=max(old.last_at, at) if old.orders else at,
            recent_value=added(old.recent_value, value, at, HALF_LIFE_SEASON),
        ),
    )


def unbought(profile: Profile, value: float | None) -> Profile:
    """Goods worth ``value`` came back; None: a whole order whose lines nobody named, so an average one."""
    old = profile.purchases
    if old.orders == 0:
        return profile
    if value is None:
        left = (old.orders - 1) / old.orders
        purchases = Purchases(
            orders=old.orders - 1,
            value=old.value * left,
            first_at=old.first_at,
            last_at=old.last_at,
            recent_value=Decayed(old.recent_value.weight * left, old.recent_value.at),
        )
    else:
        recent = added(old.recent_value, -value, old.last_at, HALF_LIFE_SEASON)
        purchases = Purchases(
            orders=old.orders,
            value=max(0.0, old.value - value),
            first_at=old.first_at,
            last_at=old.last_at,
            recent_value=Decayed(max(0.0, recent.weight), recent.at),
        )
    return replace(profile, purchases=purchases)


def consented(profile: Profile, event: ConsentGiven) -> Profile:
    """What the customer said of a purpose, for all channels or one."""
    word = Consent(
        event.granted, event.occurred_at, event.recorded_at, event.source, event.said_at, event.text_version
    )
    return consent_said(profile, event.purpose, event.channel, word)


def objected(profile: Profile, event: Outcome) -> Profile:
    """Whoever unsubscribes from an offer, or complains of it, refuses marketing by its channel."""
    # Trap: whatever must not be learned of it. Told for the future it could not be taken back until then.
    at = min(event.occurred_at, event.recorded_at)
    channel = event.channel or next(
        (made.channel for made in profile.decisions if made.decision_id == event.decision_id), None
    )
    word = Consent(False, at, event.recorded_at, event.source, event.outcome)
    # Where nobody knows the channel any more he refuses all of them.
    return consent_said(profile, MARKETING, channel or None, word)


def consent_said(profile: Profile, purpose: str, channel: str | None, word: Consent) -> Profile:
    """The latest word on a purpose holds; of two at the same moment the refusal."""
    name = purpose if channel is None else f"{purpose}/{channel}"
    name = bounded_name(profile.consents, name, MAX_CONSENTS)
    known = profile.consents.get(name)
    if name == OTHER and word.granted and known is not None and not known.granted:
        # It may be another purpose: a word on one must not take back a refusal of another.
        return profile
    if known is not None and (known.at, not known.granted) > (word.at, not word.granted):
        return profile
    return replace(profile, consents={**profile.consents, name: word})


def identified(profile: Profile, event: IdentityLinked) -> Profile:
    """Under the customer: one link more (the newest `MAX_LINKS` stay), or one less."""
    visitor = anonymous_key(event.anonymous_id)
    if event.unlinked:
        return replace(profile, links=tuple(link for link in profile.links if link != visitor))
    if visitor in profile.links:
        return profile
    return replace(profile, links=(*profile.links, visitor)[-MAX_LINKS:])


def owned(profile: Profile, event: IdentityLinked) -> tuple[Profile, Profile | None]:
    """Under the visitor: the profile of whom he belongs to now, and that of his time before, frozen.

    Frozen only where another owner is named. What was counted before the first owner, or since a link was
    taken back, is the next owner's. A refusal stays on the device as well; decisions stay for their outcomes.
    """
    before = profile.owner
    if event.unlinked:
        return (replace(profile, owner=NOBODYS) if before == event.customer_id else profile), None
    if before == event.customer_id:
        return profile, None
    if len(profile.frozen) >= MAX_FROZEN:
        return (replace(profile, owner=NOBODYS) if before else profile), None
    if not before:
        return replace(profile, owner=event.customer_id), None
    key = frozen_key(profile.customer, len(profile.frozen) + 1)
    anew = Profile(
        customer=profile.customer,
        consents={name: word for name, word in profile.consents.items() if not word.granted},
        owner=event.customer_id,
        frozen=(*profile.frozen, before),
        decisions=profile.decisions,
    )
    return anew, replace(profile, customer=key, frozen=(), decisions=(), seen_at=0)


def belonging(profile: Profile, account_id: str) -> Profile:
    """He belongs to this account, by the latest word that came."""
    if profile.account == account_id or len(account_id) > MAX_ID:
        return profile
    return replace(profile, account=account_id)


def decided(profile: Profile, event: Decision) -> Profile:
    """A decision waits for its outcomes; the newest `MAX_DECISIONS` are remembered, oldest first."""
    if any(made.decision_id == event.id for made in profile.decisions):
        return profile
    made = MadeDecision(
        decision_id=event.id,
        at=event.occurred_at,
        placement=event.placement,
        offers=tuple(offer.offer_id for offer in event.offers[:MAX_OFFERS]),
        channel=event.channel if len(event.channel) <= MAX_NAME else "",
    )
    ranked = sorted((*profile.decisions, made), key=lambda other: (other.at, other.decision_id))
    return replace(profile, decisions=tuple(ranked[-MAX_DECISIONS:]))


def answered(profile: Profile, event: Outcome) -> tuple[Profile, bool]:
    """An outcome finds its decision, each word once; False where the decision is unknown or forgotten."""
    for place, made in enumerate(profile.decisions):
        if made.decision_id != event.decision_id:
            continue
        if event.outcome in made.outcomes:
            return profile, True
        told = replace(made, outcomes=(*made.outcomes, event.outcome))
        decisions = (*profile.decisions[:place], told, *profile.decisions[place + 1 :])
        return replace(profile, decisions=decisions), True
    return profile, False
