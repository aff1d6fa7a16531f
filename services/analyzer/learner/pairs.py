"""Neighbour lists of products that the solution lacks, from their pairs alone: made as they are bought."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from libs.common.clock import Millis
from libs.common.contracts.learned_model import Neighbour
from services.analyzer.learner.complements import ComplementParameters
from services.analyzer.learner.counts import Floats, Ints, OrderCounts

Lists = dict[str, list[Neighbour]]

PART_BYTES = 48_000
"""A part of the log is closed at this size: what a new list costs to publish, at most."""

FADED = 1e-6
"""Pairs of fewer (decayed) orders are none."""


class PairLog:
    """Lists by product in the sequence they were made, in parts: only the last one still changes.

    A product may be in several parts; the list in the latest is its newest.

    Attributes
    ----------
    parts:
        The closed ones are never touched again, so they may be shared and need not be published again.
    added:
        Lists taken since the log was begun, replaced ones included.
    """

    def __init__(self, parts: Iterable[Lists] = (), added: int = 0) -> None:
        self.parts: list[Lists] = list(parts)
        self.added = added
        self._room = PART_BYTES - _bytes(self.parts[-1]) if self.parts else 0

    def add(self, lists: Mapping[str, list[Neighbour]]) -> None:
        """Take newer lists, in this sequence."""
        self.added += len(lists)
        for product_id, row in lists.items():
            if self._room <= 0:
                self.parts.append({})
                self._room = PART_BYTES
            open_part = self.parts[-1]
            # Trap: the room must follow from the content, or a restored log would be cut elsewhere.
            replaced = open_part.get(product_id)
            self._room -= row_bytes(product_id, row)
            if replaced is not None:
                self._room += row_bytes(product_id, replaced)
            open_part[product_id] = row

    def newest(self) -> Lists:
        """The newest list of each product."""
        return {product_id: row for part in self.parts for product_id, row in part.items()}

    def with_pending(self, lists: Mapping[str, list[Neighbour]]) -> PairLog:
        """A log that also has ``lists``; this one stays as it is."""
        last = [dict(part) for part in self.parts[-1:]]
        log = PairLog([*self.parts[:-1], *last], self.added)
        log.add(lists)
        return log


def lists_from_pairs(
    counts: OrderCounts,
    numbers: Sequence[int],
    others: Mapping[int, Mapping[int, float]],
    at: Millis,
    parameters: ComplementParameters,
) -> Lists:
    """Neighbours of each product of ``numbers`` among its ``others`` at ``at``, best first, ties by number.

    ``others`` are numbers, with the forward weight of the pair as in ``counts.pairs``.

    The weight is the excess over chance, shrunken by the ridge: (n_ij − n_i·n_j/n) / (n_i + λ), the ridge
    coefficient of the pair alone, so that it may be added to those of EASE.
    """
    scale = 1.0 / counts.pairs_decay.weight(at)
    none: Mapping[int, float] = {}
    among = [others.get(number, none) for number in numbers]
    sizes = [len(each) for each in among]
    rows: Ints = np.repeat(np.arange(len(numbers)), sizes)
    theirs: Ints = np.fromiter(chain.from_iterable(among), dtype=np.int64, count=sum(sizes))
    asked: Ints = np.array(numbers, dtype=np.int64)
    support = _taken(map(counts.support.__getitem__, numbers), len(numbers)) * scale
    owner = asked[rows]
    both = _taken(chain.from_iterable(each.values() for each in among), len(theirs)) * scale
    # Trap: what has faded to nothing would be divided by nothing.
    known = both > FADED
    rows, owner, theirs, both = rows[known], owner[known], theirs[known], both[known]
    mine = support[rows]
    other = _taken(map(counts.support.__getitem__, theirs.tolist()), len(owner)) * scale
    total = counts.total_pairs * scale
    excess = both - mine * other / total
    weight = (excess / (mine + parameters.ridge)).astype(np.float32)
    best = np.lexsort((theirs, -weight, rows))
    best = best[excess[best] > 0.0]
    # Rows are in sequence, so a place within its row is a distance from the row's first.
    place = np.arange(len(best)) - np.searchsorted(rows[best], rows[best])
    best = best[place < parameters.pair_neighbours]
    together = (100.0 * both[best] / mine[best]).astype(np.float32)
    lift = (both[best] * total / (mine[best] * other[best])).astype(np.float32)
    lists: Lists = {counts.products[number]: [] for number in numbers}
    found = zip(
        owner[best].tolist(),
        theirs[best].tolist(),
        weight[best].tolist(),
        together.tolist(),
        lift.tolist(),
        strict=True,
    )
    for number, neighbour, *figures in found:
        lists[counts.products[number]].append(Neighbour(counts.products[neighbour], *figures))
    return lists


def _taken(values: Iterable[float], count: int) -> Floats:
    return np.fromiter(values, dtype=np.float64, count=count)


def _bytes(part: Lists) -> int:
    return sum(row_bytes(product_id, row) for product_id, row in part.items())


def row_bytes(product_id: str, row: Sequence[Neighbour]) -> int:
    """Size of a published list: an id, the marks, and per neighbour an id and three doubles with theirs."""
    ids = "".join([product_id, *[neighbour.product_id for neighbour in row]])
    return len(ids.encode("utf-8", "surrogatepass")) + 8 + 32 * len(row)
