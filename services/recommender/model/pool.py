"""The pool of a decision, packed for keeping (about 3 kB) and unpacked for reading."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from libs.common.clock import Millis
from libs.common.contracts.catalogue import KINDS
from services.recommender.model.assortment import offer_id_of
from services.recommender.model.policy import Draw, propensities
from services.recommender.model.wire import (
    NO_OFFER,
    Chance,
    Considered,
    DecidedSlot,
    DecisionReport,
    Valued,
    Versions,
)

LEAST_CONTRIBUTION = 5e-4
"""Log odds below which a feature added nothing worth telling."""
RULES = ("ghost", "not_near_best")
"""Why a candidate was not placed though it passed everything, by bit."""


class PackedDraw(Struct, frozen=True, array_like=True):
    """A `Draw`: ``open`` one bit for each candidate and "no offer" behind them, ``winners`` and ``wins``
    a byte each for those that were the best in any posterior draw. Empty where nothing was drawn."""

    rank: int
    chosen: int
    propensity: float
    ghost: bool
    open: bytes = b""
    winners: bytes = b""
    wins: bytes = b""
    swapped: float = 0.0


class PoolRecord(Struct, frozen=True, kw_only=True, array_like=True, tag="pool/2"):
    """Everything needed to explain, replay and evaluate a decision, without computing anything again.

    ``offers`` and ``products`` are ids in candidate order; the offer of a product's own is None there.
    ``kinds``, ``sources`` and ``rules`` (bits of `RULES`) are one byte each, ``chance`` (P(choice)),
    ``mean``, ``variance`` (of q; empty where nothing was drawn) and ``value`` float32, little endian.
    ``draws`` fill the slots; of a holdout they are what it would have been shown, and ``placed`` says what
    it was shown instead. ``contributions`` float16: a row for each of the ``explained`` candidates with what
    each of ``features`` added to its choice. ``worth`` float32: a row for each of them, see `Valued`.
    """

    decision_id: str
    decided_at: Millis
    customer: str
    placement: str
    group: str
    objective: str
    policy: str
    model: int
    catalogue: int
    seed: int
    exploration: float
    offers: list[str | None]
    products: list[str | None]
    kinds: bytes
    sources: bytes
    source_names: list[str]
    rules: bytes
    chance: bytes
    mean: bytes
    variance: bytes
    value: bytes
    draws: list[PackedDraw]
    placed: list[int] | None
    rejected: dict[str, int]
    features: tuple[str, ...] = ()
    explained: list[int] = []
    contributions: bytes = b""
    worth: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PoolRecord)


def encode_pool(record: PoolRecord) -> bytes:
    return _encoder.encode(record)


def decode_pool(data: bytes) -> PoolRecord:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(data)


def packed_draws(draws: Sequence[Draw]) -> list[PackedDraw]:
    """``draws`` as they are kept."""
    if not draws or draws[0].open is None:
        return [PackedDraw(draw.rank, draw.chosen, draw.propensity, draw.ghost) for draw in draws]
    size = len(draws[0].open)
    open_ = np.concatenate([draw.open for draw in draws if draw.open is not None]).reshape(-1, size)
    wins = np.concatenate([draw.wins for draw in draws if draw.wins is not None]).reshape(-1, size)
    won, winner = wins.nonzero()
    ends = won.searchsorted(np.arange(len(draws)), side="right").tolist()
    winners, counts = winner.astype(np.uint8).tobytes(), wins[won, winner].astype(np.uint8).tobytes()
    bits, width = np.packbits(open_, axis=1).tobytes(), (size + 7) // 8
    return [
        PackedDraw(
            draw.rank,
            draw.chosen,
            draw.propensity,
            draw.ghost,
            bits[width * at : width * at + width],
            winners[begin:end],
            counts[begin:end],
            draw.swapped,
        )
        for at, (draw, begin, end) in enumerate(zip(draws, [0, *ends], ends, strict=False))
    ]


def rules_of(draws: Sequence[Draw], size: int, near_best: bool) -> NDArray[np.uint8]:
    """The bits of `RULES` of each of ``size`` candidates."""
    rules = np.zeros(size, dtype=np.uint8)
    rules[[draw.chosen for draw in draws if draw.ghost]] |= 1
    near = [draw.open[:size] for draw in draws if near_best and draw.open is not None]
    if near:
        rules[~np.logical_or.reduce(near, axis=0)] |= 2
    return rules


def report_of(record: PoolRecord) -> DecisionReport:
    """The decision as the contract shows it, every draw with its whole pool."""
    names = [
        offer if offer is not None else offer_id_of(product or "")
        for offer, product in zip(record.offers, record.products, strict=True)
    ]
    # `NOBODY` finds the last one.
    names.append(NO_OFFER)
    shown = [_slot(draw, names, record.exploration) for draw in record.draws if not draw.ghost]
    withheld = None
    if record.placed is not None:
        withheld = shown
        shown = [
            DecidedSlot(rank, names[at], 1.0, [Chance(names[at], 1.0)])
            for rank, at in enumerate(record.placed, start=1)
        ]
    return DecisionReport(
        decision_id=record.decision_id,
        decided_at=datetime.fromtimestamp(record.decided_at / 1000, UTC).isoformat().replace("+00:00", "Z"),
        customer=record.customer,
        placement=record.placement,
        group=record.group,
        objective=record.objective,
        versions=Versions(record.policy, record.model, record.catalogue),
        seed=record.seed,
        slots=shown,
        ghosts=[_slot(draw, names, record.exploration) for draw in record.draws if draw.ghost],
        withheld=withheld,
        candidates=_candidates(record, names),
        rejected=record.rejected,
    )


def _candidates(record: PoolRecord, names: Sequence[str]) -> list[Considered]:
    chance, mean, value = _numbers(record.chance), _numbers(record.mean), _numbers(record.value)
    variance = _numbers(record.variance)
    told, worth = _contributions(record), _worth(record)
    return [
        Considered(
            offer_id=names[at],
            product_id=product_id,
            kind=KINDS[record.kinds[at]],
            source=record.source_names[record.sources[at]],
            chance=chance[at],
            mean=mean[at],
            variance=variance[at] if variance else None,
            value=value[at],
            contributions=told.get(at, msgspec.UNSET),
            worth=worth.get(at, msgspec.UNSET),
            rules=[rule for bit, rule in enumerate(RULES) if record.rules[at] >> bit & 1],
        )
        for at, product_id in enumerate(record.products)
    ]


def _contributions(record: PoolRecord) -> dict[int, dict[str, float]]:
    """By candidate: what each feature added, the strongest first; what added nothing is left out."""
    rows = np.frombuffer(record.contributions, dtype="<f2").reshape(-1, max(len(record.features), 1))
    return {
        at: {
            record.features[column]: round(float(row[column]), 3)
            for column in (-np.abs(row)).argsort(kind="stable").tolist()
            if abs(row[column]) >= LEAST_CONTRIBUTION
        }
        for at, row in zip(record.explained, rows, strict=True)
    }


def _worth(record: PoolRecord) -> dict[int, Valued]:
    """By candidate; nothing of what was kept before there was such a column."""
    rows = np.frombuffer(record.worth, dtype="<f4").reshape(-1, len(Valued.__struct_fields__))
    return {at: Valued(*row) for at, row in zip(record.explained, rows.tolist(), strict=False)}


def packed_contributions(rows: NDArray[np.float64]) -> bytes:
    """``rows`` as they are kept: three digits are more than a reader of reasons needs."""
    # Trap: float16 ends at 65,504; what is beyond it would be read as infinite.
    return np.minimum(np.maximum(rows, -6e4), 6e4).astype("<f2").tobytes()


def _numbers(data: bytes) -> list[float]:
    found: list[float] = np.frombuffer(data, dtype="<f4").tolist()
    return found


def _slot(draw: PackedDraw, names: Sequence[str], exploration: float) -> DecidedSlot:
    name = names[draw.chosen]
    if not draw.open:
        return DecidedSlot(draw.rank, name, draw.propensity, [Chance(name, draw.propensity)])
    open_ = np.unpackbits(np.frombuffer(draw.open, dtype=np.uint8), count=len(names)).astype(bool)
    wins = np.zeros(len(names), dtype=np.int64)
    wins[list(draw.winners)] = list(draw.wins)
    chances = propensities(wins, open_, exploration).tolist()
    pool = [Chance(names[at], chances[at]) for at in open_.nonzero()[0].tolist()]
    return DecidedSlot(draw.rank, name, draw.propensity, pool, draw.swapped or msgspec.UNSET)
