"""Lessons: what the learner can learn from an event, written in the transaction of the slice that held it.

Rows of ``analyzer.lessons(partition, number, second, kind, body, part)``: ``second`` is the journal second,
``kind`` the Struct's tag, ``body`` its msgpack. Canonical order is (second, partition, number, part). A
lesson has the number of the event it came with, one of a timer that of the decision it is about; ``part``
tells those of one event apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from libs.common.clock import SECOND, Millis
from libs.common.contracts.customer_model import Items
from libs.common.contracts.identity import CustomerKey
from libs.common.contracts.vectors import unpack


class LessonLine(NamedTuple):
    """A product of an order: ``price`` is per unit, in the base currency."""

    product_id: str
    quantity: float
    price: float | None


class OrderBrief(Struct, frozen=True, kw_only=True, tag_field="kind", tag="order"):
    """A customer bought. ``at`` is journal time, ``occurred_at`` event time; lines as they were said."""

    customer: CustomerKey
    at: Millis
    occurred_at: Millis
    order_id: str
    lines: list[LessonLine]
    channel: str = ""


class OrderLesson(OrderBrief, frozen=True, kw_only=True, tag_field="kind", tag="order"):
    """An order with what was known of the customer.

    ``before`` is what his items said before this order, those of this key alone (models of linked keys lie
    in other partitions), the newest `panel.MAX_BEFORE` of them; None for who is not in the panel.
    """

    before: Items | None = None


class OrderChangeLesson(Struct, frozen=True, kw_only=True, tag_field="kind", tag="order_change"):
    """An order was cancelled or goods came back; without lines the whole order."""

    customer: CustomerKey
    at: Millis
    occurred_at: Millis
    order_id: str
    change: Literal["cancelled", "returned"]
    lines: list[LessonLine]


TrialStep = Literal["shown", "look", "engaged", "converted", "returned", "declined"]


class TrialLesson(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="trial"):
    """Something came of an offer that was shown, or nothing did until now.

    Parameters
    ----------
    at, occurred_at:
        Journal time (of a look: when it was due) and event time.
    group:
        Of the customer: treatment, baseline.
    rank, propensity, chance:
        Place in the slate from 1, probability of the slot's draw, P(choice) when it was decided.
    swapped:
        Probabilities that it was drawn the other way round with the offer above it, and with the one below.
    cell:
        As in the record of the decision.
    ghost:
        It was drawn and not shown: only looks that are ``judged`` are to be learned from, for κ.
    feature_set, vector, shared:
        As in the record of the decision: what names the columns, the offer's own features and those that
        all offers share, packed. Empty where the record had no room for them.
    age_from, age_to:
        Ms since it was shown. A look covers this span without a conversion: it is empty once there was one.
        Of other steps ``age_to`` is the age they came at.
    window:
        Attribution window of the placement, in ms.
    seen_to:
        Of a conversion: up to which age looks have spoken against it.
    engaged:
        Whether the customer had opened, clicked or accepted it by then.
    judged, bought:
        The last look of a trial or ghost, and whether the product was bought within the window, whoever got
        the credit for it.
    """

    customer: CustomerKey
    at: Millis
    occurred_at: Millis
    step: TrialStep
    decision_id: str
    offer_id: str
    product_id: str | None
    offer_kind: str
    placement: str
    channel: str
    group: str
    rank: int
    propensity: float
    chance: float
    feature_set: str
    vector: bytes
    shared: bytes
    window: Millis
    objective: str = ""
    cell: int = 0
    ghost: bool = False
    age_from: Millis = 0
    age_to: Millis = 0
    seen_to: Millis = 0
    engaged: bool = False
    judged: bool = False
    bought: bool = False
    swapped: tuple[float, float] = (0.0, 0.0)

    def features(self) -> NDArray[np.float64]:
        """The offer's own features, then those shared by all: shape (columns,), or (0,) where there are none.

        They were checked when the trial began: the right number of finite numbers.
        """
        return np.array(unpack(self.vector) + _shared(self.shared) if self.vector else [])


Lesson = OrderLesson | OrderChangeLesson | TrialLesson
BriefLesson = OrderBrief | OrderChangeLesson | TrialLesson

ORDER = "order"
ORDER_CHANGE = "order_change"
TRIAL = "trial"

_shared = lru_cache(64)(unpack)
"""Lessons of one decision follow each other."""
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder: msgspec.msgpack.Decoder[Lesson] = msgspec.msgpack.Decoder(Lesson)
_briefly: msgspec.msgpack.Decoder[BriefLesson] = msgspec.msgpack.Decoder(BriefLesson)


def kind_of(lesson: Lesson) -> str:
    """The tag of a lesson: column ``kind``."""
    if isinstance(lesson, TrialLesson):
        return TRIAL
    return ORDER if isinstance(lesson, OrderLesson) else ORDER_CHANGE


def journal_second(at: Millis) -> int:
    """Column ``second``: the journal second an event falls into."""
    return at // SECOND


def encode_lesson(lesson: Lesson) -> bytes:
    return _encoder.encode(lesson)


def decode_lesson(body: bytes) -> Lesson:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(body)


def decode_brief(body: bytes) -> BriefLesson:
    """The same without what was known of who ordered, which is most of a lesson and of the time it takes."""
    return _briefly.decode(body)
