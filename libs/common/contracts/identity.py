"""Who an event is about: customer keys, and the partition they belong to."""

from __future__ import annotations

from zlib import crc32

PARTITIONS = 12
"""Number of partitions of every keyed topic; fixed for the life of a cluster."""

ANONYMOUS = "anon:"
NOBODY = "event:"
RESERVED_PREFIXES = (ANONYMOUS, NOBODY)

CustomerKey = str
"""``customer_id``, or ``anon:`` + anonymous_id, or ``event:`` + id for answers about nobody."""


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


def is_anonymous(key: CustomerKey) -> bool:
    return key.startswith(ANONYMOUS)


def is_nobody(key: CustomerKey) -> bool:
    return key.startswith(NOBODY)


def partition_of(key: CustomerKey) -> int:
    """The partition of the journal, and of the model, of this customer."""
    return crc32(key.encode("utf-8", "surrogatepass")) % PARTITIONS
