"""Events of shops and mailings in Segment's specification, and their properties as our types have them.

https://segment.com/docs/connections/spec/ecommerce/v2 and https://segment.com/docs/connections/spec/email.
Names are looked up as snake_case words, so each writing of a name is found. Most are our own names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct, inspect

from libs.common.contracts.touchpoint import TYPED, Order, OrderChange, ProductSeen
from libs.common.contracts.vocabulary.shop import Promotion
from services.collector.dialects.naming import id_of

Properties = dict[str, Any]

TYPES: Mapping[str, str] = {
    "email_link_clicked": "email_clicked",
    "email_marked_as_spam": "email_complained",
    "unsubscribed": "email_unsubscribed",
}
"""Events that are called otherwise here."""

NUMBERS = frozenset(
    {"price", "quantity", "total", "revenue", "value", "discount", "rating", "results", "step"}
)
"""Properties that clients send as text too."""

_CURRENCY = frozenset({"currency"})
_SALE = _CURRENCY | {"products", "quantity", "price", "total"}
"""What a sale, or the end of one, is made of. Left out it would be taken for something else."""

_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?\Z", re.ASCII)


def shop_event(word: str, properties: Properties) -> tuple[str, Properties]:
    """Our type of an event called ``word``, and its properties: those of types unknown here as they are."""
    type_ = TYPES.get(word, word)
    shape = TYPED.get(type_)
    if shape is None:
        return type_, properties
    made = _plain(properties)
    if shape is ProductSeen:
        _name_product(made)
    elif shape is Promotion:
        # The name of a banner, which would be taken for a person's.
        _take(made, "promotion_name", "name")
        position = made.get("position")
        if isinstance(position, int | float) and not isinstance(position, bool):
            made["position"] = id_of(position, "/properties/position")
    elif shape is Order or shape is OrderChange:
        _take(made, "order_id", "checkout_id")
        _take(made, "total", "revenue")
    products = made.get("products")
    if isinstance(products, list):
        made["products"] = [_line(line) for line in products]
    return type_, made


def fitted(type_: str, properties: Properties) -> tuple[Properties, int]:
    """``properties`` without what does not fit ``type_`` and need not be there, and how much that was.

    Goods of a list or a basket, or of a sale, of which there are none go as a whole. What has to be there
    stays as it is, for who checks it to refuse it.
    """
    shape = TYPED.get(type_)
    return (properties, 0) if shape is None else _fitted(properties, shape, _kept_of(shape))


def _kept_of(shape: type[Struct]) -> frozenset[str]:
    return _SALE if shape is Order or shape is OrderChange else _CURRENCY


def _fitted(properties: Properties, shape: type[Struct], kept: frozenset[str]) -> tuple[Properties, int]:
    made, dropped = dict(properties), 0
    for name, field, item in _fields(shape):
        if name not in made:
            continue
        if item is not None and isinstance(made[name], list):
            # Trap: an order is taken back as a whole where no goods are named.
            there = made[name] if shape is OrderChange else [one for one in made[name] if not _is_none(one)]
            lines = [_fitted(one, item, kept) if isinstance(one, dict) else (one, 0) for one in there]
            dropped += len(made[name]) - len(there) + sum(count for _, count in lines)
            made[name] = [line for line, _ in lines]
        if field.required or name in kept:
            continue
        try:
            msgspec.convert(made[name], field.type)
        except msgspec.ValidationError:
            del made[name]
            dropped += 1
    return made, dropped


def _is_none(line: object) -> bool:
    quantity = line.get("quantity") if isinstance(line, dict) else None
    return isinstance(quantity, int | float) and not isinstance(quantity, bool) and quantity == 0


@lru_cache
def _fields(shape: type[Struct]) -> list[tuple[str, msgspec.structs.FieldInfo, type[Struct] | None]]:
    """Name and field of each member, and what a list of Structs is a list of."""
    found = []
    for field in msgspec.structs.fields(shape):
        kind = inspect.type_info(field.type)
        of = kind.item_type if isinstance(kind, inspect.ListType) else None
        found.append((field.encode_name, field, of.cls if isinstance(of, inspect.StructType) else None))
    return found


def _plain(properties: Properties) -> Properties:
    """A copy without nulls, with ids that are strings and numbers that are numbers."""
    made: Properties = {}
    for name, value in properties.items():
        if value is None:
            continue
        if isinstance(value, str):
            if name in NUMBERS and _NUMBER.match(value):
                value = float(value) if "." in value else int(value)
        elif isinstance(value, int | float) and name.endswith("_id") and not isinstance(value, bool):
            value = id_of(value, f"/properties/{name}")
        made[name] = value
    return made


def _line(line: object) -> object:
    """A product of a list."""
    if not isinstance(line, dict):
        return line
    made = _plain(line)
    _name_product(made)
    return made


def _name_product(made: Properties) -> None:
    """Shops that have no ``product_id`` name products by ``sku``, or by ``id`` in the first specification."""
    if "product_id" not in made:
        _take(made, "product_id", "sku")
        _take(made, "product_id", "id")
        value = made.get("product_id")
        if isinstance(value, int | float):
            made["product_id"] = id_of(value, "/properties/product_id")


def _take(made: Properties, name: str, other: str) -> None:
    if name not in made and other in made:
        made[name] = made[other]
