"""The state of what is learned from trials, as it stands in a checkpoint: arrays as bytes."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from msgspec import Struct

from services.analyzer.learner.arrays import packed, unpacked
from services.analyzer.learner.delays import AGES, Delays, Known
from services.analyzer.learner.effects import Effects
from services.analyzer.learner.logit import BayesianLogit, Seen, Told
from services.analyzer.learner.responses import ResponseLearner, Waiting

_Key = TypeVar("_Key", str, int)


class OffersState(Struct, frozen=True, kw_only=True):
    keys: list[str]
    variance: float
    numbers: bytes


class CellsState(Struct, frozen=True, kw_only=True):
    keys: list[int]
    variance: float
    numbers: bytes


class HeadState(Struct, frozen=True, kw_only=True):
    mean: bytes
    covariance: bytes
    precision: bytes
    seen: int
    revised: int
    offers: OffersState
    cells: CellsState


class WaitingState(Struct, frozen=True, kw_only=True):
    """What a head has yet to learn, one row each."""

    x: bytes
    offers: list[str]
    cells: list[int]
    kinds: list[str]
    numbers: bytes


class DelaysState(Struct, frozen=True, kw_only=True):
    counts: bytes
    counted: int
    shares: bytes
    known: int


class ResponseState(Struct, frozen=True, kw_only=True):
    heads: dict[str, HeadState]
    waiting: dict[str, WaitingState]
    slots: list[tuple[str, str, bytes]]
    engaging: dict[str, DelaysState]
    converting: dict[str, DelaysState]
    caused: list[tuple[str, str, bytes]]
    returned: list[tuple[str, int, float, float]]
    refused: dict[str, int]
    learned: int
    day: int


def state_of(learner: ResponseLearner) -> ResponseState:
    """Everything ``learner`` knows; equal knowledge gives equal states."""
    return ResponseState(
        heads={name: _head(model) for name, model in learner.heads.items()},
        waiting={name: _waiting(waiting) for name, waiting in learner.waiting.items()},
        slots=[
            (head, placement, packed(counts))
            for head, slots in learner.slots.items()
            for placement, counts in slots.counts.items()
        ],
        engaging=_delays(learner.engaging),
        converting=_delays(learner.converting),
        caused=[(*key, packed(counts)) for key, counts in sorted(learner.caused.counts.items())],
        returned=[(*pair, *counts) for pair, counts in learner.returned.counts.items()],
        refused=dict(learner.refused),
        learned=learner.learned,
        day=learner.day,
    )


def restore(learner: ResponseLearner, saved: ResponseState) -> None:
    """Have a new ``learner`` know what was saved."""
    for name, head in saved.heads.items():
        _restore_head(learner.heads[name], head)
    for name, waiting in saved.waiting.items():
        learner.waiting[name] = _restore_waiting(waiting)
    for head_name, placement, numbers in saved.slots:
        learner.slots[head_name].counts[placement] = unpacked(numbers).reshape(-1, 2, 2)
    _restore_delays(learner.engaging, saved.engaging)
    _restore_delays(learner.converting, saved.converting)
    learner.caused.counts = {
        (placement, kind): unpacked(counts).reshape(2, 2) for placement, kind, counts in saved.caused
    }
    learner.returned.counts = {(offer, cell): (sold, back) for offer, cell, sold, back in saved.returned}
    learner.refused.update(saved.refused)
    learner.learned, learner.day = saved.learned, saved.day


def _head(model: BayesianLogit) -> HeadState:
    offers, cells = model.offers, model.cells
    return HeadState(
        mean=packed(model.mean),
        covariance=packed(model.covariance),
        precision=packed(model.precision),
        seen=model.seen,
        revised=model.revised,
        offers=OffersState(keys=offers.keys, variance=offers.variance, numbers=_numbers(offers)),
        cells=CellsState(keys=cells.keys, variance=cells.variance, numbers=_numbers(cells)),
    )


def _restore_head(model: BayesianLogit, saved: HeadState) -> None:
    model.mean = unpacked(saved.mean)
    model.covariance = unpacked(saved.covariance).reshape(len(model.mean), len(model.mean))
    model.precision = unpacked(saved.precision)
    model.seen, model.revised = saved.seen, saved.revised
    _restore_effects(model.offers, saved.offers.keys, saved.offers.variance, saved.offers.numbers)
    _restore_effects(model.cells, saved.cells.keys, saved.cells.variance, saved.cells.numbers)


def _waiting(waiting: list[Waiting]) -> WaitingState:
    told = [one.told for one in waiting]
    return WaitingState(
        x=packed(np.array([one.seen.x for one in told])),
        offers=[one.seen.offer for one in told],
        cells=[one.seen.cell for one in told],
        kinds=[one.kind for one in waiting],
        numbers=packed(np.array([(one.seen.offset, one.successes, one.trials) for one in told])),
    )


def _restore_waiting(saved: WaitingState) -> list[Waiting]:
    size = len(saved.offers)
    if not size:
        return []
    rows, numbers = unpacked(saved.x).reshape(size, -1), unpacked(saved.numbers).reshape(size, 3)
    found = zip(rows, saved.offers, saved.cells, saved.kinds, numbers.tolist(), strict=True)
    return [
        Waiting(Told(Seen(x, offer, cell, offset), successes, trials), kind)
        for x, offer, cell, kind, (offset, successes, trials) in found
    ]


def _restore_effects(effects: Effects[_Key], keys: list[_Key], variance: float, numbers: bytes) -> None:
    effects.keys, effects.variance = list(keys), variance
    effects.index = {key: row for row, key in enumerate(keys)}
    effects.trials, effects.expected, effects.successes = unpacked(numbers).reshape(3, len(keys)).tolist()


def _numbers(effects: Effects[_Key]) -> bytes:
    return packed(np.array([effects.trials, effects.expected, effects.successes]))


def _delays(delays: Delays) -> dict[str, DelaysState]:
    return {
        placement: DelaysState(
            counts=packed(counts),
            counted=delays.counted[placement],
            shares=packed(np.array(delays.known[placement].shares)),
            known=delays.known[placement].counted,
        )
        for placement, counts in delays.counts.items()
    }


def _restore_delays(delays: Delays, saved: dict[str, DelaysState]) -> None:
    for placement, one in saved.items():
        delays.counts[placement] = unpacked(one.counts).reshape(2, len(AGES))
        delays.counted[placement] = one.counted
        delays.known[placement] = Known(tuple(unpacked(one.shares).tolist()), one.known)
