"""Whose time it was: what a visitor key that several customers shared did for each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from libs.common.contracts.customer_event import AboutCustomer, IdentityLinked
from libs.common.contracts.customer_model import MAX_FROZEN
from libs.common.contracts.identity import NOBODYS, CustomerKey, is_anonymous


def names_owner(event: object) -> bool:
    """Whether ``event`` says whose a visitor key is, or is no more."""
    return isinstance(event, IdentityLinked) and is_anonymous(event.customer)


def time_of(owner: CustomerKey, past: Iterable[tuple[int, AboutCustomer]]) -> list[range]:
    """When a visitor key was ``owner``'s, as `profile.owned` has it.

    Parameters
    ----------
    owner:
        Key of the customer.
    past:
        Number and event, in order, of at least all that `names_owner` among the events of the visitor key.

    Returns
    -------
    list
        Of numbers of events, which are one order in a partition. What was before the first owner, or after
        a link was taken back, is the next one's.
    """
    his: list[range] = []
    since, holder, changes = 0, NOBODYS, 0
    for number, event in past:
        if not isinstance(event, IdentityLinked) or not names_owner(event):
            continue
        named = event.customer_id
        if event.unlinked:
            holder = NOBODYS if holder == named else holder
        elif holder == named:
            continue
        elif changes >= MAX_FROZEN:
            holder = NOBODYS
        elif not holder:
            holder = named
        else:
            if holder == owner:
                his.append(range(since, number))
            since, holder, changes = number, named, changes + 1
    return [*his, range(since, sys.maxsize)] if holder == owner else his
