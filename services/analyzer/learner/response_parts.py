"""What is published of the response model: heads, intercepts, and what showing causes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from libs.common.contracts.catalogue import KINDS
from libs.common.contracts.learned_model import CausedPart, InterceptsPart, ResponsePart
from libs.common.scoring.response import EVERYWHERE, HEADS
from libs.common.scoring.trial import TRIAL_FEATURES
from services.analyzer.learner.cuts import cuts, text_bytes
from services.analyzer.learner.delays import AGES
from services.analyzer.learner.effects import Effects, Floats, Key
from services.analyzer.learner.logit import BayesianLogit
from services.analyzer.learner.responses import ALONE, ENGAGED, ResponseLearner
from services.analyzer.learner.slots import LAST_RANK

_Row = TypeVar("_Row")

_NUMBER_BYTES = 9
"""Of one number in a record at most, with its mark."""
_ROW_BYTES = 4 * (2 * len(HEADS) + 1)


class Heads(NamedTuple):
    """One head, before it has a version."""

    head: str
    mean: bytes
    root: bytes
    offer_variance: float
    cell_variance: float


class Rows(NamedTuple):
    """Intercepts of some offers and cells, and how much of what they sell comes back."""

    offers: list[str]
    cells: list[int]
    numbers: bytes
    returned: bytes
    returned_everywhere: float


class Shares(NamedTuple):
    """What showing causes, where and when it is seen."""

    shares: dict[str, dict[str, float]]
    slots: dict[str, list[float]]
    delays: dict[str, list[float]]


class Responses(NamedTuple):
    """Everything of one state; empty before the first trial, which says what readers believe anyway."""

    heads: tuple[Heads, ...] = ()
    intercepts: tuple[Rows, ...] = ()
    caused: tuple[Shares, ...] = ()


class ResponseContents:
    """The content of the latest state, kept because orders come without trials."""

    def __init__(self) -> None:
        self._learned = 0
        self._content = Responses()

    def of(self, learner: ResponseLearner) -> Responses:
        """The very same objects while ``learner`` has learned nothing new."""
        if learner.learned != self._learned:
            self._learned = learner.learned
            self._content = _content(learner)
        return self._content


def response_part(version: int, part: int, head: Heads) -> ResponsePart:
    return ResponsePart(version=version, part=part, names=list(TRIAL_FEATURES), **head._asdict())


def intercepts_part(version: int, part: int, rows: Rows) -> InterceptsPart:
    return InterceptsPart(version=version, part=part, **rows._asdict())


def caused_part(version: int, part: int, shares: Shares) -> CausedPart:
    return CausedPart(version=version, part=part, **shares._asdict())


def _content(learner: ResponseLearner) -> Responses:
    heads = learner.settled()
    models = [heads[name] for name in HEADS]
    everywhere, of_cells, of_offers = learner.returned.shares()
    offers, offer_numbers = _joined([model.offers for model in models], of_offers)
    cells, cell_numbers = _joined([model.cells for model in models], of_cells)
    factors = np.array([of_offers.get(offer, 1.0) for offer in offers])
    shares = np.array([of_cells.get(cell, everywhere) for cell in cells])
    rows = [
        Rows(offers[part], [], _bytes(offer_numbers[part]), _bytes(factors[part]), everywhere)
        for part in cuts(text_bytes(offer) + _ROW_BYTES for offer in offers)
    ]
    rows += [
        Rows([], cells[part], _bytes(cell_numbers[part]), _bytes(shares[part]), everywhere)
        for part in cuts(_NUMBER_BYTES + _ROW_BYTES for _ in cells)
    ]
    return Responses(
        heads=tuple(_head(name, model) for name, model in heads.items()),
        intercepts=tuple(rows),
        caused=_caused(learner),
    )


def _caused(learner: ResponseLearner) -> tuple[Shares, ...]:
    """All that is said by placement: of one placement in one part."""
    shares, slots, delays = learner.caused.shares(), _slots(learner), _delays(learner)
    places = sorted({*shares, *slots, *delays})
    return tuple(
        Shares(_only(shares, places[part]), _only(slots, places[part]), _only(delays, places[part]))
        for part in cuts(_place_bytes(place) for place in places)
    )


def _only(table: dict[str, _Row], places: list[str]) -> dict[str, _Row]:
    return {place: table[place] for place in places if place in table}


def _place_bytes(place: str) -> int:
    """Of a placement in all three tables: names of kinds are short."""
    return 3 * text_bytes(place) + _NUMBER_BYTES * (3 * len(KINDS) + LAST_RANK + len(AGES))


def _head(name: str, model: BayesianLogit) -> Heads:
    return Heads(
        head=name,
        mean=model.mean.astype("<f8").tobytes(),
        root=_bytes(model.root()[np.tril_indices(len(model.mean))]),
        offer_variance=model.offers.variance,
        cell_variance=model.cells.variance,
    )


def _joined(found: Sequence[Effects[Key]], more: Iterable[Key]) -> tuple[list[Key], Floats]:
    """Keys of all heads in the sequence they were met and those of ``more``, and an array (n, heads, 2) of
    mean and variance."""
    keys = list(dict.fromkeys([*(key for one in found for key in one.keys), *more]))
    index = {key: row for row, key in enumerate(keys)}
    numbers = np.zeros((len(keys), len(found), 2))
    for head, one in enumerate(found):
        numbers[:, head, 1] = one.variance
        rows = [index[key] for key in one.keys]
        numbers[rows, head, 0], numbers[rows, head, 1] = one.arrays()
    return keys, numbers


def _slots(learner: ResponseLearner) -> dict[str, list[float]]:
    """Odds by slot, of being engaged with; where nobody engages, of being bought."""
    engages = learner.engaging.counts[EVERYWHERE][0].any()
    return learner.slots[ENGAGED if engages else ALONE].odds()


def _delays(learner: ResponseLearner) -> dict[str, list[float]]:
    return {placement: list(learner.converting.shares(placement)) for placement in learner.converting.counts}


def _bytes(numbers: Floats) -> bytes:
    return numbers.astype("<f4").tobytes()
