"""Whom an answer is for: the key decided for, and the keys whose models are read as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from libs.common.contracts.customer_model import Consent, Items, Profile, frozen_of
from libs.common.contracts.identity import NOBODY, CustomerKey, anonymous_key, partition_of
from libs.common.scoring.merge import merge_items, merge_profiles

Known = tuple[Profile | None, Items | None]
Read = Callable[[CustomerKey], Known]


class Who(NamedTuple):
    """The customer of one request.

    Parameters
    ----------
    key:
        The key the decision is filed under.
    keys:
        Keys read for it; none where nobody is named.
    profile, items:
        Their merged model; None where nothing is known.
    consents:
        What all of them said, the strictest, the owner's included.
    """

    key: CustomerKey
    keys: tuple[CustomerKey, ...]
    profile: Profile | None
    items: Items | None
    consents: dict[str, Consent]

    @property
    def partitions(self) -> frozenset[int]:
        return frozenset(partition_of(key) for key in self.keys)


def who(customer_id: str | None, anonymous_id: str | None, decision_id: str, read: Read) -> Who:
    """Read whoever is named; both ids mean the customer, his links and this visitor."""
    visitor = anonymous_key(anonymous_id) if anonymous_id else None
    if customer_id is not None:
        return _customer(customer_id, visitor, read)
    if visitor is None:
        return Who(NOBODY + decision_id, (), None, None, {})
    profile, items = read(visitor)
    voices = [profile]
    keys: tuple[CustomerKey, ...] = (visitor,)
    if profile is not None and profile.owner:
        # Only his word on consent: what the owner did elsewhere is not this visitor's to see.
        voices.append(read(profile.owner)[0])
        keys = (visitor, profile.owner)
    heard = [voice for voice in voices if voice is not None]
    consents = merge_profiles(heard).consents if heard else {}
    return Who(visitor, keys, profile, items, consents)


def _customer(customer: CustomerKey, visitor: CustomerKey | None, read: Read) -> Who:
    profile, items = read(customer)
    links: Sequence[CustomerKey] = () if profile is None else profile.links
    keys = list(dict.fromkeys((customer, *links, *(() if visitor is None else (visitor,)))))
    profiles = [] if profile is None else [profile]
    baskets = [] if items is None else [items]
    for key in keys[1:]:
        linked, seen = read(key)
        parts = [] if linked is None else [read(part) for part in frozen_of(linked, customer)]
        # Trap: a shared device. What belongs to somebody else by now is not read, whoever names it.
        if linked is None or linked.owner in (None, customer):
            parts.append((linked, seen))
        for part, items_of_part in parts:
            if part is not None:
                profiles.append(part)
            if items_of_part is not None:
                baskets.append(items_of_part)
    merged = merge_profiles(profiles) if profiles else None
    return Who(
        key=customer,
        keys=tuple(keys),
        profile=merged,
        items=merge_items(baskets) if baskets else None,
        consents={} if merged is None else merged.consents,
    )
