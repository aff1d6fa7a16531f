"""The pool of a decision, packed for keeping (about 3 kB) and unpacked for reading."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
from msgspec import Struct

from libs.common.clock import Millis
from libs.common.contracts.catalogue import KINDS
from services.recommender.model.policy import NOBODY, Slot, propensities
from services.recommender.model.wire import (
    NO_OFFER,
    Chance,
    Considered,
    DecidedSlot,
    DecisionReport,
    Versions,
)


class PoolRecord(Struct, frozen=True, kw_only=True, array_like=True):
    """Everything needed to explain, replay and evaluate a decision, without computing anything again.

    ``offers`` and ``products`` are ids in candidate order; ``kinds`` and ``sources`` one byte each,
    ``mean`` and ``value`` float32, ``ranking`` int16 (`NOBODY` for "no offer"), little endian.
    ``slots`` are (index, propensity); where ``drawn`` is false nothing was drawn from the ranking (a
    baseline, a holdout) and each slot's pool is the offer itself.
    """

    decision_id: str
    decided_at: Millis
    customer: str
    placement: str
    group: str
    policy: str
    model: int
    catalogue: int
    seed: int
    exploration: float
    drawn: bool
    offers: list[str]
    products: list[str | None]
    kinds: bytes
    sources: bytes
    source_names: list[str]
    mean: bytes
    value: bytes
    ranking: bytes
    slots: list[tuple[int, float]]
    rejected: dict[str, int]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PoolRecord)


def encode_pool(record: PoolRecord) -> bytes:
    return _encoder.encode(record)


def decode_pool(data: bytes) -> PoolRecord:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(data)


def packed_slots(slots: Sequence[Slot]) -> list[tuple[int, float]]:
    return [(slot.chosen, slot.propensity) for slot in slots]


def report_of(record: PoolRecord) -> DecisionReport:
    """The decision as the contract shows it, every slot with its whole pool."""
    mean = np.frombuffer(record.mean, dtype="<f4").tolist()
    value = np.frombuffer(record.value, dtype="<f4").tolist()
    candidates = [
        Considered(
            offer_id,
            record.products[i],
            KINDS[record.kinds[i]],
            record.source_names[record.sources[i]],
            mean[i],
            value[i],
            [],
        )
        for i, offer_id in enumerate(record.offers)
    ]
    return DecisionReport(
        decision_id=record.decision_id,
        decided_at=datetime.fromtimestamp(record.decided_at / 1000, UTC).isoformat().replace("+00:00", "Z"),
        customer=record.customer,
        placement=record.placement,
        group=record.group,
        versions=Versions(record.policy, record.model, record.catalogue),
        seed=record.seed,
        slots=_slots(record),
        candidates=candidates,
        rejected=record.rejected,
    )


def _slots(record: PoolRecord) -> list[DecidedSlot]:
    def name(index: int) -> str:
        return NO_OFFER if index == NOBODY else record.offers[index]

    left = np.frombuffer(record.ranking, dtype="<i2").tolist()
    slots = []
    for place, (chosen, propensity) in enumerate(record.slots, start=1):
        if record.drawn:
            chances = propensities(len(left), record.exploration).tolist()
            pool = [Chance(name(i), chance) for i, chance in zip(left, chances, strict=True) if chance > 0.0]
            left.remove(chosen)
        else:
            pool = [Chance(name(chosen), propensity)]
        slots.append(DecidedSlot(place, name(chosen), propensity, pool))
    return slots
