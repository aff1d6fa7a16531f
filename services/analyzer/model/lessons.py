"""Lessons: what the learner can learn from an event, written in the transaction of the slice that held it.

Rows of ``analyzer.lessons(partition, number, second, kind, body)``: ``second`` is the journal second,
``kind`` the Struct's tag, ``body`` its msgpack. Canonical order is (second, partition, number).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from libs.common.clock import SECOND, Millis
from libs.common.contracts.identity import CustomerKey


class LessonLine(NamedTuple):
    """A product of an order: ``price`` is per unit, in the base currency."""

    product_id: str
    quantity: float
    price: float | None


class OrderLesson(Struct, frozen=True, kw_only=True, tag_field="kind", tag="order"):
    """A customer bought. ``at`` is journal time, ``occurred_at`` event time; lines as they were said."""

    customer: CustomerKey
    at: Millis
    occurred_at: Millis
    order_id: str
    lines: list[LessonLine]


class OrderChangeLesson(Struct, frozen=True, kw_only=True, tag_field="kind", tag="order_change"):
    """An order was cancelled or goods came back; without lines the whole order."""

    customer: CustomerKey
    at: Millis
    occurred_at: Millis
    order_id: str
    change: Literal["cancelled", "returned"]
    lines: list[LessonLine]


Lesson = OrderLesson | OrderChangeLesson

ORDER = "order"
ORDER_CHANGE = "order_change"

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Lesson] = msgspec.msgpack.Decoder(Lesson)


def kind_of(lesson: Lesson) -> str:
    """The tag of a lesson: column ``kind``."""
    return ORDER if isinstance(lesson, OrderLesson) else ORDER_CHANGE


def journal_second(at: Millis) -> int:
    """Column ``second``: the journal second an event falls into."""
    return at // SECOND


def encode_lesson(lesson: Lesson) -> bytes:
    return _encoder.encode(lesson)


def decode_lesson(body: bytes) -> Lesson:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(body)
