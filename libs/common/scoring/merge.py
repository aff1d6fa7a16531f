"""Models of linked keys, read as one: counts add up, the strictest consent wins, caps hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TypeVar

from libs.common.clock import Millis
from libs.common.contracts.customer_model import (
    MAX_ASSETS,
    MAX_CASES,
    MAX_CLOSED,
    MAX_CONTACTS,
    MAX_DAYS,
    MAX_DECISIONS,
    MAX_ITEMS,
    MAX_LINKS,
    MAX_LOTS,
    MAX_RECENT,
    NEVER,
    Activity,
    Asset,
    CaseWords,
    Consent,
    Contact,
    Decayed,
    Item,
    Items,
    Lot,
    MadeDecision,
    Profile,
    Purchases,
    Reach,
    RecentTouch,
)
from libs.common.scoring.decay import (
    HALF_LIFE_DAY,
    HALF_LIFE_FORTNIGHT,
    HALF_LIFE_SEASON,
    joined,
)

T = TypeVar("T")
_Told = TypeVar("_Told", Lot, Asset)


def merge_profiles(profiles: Sequence[Profile]) -> Profile:
    """One profile of all ``profiles`` (at least one), under the first one's key and owner.

    The order of the others does not matter: sums are taken in the order of their keys.
    ``recent`` and ``decisions`` come oldest first, the newest are kept.
    """
    if len(profiles) == 1:
        return profiles[0]
    first = profiles[0]
    parts = sorted(profiles, key=lambda profile: profile.customer)
    words, retired = _words(parts), _retired(parts)
    cases = _cases(parts, words)
    return Profile(
        customer=first.customer,
        first_at=_earliest(part.first_at for part in parts),
        last_at=max(part.last_at for part in parts),
        totals=_totals(parts),
        activity=_activity(parts),
        purchases=_purchases(parts),
        hours=_hours(part.hours for part in parts),
        satisfaction=_mean(part.satisfaction for part in parts),
        consents=_consents(parts),
        links=_links(first, parts),
        owner=first.owner,
        recent=_recent(parts),
        decisions=_decisions(parts),
        contacts=_contacts(parts),
        reached=_reached(parts),
        answer_hours=_hours(part.answer_hours for part in parts),
        sentiment=_mean(part.sentiment for part in parts),
        cases=cases,
        lots=_newest((part.lots for part in parts), MAX_LOTS),
        assets=in_use(_newest((part.assets for part in parts), MAX_ASSETS), retired),
        account=first.account or next((part.account for part in parts if part.account), None),
        case_words=keep_words(words, cases),
        retired=retired,
    )


def installed_base(profile: Profile, account: Profile | None) -> dict[str, Asset]:
    """The machines of a person: those of his ``account``, and those that belong to him alone."""
    return {**profile.assets, **(account.assets if account is not None else {})}


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


def keep_latest(kept: dict[str, T], limit: int, at: Callable[[T], Millis]) -> dict[str, T]:
    """``kept`` without the earliest beyond ``limit`` (ties: the greater key leaves)."""
    if len(kept) <= limit:
        return kept
    ranked = sorted(kept, key=lambda key: (-at(kept[key]), key))
    return {key: kept[key] for key in ranked[:limit]}


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
        days=join_days(a.days, b.days),
    )


def join_days(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The latest `MAX_DAYS` days of both."""
    return tuple(sorted({*a, *b})[-MAX_DAYS:])


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


def _hours(parts: Iterable[tuple[Decayed, ...]]) -> tuple[Decayed, ...]:
    hours: tuple[Decayed, ...] = ()
    for part in parts:
        hours = tuple(
            joined(a, b, HALF_LIFE_SEASON) for a, b in zip_longest(hours, part, fillvalue=Decayed())
        )
    return hours


def _mean(parts: Iterable[tuple[Decayed, Decayed]]) -> tuple[Decayed, Decayed]:
    total, weight = Decayed(), Decayed()
    for part in parts:
        total = joined(total, part[0], HALF_LIFE_SEASON)
        weight = joined(weight, part[1], HALF_LIFE_SEASON)
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


def _contacts(parts: Sequence[Profile]) -> tuple[Contact, ...]:
    contacts = [contact for part in parts for contact in part.contacts]
    contacts.sort(key=lambda contact: contact.at)
    return tuple(contacts[-MAX_CONTACTS:])


def _reached(parts: Sequence[Profile]) -> dict[str, Reach]:
    merged: dict[str, Reach] = {}
    for part in parts:
        for channel, b in part.reached.items():
            a = merged.get(channel)
            merged[channel] = (
                b
                if a is None
                else Reach(
                    contacts=a.contacts + b.contacts,
                    last_contact_at=max(a.last_contact_at, b.last_contact_at),
                    contacted=joined(a.contacted, b.contacted, HALF_LIFE_SEASON),
                    answers=a.answers + b.answers,
                    last_answer_at=max(a.last_answer_at, b.last_answer_at),
                    answered=joined(a.answered, b.answered, HALF_LIFE_SEASON),
                    undeliverable_at=max(a.undeliverable_at, b.undeliverable_at),
                )
            )
    return merged


def join_words(a: CaseWords, b: CaseWords) -> CaseWords:
    """The last words on a case of both."""
    return CaseWords(max(a.opened_at, b.opened_at), max(a.closed_at, b.closed_at))


def keep_words(told: dict[str, CaseWords], cases: Mapping[str, Millis]) -> dict[str, CaseWords]:
    """``told`` of the open ``cases``, and the `MAX_CLOSED` latest of others.

    Trap: what was said of an open case never leaves, or an end of an earlier opening, told late, closes it.
    """
    closed = {case_id: words for case_id, words in told.items() if case_id not in cases}
    kept = keep_latest(closed, MAX_CLOSED, lambda words: max(words.opened_at, words.closed_at))
    return kept | {case_id: told[case_id] for case_id in cases if case_id in told}


def _words(parts: Sequence[Profile]) -> dict[str, CaseWords]:
    merged: dict[str, CaseWords] = {}
    for part in parts:
        for case_id, words in part.case_words.items():
            merged[case_id] = join_words(merged.get(case_id, words), words)
    return merged


def _cases(parts: Sequence[Profile], told: dict[str, CaseWords]) -> dict[str, Millis]:
    merged: dict[str, Millis] = {}
    for part in parts:
        for case_id, since in part.cases.items():
            words = told.get(case_id, CaseWords(opened_at=since))
            if words.open:
                since = since if since > words.closed_at else words.opened_at
                merged[case_id] = min(since, merged.get(case_id, since))
    return keep_latest(merged, MAX_CASES, lambda at: at)


def _retired(parts: Sequence[Profile]) -> dict[str, Millis]:
    merged: dict[str, Millis] = {}
    for part in parts:
        for asset_id, at in part.retired.items():
            merged[asset_id] = max(at, merged.get(asset_id, at))
    return keep_latest(merged, MAX_ASSETS, lambda at: at)


def in_use(assets: dict[str, Asset], retired: Mapping[str, Millis]) -> dict[str, Asset]:
    """Those of ``assets`` that were registered after they were ``retired`` last."""
    return {name: one for name, one in assets.items() if one.registered_at > retired.get(name, NEVER)}


def _newest(held: Iterable[dict[str, _Told]], most: int) -> dict[str, _Told]:
    """Of each id what was told last, and of all ids the latest ``most``."""
    merged: dict[str, _Told] = {}
    for part in held:
        for key, told in part.items():
            if key not in merged or told.at > merged[key].at:
                merged[key] = told
    return keep_latest(merged, most, lambda told: told.at)
