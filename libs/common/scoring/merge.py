"""Models of linked keys, read as one: counts add up, the strictest consent wins, caps hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from libs.common.clock import Millis
from libs.common.contracts.customer_model import (
    MAX_DECISIONS,
    MAX_ITEMS,
    MAX_LINKS,
    MAX_RECENT,
    Activity,
    Consent,
    Decayed,
    Item,
    Items,
    MadeDecision,
    Profile,
    Purchases,
    RecentTouch,
)
from libs.common.scoring.decay import (
    HALF_LIFE_DAY,
    HALF_LIFE_FORTNIGHT,
    HALF_LIFE_SEASON,
    joined,
)


def merge_profiles(profiles: Sequence[Profile]) -> Profile:
    """One profile of all ``profiles`` (at least one), under the first one's key and owner.

    The order of the others does not matter: sums are taken in the order of their keys.
    ``recent`` and ``decisions`` come oldest first, the newest are kept.
    """
    if len(profiles) == 1:
        return profiles[0]
    first = profiles[0]
    parts = sorted(profiles, key=lambda profile: profile.customer)
    return Profile(
        customer=first.customer,
        first_at=_earliest(part.first_at for part in parts),
        last_at=max(part.last_at for part in parts),
        totals=_totals(parts),
        activity=_activity(parts),
        purchases=_purchases(parts),
        hours=_hours(parts),
        satisfaction=_satisfaction(parts),
        consents=_consents(parts),
        links=_links(first, parts),
        owner=first.owner,
        recent=_recent(parts),
        decisions=_decisions(parts),
    )


def merge_items(parts: Sequence[Items]) -> Items:
    """The items of all ``parts`` (at least one) under the first one's key, the most recent within the cap."""
    if len(parts) == 1:
        return parts[0]
    merged: dict[str, Item] = {}
    for part in sorted(parts, key=lambda items: items.customer):
        for product_id, item in part.items.items():
            known = merged.get(product_id)
            merged[product_id] = item if known is None else join_item(known, item)
    return Items(customer=parts[0].customer, items=keep_recent(merged))


def keep_recent(items: dict[str, Item], limit: int = MAX_ITEMS) -> dict[str, Item]:
    """``items`` without the least recently bought or seen beyond ``limit`` (ties: the greater id leaves)."""
    if len(items) <= limit:
        return items
    ranked = sorted(items, key=lambda key: (-max(items[key].last_bought_at, items[key].last_viewed_at), key))
    kept = set(ranked[:limit])
    return {key: item for key, item in items.items() if key in kept}


def join_item(a: Item, b: Item) -> Item:
    """What two keys know about one product: exact for counts, times, cycle and quantity."""
    orders = a.orders + b.orders
    later = a if (a.last_bought_at, a.price) >= (b.last_bought_at, b.price) else b
    return Item(
        orders=orders,
        bought=joined(a.bought, b.bought, HALF_LIFE_SEASON),
        last_bought_at=later.last_bought_at,
        cycle=_cycle(a, b),
        quantity=(a.quantity * a.orders + b.quantity * b.orders) / orders if orders else 0.0,
        price=later.price,
        viewed=joined(a.viewed, b.viewed, HALF_LIFE_FORTNIGHT),
        last_viewed_at=max(a.last_viewed_at, b.last_viewed_at),
    )


def _cycle(a: Item, b: Item) -> float:
    # The mean of n − 1 gaps is (last − first) / (n − 1), so the first purchase can be had back from it.
    bought = [item for item in (a, b) if item.orders]
    orders = sum(item.orders for item in bought)
    if orders < 2:
        return 0.0
    first = min(item.last_bought_at - item.cycle * (item.orders - 1) for item in bought)
    return (max(item.last_bought_at for item in bought) - first) / (orders - 1)


def _earliest(times: Iterable[Millis]) -> Millis:
    return min((at for at in times if at), default=0)


def _totals(parts: Sequence[Profile]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for part in parts:
        for name, count in part.totals.items():
            totals[name] = totals.get(name, 0) + count
    return totals


def _activity(parts: Sequence[Profile]) -> dict[str, Activity]:
    merged: dict[str, Activity] = {}
    for part in parts:
        for name, b in part.activity.items():
            a = merged.get(name)
            merged[name] = (
                b
                if a is None
                else Activity(
                    total=a.total + b.total,
                    last_at=max(a.last_at, b.last_at),
                    day=joined(a.day, b.day, HALF_LIFE_DAY),
                    fortnight=joined(a.fortnight, b.fortnight, HALF_LIFE_FORTNIGHT),
                    season=joined(a.season, b.season, HALF_LIFE_SEASON),
                )
            )
    return merged


def _purchases(parts: Sequence[Profile]) -> Purchases:
    recent = Decayed()
    for part in parts:
        recent = joined(recent, part.purchases.recent_value, HALF_LIFE_SEASON)
    return Purchases(
        orders=sum(part.purchases.orders for part in parts),
        value=sum(part.purchases.value for part in parts),
        first_at=_earliest(part.purchases.first_at for part in parts),
        last_at=max(part.purchases.last_at for part in parts),
        recent_value=recent,
    )


def _hours(parts: Sequence[Profile]) -> tuple[Decayed, ...]:
    hours: tuple[Decayed, ...] = ()
    for part in parts:
        hours = tuple(
            joined(a, b, HALF_LIFE_SEASON) for a, b in zip_longest(hours, part.hours, fillvalue=Decayed())
        )
    return hours


def _satisfaction(parts: Sequence[Profile]) -> tuple[Decayed, Decayed]:
    total, weight = Decayed(), Decayed()
    for part in parts:
        total = joined(total, part.satisfaction[0], HALF_LIFE_SEASON)
        weight = joined(weight, part.satisfaction[1], HALF_LIFE_SEASON)
    return total, weight


def _consents(parts: Sequence[Profile]) -> dict[str, Consent]:
    merged: dict[str, Consent] = {}
    for part in parts:
        for purpose, consent in part.consents.items():
            known = merged.get(purpose)
            # Trap: the later word wins within one key only. Between keys a refusal holds, however old.
            if known is None or (not consent.granted, consent.at) > (not known.granted, known.at):
                merged[purpose] = consent
    return merged


def _links(first: Profile, parts: Sequence[Profile]) -> tuple[str, ...]:
    links = dict.fromkeys(first.links)
    for part in parts:
        links.update(dict.fromkeys(part.links))
    return tuple(links)[:MAX_LINKS]


def _recent(parts: Sequence[Profile]) -> tuple[RecentTouch, ...]:
    touches = [touch for part in parts for touch in part.recent]
    touches.sort(key=lambda touch: touch.at)
    return tuple(touches[-MAX_RECENT:])


def _decisions(parts: Sequence[Profile]) -> tuple[MadeDecision, ...]:
    made = {decision.decision_id: decision for part in parts for decision in part.decisions}
    ranked = sorted(made.values(), key=lambda decision: (decision.at, decision.decision_id))
    return tuple(ranked[-MAX_DECISIONS:])
