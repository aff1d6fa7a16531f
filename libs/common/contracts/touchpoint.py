"""What customers do: the typed properties of the touchpoint types the platform understands.

A type that is not listed here is kept with whatever properties it has; a listed one must match its Struct.
Extra properties are free data and are kept.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Amount = Annotated[float, Meta(ge=0)]
Quantity = Annotated[float, Meta(gt=0, le=1_000_000)]


class OrderLine(Struct, frozen=True):
    """A product of an order, a cancellation, a return or a basket. ``price`` is per unit."""

    product_id: Name
    quantity: Quantity = 1.0
    price: Amount | None = None
    category: str | None = None


class Order(Struct, frozen=True):
    """Properties of ``order_completed``."""

    order_id: Name
    products: Annotated[list[OrderLine], Meta(min_length=1, max_length=1000)]
    currency: Annotated[str, Meta(min_length=3, max_length=3)] | None = None
    total: Amount | None = None


class OrderChange(Struct, frozen=True):
    """Properties of ``order_cancelled`` and ``order_returned``; without products the whole order."""

    order_id: Name
    products: Annotated[list[OrderLine], Meta(max_length=1000)] = []


class ProductSeen(Struct, frozen=True):
    """Properties of ``product_viewed``, ``product_added``, ``product_removed`` and ``product_liked``."""

    product_id: Name | None = None
    quantity: Quantity = 1.0
    price: Amount | None = None
    category: str | None = None


class SurveyAnswer(Struct, frozen=True):
    """Properties of ``survey_answered``: ``rating`` from 0 (worst) to 10 (best)."""

    rating: Annotated[float, Meta(ge=0, le=10)] | None = None
    case_id: str | None = None


TYPED: dict[str, type[Struct]] = {
    "order_completed": Order,
    "order_cancelled": OrderChange,
    "order_returned": OrderChange,
    "product_viewed": ProductSeen,
    "product_added": ProductSeen,
    "product_removed": ProductSeen,
    "product_liked": ProductSeen,
    "survey_answered": SurveyAnswer,
}
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


def order_of(properties: dict[str, object]) -> Order:
    """The typed order in the properties of an ``order_completed``; raises msgspec.ValidationError."""
    return msgspec.convert(properties, Order)
