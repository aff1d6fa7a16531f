"""What one customer did, on the shelf: read once per model, laid over time, kept for his next request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_model import Item
from libs.common.scoring.arrays import joined, parted
from libs.common.scoring.comparables import NO_TIER
from libs.common.scoring.decay import HALF_LIFE_FORTNIGHT, HALF_LIFE_SEASON
from libs.common.scoring.shelf import NO_BRAND, ScoringTables, Shelf
from libs.common.scoring.trips import Trips

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HISTORY_ITEMS = 64
"""So many of a customer's products, the most bought first, ask for their complements."""
_NEVER = -np.inf
VIEW_SHARE = 0.3
"""What a view says about the price tier somebody wants, beside an order's 1."""
TIER_DOUBT = 3.0
"""Orders that what he wants elsewhere counts for in a category, and that `NO_TIER` counts for overall."""

_HALF_LIVES = np.array([[HALF_LIFE_SEASON], [HALF_LIFE_FORTNIGHT]], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Traces:
    """A customer's products as arrays (m,) in the order of his `Items`: what time does not change.

    Attributes
    ----------
    positions, rows:
        Their shelf positions and rows of complements (−1: none).
    on:
        Which of them are on the shelf.
    weight, since:
        Arrays (2, m): decayed orders and views, and the moments they are of.
    last, cycle, times:
        Arrays (m,): the latest order (−infinite: never), mean days between orders, orders with it.
    """

    items: Mapping[str, Item]
    positions: Ints
    rows: Ints
    on: NDArray[np.bool_]
    weight: Floats
    since: Floats
    last: Floats
    cycle: Floats
    times: Floats

    @classmethod
    def of(cls, tables: ScoringTables, items: Mapping[str, Item]) -> Traces:
        """``items`` as ``tables`` know them."""
        # Trap: flat and by attribute looks clumsy, but it is half of the time of a whole scene.
        flat = [
            number
            for item in items.values()
            for number in (
                item.bought.weight,
                item.viewed.weight,
                item.bought.at,
                item.viewed.at,
                item.last_bought_at if item.orders else _NEVER,
                item.cycle,
                item.orders,
            )
        ]
        numbers = np.array(flat, dtype=np.float64).reshape(-1, 7).T.copy()
        place, row = tables.shelf.index.get, tables.learned.complements.index.get
        positions = np.array([place(product_id, -1) for product_id in items], dtype=np.int64)
        on = positions >= 0
        rows = np.full(len(positions), -1, dtype=np.int64)
        rows[on] = tables.rows[positions[on]]
        if not on.all():
            # What is offered no more still says what goes with it.
            rows[~on] = [row(product_id, -1) for product_id in compress(items, (~on).tolist())]
        return cls(
            items=items,
            positions=positions[on],
            rows=rows,
            on=on,
            weight=numbers[:2],
            since=numbers[2:4],
            last=numbers[4],
            cycle=numbers[5] / DAY,
            times=numbers[6],
        )

    @cached_property
    def trips(self) -> Trips:
        """The days on which they were bought; read only where a basket asks for them."""
        return Trips.of(self.items)


@dataclass(frozen=True, eq=False)
class History:
    """What a customer did with all ``n`` products of the shelf, as of one moment. Not to be written to.

    Attributes
    ----------
    owned, looked_at:
        Positions of the products he bought, and of those he viewed, ascending.
    numbers:
        Array (5, n) of the following five.
    bought, viewed:
        Arrays (n,): decayed orders (half-life 120 d) and views (14 d).
    age, cycle:
        Arrays (n,): days since the latest order with it (infinite: never bought), mean days between
        orders (0: unknown).
    times:
        Array (n,): orders with it, not decayed.
    complements:
        Array (n,): complement scores of what he buys, their mean weighted by decayed orders.
    affinity:
        Array (categories,): share of his purchases in a category.
    willing:
        Array (categories,): the price tier he is willing to pay for, from what he bought and looked at in
        a category, leaning on his other categories where that is little.
    loyal:
        Array (brands,): share of his purchases of a brand; 0 for products without one.
    """

    traces: Traces
    at: Millis
    owned: Ints
    looked_at: Ints
    numbers: Floats
    bought: Floats
    viewed: Floats
    age: Floats
    cycle: Floats
    times: Floats
    complements: Floats
    affinity: Floats
    willing: Floats
    loyal: Floats

    @classmethod
    def of(cls, tables: ScoringTables, traces: Traces, at: Millis) -> History:
        """``traces`` at ``at``; what lies behind ``at`` in time counts as of now."""
        return histories_of(tables, [(traces, at)])[0]


def histories_of(tables: ScoringTables, asked: Sequence[tuple[Traces, Millis]]) -> list[History]:
    """`History.of` several traces, each as by itself."""
    shelf, some = tables.shelf, _Owned.of(asked)
    numbers = np.zeros((len(asked), 5, len(shelf)))
    numbers[:, 2] = np.inf
    numbers[some.row[some.on], :, some.places] = some.own[:, some.on].T
    bought = numbers[:, 0]
    total = bought.sum(axis=1)
    owned, looked_at = (_ascending(some, kind, len(shelf)) for kind in (0, 1))
    rows, positions = owned
    weight = bought[rows, positions]
    affinity = _shares(rows, shelf.category[positions], weight, shelf.categories, total)
    loyal = _shares(some.row[some.on], shelf.brand[some.places], some.own[0, some.on], shelf.brands, total)
    loyal[:, NO_BRAND] = 0.0
    willing = _willing(shelf, some, len(asked))
    complements = _complements(tables, some, len(asked))
    per_row = [np.bincount(rows, minlength=len(asked)).tolist() for rows, _ in (owned, looked_at)]
    return [
        History(traces, at, *rest)
        for (traces, at), *rest in zip(
            asked,
            parted(positions, per_row[0]),
            parted(looked_at[1], per_row[1]),
            numbers,
            *(numbers[:, part] for part in range(5)),
            complements,
            affinity,
            willing,
            loyal,
            strict=True,
        )
    ]


class _Owned(NamedTuple):
    """All items of several customers, one after the other.

    Parameters
    ----------
    sizes:
        How many items each customer has.
    row:
        Whose each is, as an array (m,).
    on, places, rows:
        As in `Traces`, of all of them.
    own:
        Array (5, m): what `History.numbers` says of them.
    """

    sizes: list[int]
    row: Ints
    on: NDArray[np.bool_]
    places: Ints
    rows: Ints
    own: Floats

    @classmethod
    def of(cls, asked: Sequence[tuple[Traces, Millis]]) -> _Owned:
        sizes = [len(traces.on) for traces, _ in asked]
        at = np.repeat(np.array([at for _, at in asked], dtype=np.float64), sizes)
        each = [traces for traces, _ in asked]
        own = np.empty((5, len(at)))
        since = joined([traces.since for traces in each], axis=1)
        own[:2] = joined([traces.weight for traces in each], axis=1)
        own[:2] *= np.exp2(np.minimum(since - at, 0.0) / _HALF_LIVES)
        own[2] = np.maximum(at - joined([traces.last for traces in each]), 0.0) / DAY
        own[3] = joined([traces.cycle for traces in each])
        own[4] = joined([traces.times for traces in each])
        return cls(
            sizes=sizes,
            row=np.repeat(np.arange(len(asked)), sizes),
            on=joined([traces.on for traces in each]),
            places=joined([traces.positions for traces in each]),
            rows=joined([traces.rows for traces in each]),
            own=own,
        )


class Histories:
    """Histories of customers; `Traces` of those asked for last are kept, as long as items and tables stay.

    Parameters
    ----------
    most:
        How many customers' `Traces` are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tables: ScoringTables | None = None
        self._traces: OrderedDict[str, Traces] = OrderedDict()

    def traces(self, customer: str, tables: ScoringTables, items: Mapping[str, Item]) -> Traces:
        """The traces of ``customer``; ``items`` must be the same object as long as they are the same."""
        self._turn_to(tables)
        held = self._traces.get(customer)
        if held is not None and held.items is items:
            self._traces.move_to_end(customer)
            return held
        traces = Traces.of(tables, items)
        if items:
            self._traces[customer] = traces
            self._traces.move_to_end(customer)
            while len(self._traces) > self._most:
                self._traces.popitem(last=False)
        return traces

    def drop(self, customers: Iterable[str]) -> None:
        """Forget ``customers``."""
        for customer in customers:
            self._traces.pop(customer, None)

    def _turn_to(self, tables: ScoringTables) -> None:
        """Forget what was said of other tables; that alone would keep them in memory."""
        before, self._tables = self._tables, tables
        if before is not None and (
            before.shelf is not tables.shelf or before.learned.complements is not tables.learned.complements
        ):
            self._traces.clear()


def _ascending(some: _Owned, kind: int, size: int) -> tuple[Ints, Ints]:
    """Customers and positions of what they bought (0) or viewed (1), by ascending position."""
    told = some.own[kind, some.on] > 0.0
    row = some.row[some.on][told]
    places = np.sort(row * size + some.places[told])
    return row, places - row * size


def _sums(row: Ints, codes: Ints, weight: Floats, shape: tuple[int, int]) -> Floats:
    """Array (customers, codes): sums of ``weight``, each in the order given."""
    sums = np.bincount(row * shape[1] + codes, weights=weight, minlength=shape[0] * shape[1])
    return np.asarray(sums.reshape(shape), dtype=np.float64)


def _complements(tables: ScoringTables, some: _Owned, many: int) -> Floats:
    """Complements of what each buys: his products weighted by their share of his decayed orders."""
    own = some.own[0]
    total = np.array([float(weight.sum()) for weight in parted(own, some.sizes)])
    # Each customer's by themselves, the most bought first; of those the first.
    order = np.lexsort((-own, some.row))
    begins = np.repeat(np.cumsum([0, *some.sizes[:-1]]), some.sizes)
    row = some.row[order]
    kept = (np.arange(len(order)) - begins < HISTORY_ITEMS) & (some.rows[order] >= 0) & (total[row] > 0.0)
    order, row = order[kept], row[kept]
    return tables.row_scores(some.rows[order], own[order] / total[row], row, many)


def _shares(row: Ints, codes: Ints, weight: Floats, size: int, total: Floats) -> Floats:
    """Array (customers, size): sums of ``weight`` by code, as shares of each one's ``total``."""
    sums = _sums(row, codes, weight, (len(total), size))
    return np.divide(sums, total[:, None], out=np.zeros_like(sums), where=total[:, None] > 0.0)


def _willing(shelf: Shelf, some: _Owned, many: int) -> Floats:
    """Mean tier of what each has to do with, by category, shrunken to his mean over all of them."""
    row, places = some.row[some.on], some.places
    weight = some.own[0, some.on] + VIEW_SHARE * some.own[1, some.on]
    wanted = weight * shelf.comparables.tier[places]
    sizes = np.bincount(row, minlength=many).tolist()
    overall = [
        (float(mine.sum()) + TIER_DOUBT * NO_TIER) / (float(all_.sum()) + TIER_DOUBT)
        for mine, all_ in zip(parted(wanted, sizes), parted(weight, sizes), strict=True)
    ]
    categories, shape = shelf.category[places], (many, shelf.categories)
    sums, weights = _sums(row, categories, wanted, shape), _sums(row, categories, weight, shape)
    return np.asarray((sums + TIER_DOUBT * np.array(overall)[:, None]) / (weights + TIER_DOUBT))
