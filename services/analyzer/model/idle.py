"""Visitors of whom nobody hears any more: their models are dropped, by journal time.

A visitor is idle once journal time is more than `IDLE` after the latest event that moved his model. That
falls due after every event of its journal time and before any later one, and what it makes of him depends on
nobody else: so it is the same whether it comes with a tick, or before the event he comes back with.

A timer only says when to look. It is set once and never later than the visitor can be idle, so that what he
does moves no index; found too early it is set anew.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_model import Profile
from libs.common.contracts.identity import CustomerKey, is_anonymous

IDLE: Millis = 90 * DAY
"""Journal time without event after which the models of a visitor are dropped."""


class IdleTimer(NamedTuple):
    """When to look whether a visitor is idle, in journal time; no more where ``due`` is 0."""

    partition: int
    customer: CustomerKey
    due: Millis


def is_kept(visitor: Profile) -> bool:
    """Whether he is kept however long he is silent: he counts for a customer, or has refused something."""
    if visitor.owner or visitor.frozen:
        return True
    return any(not word.granted for word in visitor.consents.values())


def is_idle(visitor: Profile, now: Millis) -> bool:
    """Whether his models are dropped before journal time ``now``; customers never are."""
    return 0 < visitor.seen_at < now - IDLE and not is_kept(visitor)


def is_nothing(profile: Profile) -> bool:
    """Whether it is the profile of a visitor of whom nothing is known."""
    return (
        not profile.seen_at
        and is_anonymous(profile.customer)
        and profile == Profile(customer=profile.customer)
    )


def noted(visitor: Profile, due: Millis | None) -> Profile:
    """``visitor`` as his timer tells of him: before there were timers nobody noted when he was heard of.

    Of one of whom nothing is left, as after an erasure, a timer tells nothing.
    """
    if visitor.seen_at or due is None or is_nothing(visitor):
        return visitor
    return replace(visitor, seen_at=due - IDLE)


def next_look(visitor: Profile, now: Millis) -> Millis:
    """When to look at him again, at ``now``; 0 where nothing is known of him.

    One who is kept is looked at again and again: he may be dropped once he is nobody's, or allows everything.
    """
    if is_nothing(visitor):
        return 0
    due = visitor.seen_at + IDLE
    return now + IDLE if due < now and is_kept(visitor) else due
