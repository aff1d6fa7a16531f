"""What is remembered of a decision until its trials are judged: stored, never published."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from msgspec import Struct

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_event import DecidedOffer, Decision
from libs.common.contracts.identity import CustomerKey
from libs.common.contracts.vectors import is_sound
from services.analyzer.model.lessons import TrialLesson, TrialStep

TRIALS = "trials/"
"""A decision's record is the part `TRIALS` + its id of the customer's model."""
LOOKS = 4
"""A trial is looked at after 1/64, 1/16, 1/4 and all of its window."""
RETURNS: Millis = 60 * DAY
"""How long after its window what a trial brought about can still come back."""
MAX_SLOTS = 64
"""Offers and ghosts remembered of one decision, each."""
MAX_ORDERS = 4
"""Orders remembered of one trial, the newest."""
SHORTEST, LONGEST = 64, 400 * DAY
"""Bounds of a window, in ms."""
NEVER: Millis = 1 << 62


class Trial(Struct, array_like=True, frozen=True, gc=False):
    """An offer of a decision, or a ghost: shown, and so a trial, once ``shown_at`` is set.

    Parameters
    ----------
    shown_at, happened_at:
        Journal time and event time of the showing; 0 before it.
    swapped:
        Probability that it and the offer above it were drawn the other way round.
    looks:
        How many looks have passed: all of them once it is judged.
    seen_to:
        The age up to which looks were given.
    converted:
        Whether it ever was; ``credit`` is the order it has to thank for it, empty where none was named, and
        None where that came back.
    orders:
        Orders with its product since it was shown, whoever got the credit.
    """

    offer_id: str
    product_id: str | None
    kind: str
    rank: int
    ghost: bool
    propensity: float
    chance: float
    cell: int
    vector: bytes
    shown_at: Millis = 0
    happened_at: Millis = 0
    looks: int = 0
    seen_to: Millis = 0
    engaged: bool = False
    declined: bool = False
    converted: bool = False
    credit: str | None = None
    orders: tuple[str, ...] = ()
    swapped: float = 0.0

    @property
    def open(self) -> bool:
        """Whether it was shown and is not judged yet."""
        return self.shown_at > 0 and self.looks < LOOKS


class DecisionRecord(Struct, frozen=True, kw_only=True, gc=False):
    """A decision: ``at`` is its journal time, ``window`` in ms; the rest as in `Decision`."""

    decision_id: str
    at: Millis
    placement: str
    channel: str
    objective: str
    group: str
    window: Millis
    feature_set: str
    shared: bytes
    trials: tuple[Trial, ...]


class Kept(NamedTuple):
    """A record, the order number of its decision, and when something falls due; both follow from the rest."""

    number: int
    due: Millis
    record: DecisionRecord


class Trials(NamedTuple):
    """The records of a customer by decision, and when the first of them falls due."""

    due: Millis = NEVER
    kept: Mapping[str, Kept] = MappingProxyType({})

    @classmethod
    def of(cls, kept: Mapping[str, Kept]) -> Trials:
        """Those of ``kept``."""
        return cls(min((one.due for one in kept.values()), default=NEVER), kept)


NO_TRIALS = Trials()

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(DecisionRecord)


def encode_record(record: DecisionRecord) -> bytes:
    """Canonical bytes: equal records have equal bytes."""
    return _encoder.encode(record)


def kept_of(number: int, body: bytes) -> Kept:
    """A record as it was stored under the order number of its decision."""
    return keep(number, _decoder.decode(body))


def keep(number: int, record: DecisionRecord) -> Kept:
    """``record`` with what follows from it."""
    return Kept(number, due_of(record), record)


def age_of(window: Millis, look: int) -> Millis:
    """The age at which look ``look`` (from 0) is given."""
    return window >> 2 * (LOOKS - 1 - look)


def due_of(record: DecisionRecord) -> Millis:
    """When the next look is due; where none is left, when the record is forgotten."""
    due = NEVER
    for trial in record.trials:
        if trial.open:
            due = min(due, trial.shown_at + age_of(record.window, trial.looks))
    return end_of(record) if due == NEVER else due


def end_of(record: DecisionRecord) -> Millis:
    """Until when an offer that was not shown can be, and one that was bought can come back."""
    end = record.at + record.window
    for trial in record.trials:
        if trial.converted:
            end = max(end, trial.shown_at + record.window + RETURNS)
    return end


def record_of(event: Decision, journal_time: Millis) -> DecisionRecord:
    """What is remembered of ``event``: nothing of it was shown yet."""
    offers = [_trial(offer, ghost=False) for offer in event.offers[:MAX_SLOTS]]
    ghosts = {offer.offer_id: _trial(offer, ghost=True) for offer in reversed(event.ghosts[:MAX_SLOTS])}
    return DecisionRecord(
        decision_id=event.id,
        at=journal_time,
        placement=event.placement,
        channel=event.channel,
        objective=event.objective,
        group=event.group,
        window=min(max(event.window, SHORTEST), LONGEST),
        feature_set=event.feature_set,
        shared=checked(event.shared),
        trials=(*offers, *ghosts.values()),
    )


def _trial(offer: DecidedOffer, *, ghost: bool) -> Trial:
    return Trial(
        offer.offer_id,
        offer.product_id,
        offer.kind,
        offer.rank,
        ghost,
        min(max(0.0, offer.propensity), 1.0),
        min(max(0.0, offer.chance), 1.0),
        offer.cell,
        offer.vector,
        swapped=min(max(0.0, offer.swapped), 1.0),
    )


def checked(vector: bytes) -> bytes:
    """``vector``, or nothing where it cannot be read: no lesson has numbers that are none."""
    return vector if is_sound(vector) else b""


def lesson_of(
    customer: CustomerKey,
    record: DecisionRecord,
    trial: Trial,
    step: TrialStep,
    at: Millis,
    occurred_at: Millis,
    *,
    span: tuple[Millis, Millis] | None = None,
    judged: bool = False,
) -> TrialLesson:
    """What ``step`` of ``trial`` teaches; ``span`` are the ages that a look covers."""
    age_from, age_to = span or (trial.seen_to, at - trial.shown_at)
    return TrialLesson(
        customer=customer,
        at=at,
        occurred_at=occurred_at,
        step=step,
        decision_id=record.decision_id,
        offer_id=trial.offer_id,
        product_id=trial.product_id,
        offer_kind=trial.kind,
        placement=record.placement,
        channel=record.channel,
        group=record.group,
        objective=record.objective,
        rank=trial.rank,
        propensity=trial.propensity,
        chance=trial.chance,
        cell=trial.cell,
        feature_set=record.feature_set,
        vector=trial.vector,
        shared=record.shared,
        window=record.window,
        ghost=trial.ghost,
        age_from=age_from,
        age_to=age_to,
        seen_to=trial.seen_to,
        engaged=trial.engaged,
        judged=judged,
        bought=bool(trial.orders),
        swapped=(trial.swapped, _swapped_below(record, trial.rank)),
    )


def _swapped_below(record: DecisionRecord, rank: int) -> float:
    """Of the offer below slot ``rank``; offers stand before ghosts."""
    return next((one.swapped for one in record.trials if one.rank == rank + 1), 0.0)
