"""What goes with what: EASE, over the products that have support enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import Millis
from libs.common.contracts.learned_model import Neighbour
from services.analyzer.learner.counts import PAIR_SHIFT, Floats, Ints, OrderCounts

Places = NDArray[np.int32]

ROWS_AT_ONCE = 128
STRIP = 256


@dataclass(frozen=True)
class ComplementParameters:
    """How complements are solved.

    Parameters
    ----------
    ridge:
        λ of EASE, in (decayed) orders: how many orders a product needs to be believed.
    support:
        Least decayed number of orders of a product in the solution.
    items:
        Most products in the solution; the time of a solve grows with its third power.
    neighbours:
        Length of the published lists.
    pair_neighbours:
        Length of the lists of products that the solution lacks.
    pair_lists:
        So many of those are made anew after a solve, for the most popular; as many may be added before it
        comes to the most popular again.
    pair_orders:
        After so many orders the lists of the products bought meanwhile are made anew.
    """

    ridge: float = 50.0
    support: float = 8.0
    items: int = 3_000
    neighbours: int = 60
    pair_neighbours: int = 10
    pair_lists: int = 2_000
    pair_orders: int = 32


@dataclass(frozen=True, eq=False)
class Solution:
    """Neighbour lists of ``n`` products: padded arrays (n, width), best first.

    Parameters
    ----------
    products:
        Ids of the products; ``places`` point into this list, −1 where a list has ended.
    weight, together, lift:
        As in `Neighbour`, rounded to single precision.
    """

    products: Sequence[str]
    places: Places
    weight: NDArray[np.float32]
    together: NDArray[np.float32]
    lift: NDArray[np.float32]

    def rows(self) -> dict[str, list[Neighbour]]:
        """The lists by product."""
        numbers = np.stack([self.weight, self.together, self.lift], axis=-1).tolist()
        return {
            product_id: [
                Neighbour(self.products[place], *number)
                for place, number in zip(places, row, strict=True)
                if place >= 0
            ]
            for product_id, places, row in zip(self.products, self.places.tolist(), numbers, strict=True)
        }


def empty_solution() -> Solution:
    """The solution before the first solve."""
    none = np.zeros((0, 0), dtype=np.float32)
    return Solution([], np.zeros((0, 0), dtype=np.int32), none, none, none)


def ease(gram: Floats, ridge: float) -> Floats:
    """Weights (n, n) of the closed-form item model of Steck (2019), "Embarrassingly Shallow Autoencoders".

    ``gram`` (n, n) holds numbers of orders with both products, on its diagonal with one. Row i, column j
    says how much an order with i speaks for j, given all else in the order; the diagonal is 0.
    """
    # Trap: in place, as far as can be. A matrix made anew costs as much in fresh pages as what is computed.
    root = gram.copy()
    root[np.diag_indices(len(gram))] += ridge
    _invert_root(root)
    weights = _squared(root)
    weights /= -np.diag(weights)
    np.fill_diagonal(weights, 0.0)
    return weights


def _invert_root(matrix: Floats) -> None:
    """Turn a symmetric positive definite matrix into L⁻¹ of its Cholesky factor L, in its place.

    By halves, the inverse of the first standing for its factor: so nearly all of it is multiplication of
    blocks, at which a core is several times as fast as at LAPACK's own factor of such a size.
    """
    size = len(matrix)
    if size <= 64:
        matrix[...] = np.tril(np.linalg.inv(np.linalg.cholesky(matrix)))
        return
    half = size // 2
    first, second, below = matrix[:half, :half], matrix[half:, half:], matrix[half:, :half]
    _invert_root(first)
    factor = below @ first.T
    second -= factor @ factor.T
    _invert_root(second)
    np.matmul(second @ factor, first, out=below)
    np.negative(below, out=below)
    matrix[:half, half:] = 0.0


def _squared(lower: Floats) -> Floats:
    """LᵀL of a lower triangular L (n, n), a strip of rows at a time: a third of the work of a full one."""
    size = len(lower)
    square = np.empty_like(lower)
    for begin in range(0, size, STRIP):
        end = min(begin + STRIP, size)
        np.matmul(lower[begin:, begin:end].T, lower[begin:, :end], out=square[begin:end, :end])
        square[:begin, begin:end] = square[begin:end, :begin].T
    return square


def solve(counts: OrderCounts, at: Millis, parameters: ComplementParameters) -> Solution:
    """EASE over the products with support enough at ``at``, with lists cut to the best of positive weight."""
    scale = 1.0 / counts.pairs_decay.weight(at)
    support = np.array(counts.support) * scale
    chosen = np.flatnonzero(support >= parameters.support)
    if len(chosen) > parameters.items:
        heaviest = np.lexsort((chosen, -support[chosen]))[: parameters.items]
        chosen = np.sort(chosen[heaviest])
    if not len(chosen):
        return empty_solution()
    gram = _gram(counts, chosen, support, scale)
    weights = ease(gram, parameters.ridge)
    # Only what was really bought together can be given as a reason.
    np.copyto(weights, 0.0, where=gram <= 0.0)
    width = min(parameters.neighbours, len(chosen) - 1)
    # Some rows at a time: what is made anew for all of them costs more in fresh pages than in work.
    blocks = range(0, len(chosen), ROWS_AT_ONCE)
    places = np.concatenate([_best(weights[row : row + ROWS_AT_ONCE], width) for row in blocks])
    best = np.take_along_axis(weights, places, axis=1)
    both = np.take_along_axis(gram, places, axis=1)
    mine, theirs = np.diag(gram)[:, None], np.diag(gram)[places]
    kept = best > 0.0
    return Solution(
        products=[counts.products[number] for number in chosen.tolist()],
        places=np.where(kept, places, -1).astype(np.int32),
        weight=np.where(kept, best, 0.0).astype(np.float32),
        together=np.where(kept, 100.0 * both / mine, 0.0).astype(np.float32),
        lift=np.where(kept, both * (counts.total_pairs * scale) / (mine * theirs), 0.0).astype(np.float32),
    )


def _gram(counts: OrderCounts, chosen: Ints, support: Floats, scale: float) -> Floats:
    place = np.full(len(support), -1, dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    keys = np.fromiter(counts.pairs, dtype=np.int64, count=len(counts.pairs))
    values = np.fromiter(counts.pairs.values(), dtype=np.float64, count=len(counts.pairs))
    rows, columns = place[keys >> PAIR_SHIFT], place[keys & ((1 << PAIR_SHIFT) - 1)]
    inside = (rows >= 0) & (columns >= 0)
    rows, columns, values = rows[inside], columns[inside], values[inside] * scale
    gram = np.zeros((len(chosen), len(chosen)))
    gram[rows, columns] = values
    gram[columns, rows] = values
    gram[np.arange(len(chosen)), np.arange(len(chosen))] = support[chosen]
    return gram


def _best(weights: Floats, width: int) -> Ints:
    """Columns of the ``width`` greatest of each row, greatest first; ties by column."""
    if not width:
        return np.zeros((len(weights), 0), dtype=np.int64)
    top = np.sort(np.argpartition(-weights, width - 1, axis=1)[:, :width], axis=1)
    order = np.argsort(-np.take_along_axis(weights, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)
