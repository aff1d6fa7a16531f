"""The published parts of the learned models, put together in memory, for serving and for evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import Millis
from libs.common.contracts.learned_model import (
    CAUSED,
    CHOICE,
    COMPLEMENTS,
    INTERCEPTS,
    MANIFEST_KEY,
    OCCASIONS,
    PAIRS,
    POPULARITY,
    RESPONSE,
    CausedPart,
    ChoicePart,
    ComplementsPart,
    InterceptsPart,
    LearnedPart,
    Manifest,
    Neighbour,
    OccasionsPart,
    PairsPart,
    Popular,
    PopularityPart,
    ResponsePart,
    decode_learned,
    part_key,
)
from libs.common.scoring.choice import START, ChoiceModel
from libs.common.scoring.occasions import NO_OCCASIONS, Occasions, occasions_of
from libs.common.scoring.response import ResponseModel, response_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_Part = TypeVar(
    "_Part",
    PopularityPart,
    ComplementsPart,
    PairsPart,
    OccasionsPart,
    ChoicePart,
    ResponsePart,
    InterceptsPart,
    CausedPart,
)


@dataclass(frozen=True, eq=False)
class Popularity:
    """Popularity of ``n`` products.

    Parameters
    ----------
    products, index:
        Product ids, most popular first, and the position of each.
    weight, share, orders, recent, first:
        Arrays (n,): decayed number of orders with it, share of all orders, orders seen, the decayed
        number of the latest ones (half-life 7 d), and the share of orders of who never had it.
    """

    products: Sequence[str]
    index: Mapping[str, int]
    weight: Floats
    share: Floats
    orders: Ints
    recent: Floats
    first: Floats


@dataclass(frozen=True, eq=False)
class Complements:
    """Neighbour lists of ``n`` products as padded arrays (n, width).

    Parameters
    ----------
    products, index:
        Product ids, and the row of each; neighbours are among them.
    neighbours:
        Rows of the neighbours, best first; −1 where the list is shorter than the widest.
    weight, together, lift:
        As in `Neighbour`; 0 where padded.
    """

    products: Sequence[str]
    index: Mapping[str, int]
    neighbours: Ints
    weight: Floats
    together: Floats
    lift: Floats

    def of(self, product_id: str) -> list[Neighbour]:
        """The neighbours of a product, best first; empty for a product nothing is known of."""
        row = self.index.get(product_id)
        if row is None:
            return []
        return [
            Neighbour(
                self.products[column],
                float(self.weight[row, place]),
                float(self.together[row, place]),
                float(self.lift[row, place]),
            )
            for place, column in enumerate(self.neighbours[row].tolist())
            if column >= 0
        ]


def popularity_of(products: Iterable[Popular]) -> Popularity:
    """Arrays from published rows, most popular first (ties by id)."""
    rows = sorted(products, key=lambda row: (-row.weight, row.product_id))
    return Popularity(
        products=[row.product_id for row in rows],
        index={row.product_id: at for at, row in enumerate(rows)},
        weight=np.array([row.weight for row in rows], dtype=np.float64),
        share=np.array([row.share for row in rows], dtype=np.float64),
        orders=np.array([row.orders for row in rows], dtype=np.int64),
        recent=np.array([row.recent for row in rows], dtype=np.float64),
        first=np.array([row.first for row in rows], dtype=np.float64),
    )


def complements_of(lists: Mapping[str, Sequence[Neighbour]], base: Complements | None = None) -> Complements:
    """Padded arrays from neighbour lists; those of ``base`` stay, where ``lists`` has no newer."""
    flat = [neighbour for neighbours in lists.values() for neighbour in neighbours]
    known: Mapping[str, int] = base.index if base is not None else {}
    new = sorted({*lists, *(neighbour.product_id for neighbour in flat)}.difference(known))
    old = list(base.products) if base is not None else []
    index = {**known, **{product_id: at for at, product_id in enumerate(new, len(old))}}
    sizes = np.fromiter(map(len, lists.values()), dtype=np.int64, count=len(lists))
    before = base.neighbours.shape[1] if base is not None else 0
    width = max(before, int(sizes.max(initial=0)))
    columns = np.full((len(index), width), -1, dtype=np.int64)
    numbers = np.zeros((3, len(index), width))
    if base is not None:
        columns[: len(old), :before] = base.neighbours
        numbers[:, : len(old), :before] = base.weight, base.together, base.lift
    rows = np.fromiter(map(index.__getitem__, lists), dtype=np.int64, count=len(lists))
    columns[rows] = -1
    numbers[:, rows] = 0.0
    row, place = np.nonzero(np.arange(width) < sizes[:, None])
    columns[rows[row], place] = [index[neighbour.product_id] for neighbour in flat]
    numbers[0, rows[row], place] = [neighbour.weight for neighbour in flat]
    numbers[1, rows[row], place] = [neighbour.together for neighbour in flat]
    numbers[2, rows[row], place] = [neighbour.lift for neighbour in flat]
    return Complements([*old, *new], index, columns, numbers[0], numbers[1], numbers[2])


NO_POPULARITY = popularity_of(())
NO_COMPLEMENTS = complements_of({})
NO_RESPONSES = ResponseModel()


@dataclass(frozen=True, eq=False)
class LearnedModels:
    """One complete version of what was learned from everybody; version 0 knows what it starts with.

    ``complements`` holds the solved lists, and for the products that the solution lacks those of pairs.
    ``choice`` is the prior until something was learned about choices.
    """

    version: int = 0
    journal_time: Millis = 0
    orders: int = 0
    trials: int = 0
    popularity: Popularity = field(default=NO_POPULARITY)
    complements: Complements = field(default=NO_COMPLEMENTS)
    occasions: Occasions = field(default=NO_OCCASIONS)
    choice: ChoiceModel = field(default=START)
    response: ResponseModel = field(default=NO_RESPONSES)


class LearnedAssembler:
    """Takes the records of ``learned-models`` in any order and holds the newest complete version.

    Feed it every record that arrives (or all entries of a view, once) with `put`, and use `models`. While
    a newer version is still arriving, the one before it stays in use.
    """

    def __init__(self) -> None:
        self.models = LearnedModels()
        self._held: dict[bytes, LearnedPart] = {}
        self._manifest: Manifest | None = None
        self._built: dict[str, tuple[int, ...]] = {}
        self._solved = NO_COMPLEMENTS

    def put(self, key: bytes, value: bytes) -> bool:
        """Take one record; True where `models` changed. Raises msgspec.DecodeError for foreign bytes."""
        record = decode_learned(value)
        if isinstance(record, Manifest):
            if key != MANIFEST_KEY or not self._newer(record):
                return False
            self._manifest = record
        else:
            if key in self._held and self._held[key].version > record.version:
                return False
            self._held[key] = record
        return self._switch()

    def drop(self, key: bytes) -> None:
        """Forget a part that is not published any more; models in use keep what they were made of."""
        self._held.pop(key, None)

    def _newer(self, manifest: Manifest) -> bool:
        held = self._manifest
        return held is None or (manifest.version, manifest.journal_time) >= (held.version, held.journal_time)

    def _switch(self) -> bool:
        manifest = self._manifest
        if manifest is None:
            return False
        if (manifest.version, manifest.journal_time) == (self.models.version, self.models.journal_time):
            return False
        popularity = self._parts(POPULARITY, PopularityPart)
        complements = self._parts(COMPLEMENTS, ComplementsPart)
        pairs = self._parts(PAIRS, PairsPart)
        occasions = self._parts(OCCASIONS, OccasionsPart)
        choice = self._parts(CHOICE, ChoicePart)
        heads = self._parts(RESPONSE, ResponsePart)
        intercepts = self._parts(INTERCEPTS, InterceptsPart)
        caused = self._parts(CAUSED, CausedPart)
        if popularity is None or complements is None or pairs is None or choice is None:
            return False
        if occasions is None or heads is None or intercepts is None or caused is None:
            return False
        self.models = LearnedModels(
            version=manifest.version,
            journal_time=manifest.journal_time,
            orders=manifest.orders,
            trials=manifest.trials,
            popularity=self._popularity_now(popularity),
            complements=self._complements_now(complements, pairs),
            occasions=self._occasions_now(occasions),
            choice=self._choice_now(choice),
            response=self._response_now(manifest.version, heads, intercepts, caused),
        )
        return True

    def _parts(self, name: str, kind: type[_Part]) -> list[_Part] | None:
        """The parts of ``name`` the manifest names, or None while one is missing or of another version."""
        assert self._manifest is not None
        parts = []
        for number, version in enumerate(self._manifest.part_versions(name)):
            part = self._held.get(part_key(name, number))
            if not isinstance(part, kind) or part.version != version:
                return None
            parts.append(part)
        return parts

    def _popularity_now(self, parts: Sequence[PopularityPart]) -> Popularity:
        if self._unchanged(POPULARITY, parts):
            return self.models.popularity
        return popularity_of(row for part in parts for row in part.products)

    def _complements_now(self, solved: Sequence[ComplementsPart], pairs: Sequence[PairsPart]) -> Complements:
        # Trap: the solved lists are many and stay the same between two solves; those of pairs are few.
        same = self._unchanged(COMPLEMENTS, solved)
        if not same:
            self._solved = complements_of(_lists(solved))
        if self._unchanged(PAIRS, pairs) and same:
            return self.models.complements
        return complements_of(_lists(pairs), self._solved)

    def _occasions_now(self, parts: Sequence[OccasionsPart]) -> Occasions:
        return self.models.occasions if self._unchanged(OCCASIONS, parts) else occasions_of(parts)

    def _choice_now(self, parts: Sequence[ChoicePart]) -> ChoiceModel:
        if self._unchanged(CHOICE, parts):
            return self.models.choice
        return choice_of(parts[0]) if parts else START

    def _response_now(
        self,
        version: int,
        heads: Sequence[ResponsePart],
        intercepts: Sequence[InterceptsPart],
        caused: Sequence[CausedPart],
    ) -> ResponseModel:
        same = [
            self._unchanged(RESPONSE, heads),
            self._unchanged(INTERCEPTS, intercepts),
            self._unchanged(CAUSED, caused),
        ]
        if all(same):
            # Another version draws other weights, also where it says the same.
            return replace(self.models.response, version=version)
        return response_of(version, heads, intercepts, caused)

    def _unchanged(self, name: str, parts: Sequence[LearnedPart]) -> bool:
        versions = tuple(part.version for part in parts)
        if self._built.get(name) == versions:
            return True
        self._built[name] = versions
        return False


def choice_of(part: ChoicePart) -> ChoiceModel:
    """The model as it was published; what is not finite weighs nothing."""
    named = zip(part.names, part.weights, strict=False)
    return ChoiceModel({name: weight for name, weight in named if math.isfinite(weight)})


def _lists(parts: Iterable[ComplementsPart | PairsPart]) -> dict[str, list[Neighbour]]:
    """By product; what a later part says of one counts."""
    return {product_id: row for part in parts for product_id, row in part.neighbours.items()}
