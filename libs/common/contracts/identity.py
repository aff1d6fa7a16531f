"""Who an event is about: customer keys, and the partition they belong to."""

from __future__ import annotations

import re
from zlib import crc32

PARTITIONS = 12
"""Number of partitions of every keyed topic; fixed for the life of a cluster."""

ANONYMOUS = "anon:"
NOBODY = "event:"
ACCOUNT = "account:"
RESERVED_PREFIXES = (ANONYMOUS, NOBODY, ACCOUNT)

NOBODYS = ""
"""The owner of a visitor key that was taken back from its owner, or had too many: no customer reads it."""

_FROZEN = re.compile(r"~[0-9]+\Z")

CustomerKey = str
"""``customer_id``, or ``anon:`` + anonymous_id, or ``event:`` + id for answers about nobody.

What belongs to a company and not to a person is under ``account:`` + account_id.
"""


def customer_key(customer_id: str | None, anonymous_id: str | None, event_id: str = "") -> CustomerKey:
    """The key an event is filed under: the customer where he is named, else the visitor, else nobody."""
    if customer_id:
        return customer_id
    if anonymous_id:
        return anonymous_key(anonymous_id)
    return NOBODY + event_id


def anonymous_key(anonymous_id: str) -> CustomerKey:
    """The customer key of a visitor who has not said who he is."""
    return ANONYMOUS + anonymous_id


def frozen_key(visitor: CustomerKey, number: int) -> CustomerKey:
    """The key of part ``number`` (from 1) of a visitor's model, frozen when another owner was named."""
    return f"{visitor}~{number}"


def may_be_frozen(anonymous_id: str) -> bool:
    """Whether ``anonymous_id`` could be taken for a frozen part of another."""
    return "~" in anonymous_id and _FROZEN.search(anonymous_id) is not None


def account_key(account_id: str) -> CustomerKey:
    """The key of what belongs to a company: its installed base, and how often it was contacted."""
    return ACCOUNT + account_id


def is_anonymous(key: CustomerKey) -> bool:
    return key.startswith(ANONYMOUS)


def is_nobody(key: CustomerKey) -> bool:
    return key.startswith(NOBODY)


def partition_of(key: CustomerKey) -> int:
    """The partition of the journal, and of the model, of this customer; of a frozen part its visitor's."""
    if "~" in key and key.startswith(ANONYMOUS):
        key = _FROZEN.sub("", key)
    return crc32(key.encode("utf-8", "surrogatepass")) % PARTITIONS
