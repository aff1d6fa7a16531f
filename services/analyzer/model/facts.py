"""Facts: the little that insights are counted from, out of each event that tells any.

A row of ``analyzer.facts(partition, number, customer, at, kind, body)`` beside the event of the same number,
written in its transaction: ``at`` is event time, ``kind`` the Struct's tag, ``body`` its msgpack. Only what
the event carries: what a product earns is looked up by whoever counts.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import Struct

from libs.common.clock import Millis
from libs.common.contracts.customer_event import (
    AboutCustomer,
    ConsentGiven,
    Decision,
    IdentityLinked,
    Touchpoint,
)
from libs.common.contracts.customer_model import ANALYTICS
from libs.common.contracts.identity import NOBODYS, CustomerKey, anonymous_key, is_nobody
from libs.common.contracts.touchpoint import ORDER_CHANGES, ORDERS, Order, OrderChange, OrderLine
from libs.common.contracts.vocabulary.person import CONSENT_GIVEN, CONSENT_REFUSED
from libs.common.scoring.decay import bounded


class SoldLine(NamedTuple):
    """A product of an order or of a change of one: ``price`` is per unit, None where nobody said."""

    product_id: str
    quantity: float
    price: float | None


class Owned(Struct, frozen=True, array_like=True, tag="owned"):
    """A visitor turned out to be customer ``owner``."""

    owner: CustomerKey


class Analysed(Struct, frozen=True, array_like=True, tag="analysed"):
    """He allowed or refused analytics, by one channel or all."""

    granted: bool
    channel: str | None


class Decided(Struct, frozen=True, array_like=True, tag="decided"):
    """A decision was made for him that counts: neither forced nor a replay."""

    placement: str
    group: str


class TakenBack(Struct, frozen=True, array_like=True, tag="taken_back"):
    """An order was cancelled or goods of it came back; without lines the whole order."""

    order_id: str
    lines: tuple[SoldLine, ...]


class Ordered(Struct, frozen=True, array_like=True, tag="ordered"):
    """He bought."""

    order_id: str
    lines: tuple[SoldLine, ...]


Fact = Owned | Analysed | Decided | TakenBack | Ordered

KINDS = OWNED, ANALYSED, DECIDED, TAKEN_BACK, ORDERED = (
    "owned",
    "analysed",
    "decided",
    "taken_back",
    "ordered",
)
"""Column ``kind``, in the order in which facts are counted: each needs those before it."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Fact] = msgspec.msgpack.Decoder(Fact)


class FactRow(NamedTuple):
    partition: int
    number: int
    customer: CustomerKey
    at: Millis
    kind: str
    body: bytes


def fact_row(partition: int, number: int, event: AboutCustomer) -> FactRow | None:
    """What ``event``, which the fold has taken under ``number``, tells; None where that is nothing."""
    fact = _fact_of(event)
    if fact is None:
        return None
    return FactRow(partition, number, event.customer, event.occurred_at, _kind_of(fact), encode_fact(fact))


def encode_fact(fact: Fact) -> bytes:
    return _encoder.encode(fact)


def decode_fact(body: bytes) -> Fact:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(body)


def _kind_of(fact: Fact) -> str:
    return str(fact.__struct_config__.tag)


def _fact_of(event: AboutCustomer) -> Fact | None:
    if type(event) is Touchpoint:
        if event.type in (CONSENT_GIVEN, CONSENT_REFUSED):
            return _word(event)
        if event.type not in ORDERS and event.type not in ORDER_CHANGES:
            return None
        return _sale(event) if event.learn and not event.echo and not is_nobody(event.customer) else None
    if type(event) is ConsentGiven:
        return Analysed(event.granted, event.channel) if event.purpose == ANALYTICS else None
    if type(event) is Decision:
        counts = event.analysed and not (event.forced or event.replay or is_nobody(event.customer))
        return Decided(event.placement, event.group) if counts else None
    if type(event) is IdentityLinked and event.customer == anonymous_key(event.anonymous_id):
        if event.unlinked or event.customer_id == NOBODYS:
            return None
        return Owned(event.customer_id)
    return None


def _word(event: Touchpoint) -> Fact | None:
    granted = event.type == CONSENT_GIVEN
    # A refusal holds whatever must not be learned of the touchpoint that tells it.
    if event.properties.get("purpose") != ANALYTICS or (granted and not event.learn):
        return None
    return Analysed(granted, event.properties.get("channel"))


def _sale(event: Touchpoint) -> Fact:
    if event.type in ORDERS:
        order = msgspec.convert(event.properties, Order)
        return Ordered(order.order_id, _lines(order.products))
    change = msgspec.convert(event.properties, OrderChange)
    return TakenBack(change.order_id, _lines(change.products))


def _lines(lines: list[OrderLine]) -> tuple[SoldLine, ...]:
    return tuple(
        SoldLine(line.product_id, line.quantity, None if line.price is None else bounded(line.price))
        for line in lines
    )
