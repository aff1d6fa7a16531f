"""The published parts of the learned models, put together in memory, for serving and for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import Millis
from libs.common.contracts.learned_model import (
    COMPLEMENTS,
    MANIFEST_KEY,
    POPULARITY,
    ComplementsPart,
    Manifest,
    Neighbour,
    Popular,
    PopularityPart,
    decode_learned,
    part_key,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_Part = TypeVar("_Part", PopularityPart, ComplementsPart)


@dataclass(frozen=True, eq=False)
class Popularity:
    """Popularity of ``n`` products.

    Parameters
    ----------
    products, index:
        Product ids, most popular first, and the position of each.
    weight, share, orders:
        Arrays (n,): decayed number of orders with it, share of all orders, orders seen.
    """

    products: Sequence[str]
    index: Mapping[str, int]
    weight: Floats
    share: Floats
    orders: Ints


@dataclass(frozen=True, eq=False)
class Complements:
    """Neighbour lists of ``n`` products as padded arrays (n, width).

    Parameters
    ----------
    products, index:
        Product ids in ascending order, and the row of each; neighbours are among them.
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
    )


def complements_of(lists: Mapping[str, Sequence[Neighbour]]) -> Complements:
    """Padded arrays from neighbour lists."""
    names = set(lists)
    for neighbours in lists.values():
        names.update(neighbour.product_id for neighbour in neighbours)
    products = sorted(names)
    index = {product_id: at for at, product_id in enumerate(products)}
    width = max((len(neighbours) for neighbours in lists.values()), default=0)
    shape = (len(products), width)
    columns = np.full(shape, -1, dtype=np.int64)
    numbers = np.zeros((3, *shape))
    for product_id, neighbours in lists.items():
        if neighbours:
            row, size = index[product_id], len(neighbours)
            columns[row, :size] = [index[neighbour.product_id] for neighbour in neighbours]
            numbers[:, row, :size] = np.array([(n.weight, n.together, n.lift) for n in neighbours]).T
    return Complements(products, index, columns, numbers[0], numbers[1], numbers[2])


NO_POPULARITY = popularity_of(())
NO_COMPLEMENTS = complements_of({})


@dataclass(frozen=True, eq=False)
class LearnedModels:
    """One complete version of what was learned from everybody; version 0 knows nothing."""

    version: int = 0
    journal_time: Millis = 0
    orders: int = 0
    trials: int = 0
    popularity: Popularity = field(default=NO_POPULARITY)
    complements: Complements = field(default=NO_COMPLEMENTS)


class LearnedAssembler:
    """Takes the records of ``learned-models`` in any order and holds the newest complete version.

    Feed it every record that arrives (or all entries of a view, once) with `put`, and use `models`. While
    a newer version is still arriving, the one before it stays in use.
    """

    def __init__(self) -> None:
        self.models = LearnedModels()
        self._popularity: dict[bytes, PopularityPart] = {}
        self._complements: dict[bytes, ComplementsPart] = {}
        self._manifest: Manifest | None = None
        self._built: dict[str, tuple[int, ...]] = {}

    def put(self, key: bytes, value: bytes) -> bool:
        """Take one record; True where `models` changed. Raises msgspec.DecodeError for foreign bytes."""
        record = decode_learned(value)
        if isinstance(record, Manifest):
            if key != MANIFEST_KEY or not self._newer(record):
                return False
            self._manifest = record
        elif isinstance(record, PopularityPart):
            if key in self._popularity and self._popularity[key].version > record.version:
                return False
            self._popularity[key] = record
        else:
            if key in self._complements and self._complements[key].version > record.version:
                return False
            self._complements[key] = record
        return self._switch()

    def _newer(self, manifest: Manifest) -> bool:
        held = self._manifest
        return held is None or (manifest.version, manifest.journal_time) >= (held.version, held.journal_time)

    def _switch(self) -> bool:
        manifest = self._manifest
        if manifest is None:
            return False
        if (manifest.version, manifest.journal_time) == (self.models.version, self.models.journal_time):
            return False
        popularity = self._parts(POPULARITY, self._popularity)
        complements = self._parts(COMPLEMENTS, self._complements)
        if popularity is None or complements is None:
            return False
        self.models = LearnedModels(
            version=manifest.version,
            journal_time=manifest.journal_time,
            orders=manifest.orders,
            trials=manifest.trials,
            popularity=self._popularity_now(popularity),
            complements=self._complements_now(complements),
        )
        return True

    def _parts(self, name: str, held: Mapping[bytes, _Part]) -> list[_Part] | None:
        """The parts of ``name`` the manifest names, or None while one is missing or of another version."""
        assert self._manifest is not None
        parts = []
        for number, version in enumerate(self._manifest.part_versions(name)):
            part = held.get(part_key(name, number))
            if part is None or part.version != version:
                return None
            parts.append(part)
        return parts

    def _popularity_now(self, parts: Sequence[PopularityPart]) -> Popularity:
        if self._unchanged(POPULARITY, parts):
            return self.models.popularity
        return popularity_of(row for part in parts for row in part.products)

    def _complements_now(self, parts: Sequence[ComplementsPart]) -> Complements:
        # Trap: padded arrays are costly to build and mostly stay the same between two solves.
        if self._unchanged(COMPLEMENTS, parts):
            return self.models.complements
        return complements_of({key: row for part in parts for key, row in part.neighbours.items()})

    def _unchanged(self, name: str, parts: Sequence[PopularityPart | ComplementsPart]) -> bool:
        versions = tuple(part.version for part in parts)
        if self._built.get(name) == versions:
            return True
        self._built[name] = versions
        return False
