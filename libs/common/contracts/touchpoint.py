"""What customers do: the touchpoint types the platform understands, and the channels they come from.

A type that is not listed here is kept with whatever properties it has, and counted; a listed one must match
its Struct. Extra properties are free data and are kept.
"""

from __future__ import annotations

from msgspec import Struct

from libs.common.contracts.vocabulary import goods, outreach, person, public, service, shop
from libs.common.contracts.vocabulary.shop import (
    ORDER_CHANGES,
    ORDERS,
    Order,
    OrderChange,
    OrderLine,
    ProductSeen,
)
from libs.common.contracts.vocabulary.values import Name, TouchpointType

__all__ = [
    "CHANNELS",
    "ORDERS",
    "ORDER_CHANGES",
    "TYPED",
    "VOCABULARY",
    "Name",
    "Order",
    "OrderChange",
    "OrderLine",
    "ProductSeen",
]

VOCABULARY: dict[str, TouchpointType] = {
    one.name: one
    for one in (
        *shop.TYPES,
        *outreach.TYPES,
        *service.TYPES,
        *goods.TYPES,
        *public.TYPES,
        *person.TYPES,
    )
}
"""All known types, in the order in which they are told of."""

TYPED: dict[str, type[Struct]] = {name: one.shape for name, one in VOCABULARY.items()}
"""Known types and the shape of their properties."""

CHANNELS = frozenset(
    {
        "web",
        "app",
        "email",
        "phone",
        "call_centre",
        "direct_mail",
        "post",
        "sales",
        "service",
        "field_service",
        "store",
        "social",
        "auction",
        "sms",
        "push",
        "other",
    }
)
"""Channels known by name; any other snake_case word is kept too."""
