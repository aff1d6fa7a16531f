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
    "INSTALLED",
    "OF_ACCOUNT",
    "ORDERS",
    "ORDER_CHANGES",
    "OUTBOUND",
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

OUTBOUND = frozenset(name for name, one in VOCABULARY.items() if one.outbound)
"""What was done to a customer, not by him."""

INSTALLED = goods.INSTALLED
"""What tells of the installed base."""

OF_ACCOUNT = INSTALLED | {
    "email_sent",
    "direct_mail_sent",
    "survey_sent",
    "call_ended",
    "call_missed",
    "visit_completed",
}
"""What is told to the model of the account as well, where a touchpoint names one."""

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
