"""What one customer did, on the shelf: read once per model, laid over time, kept for his next request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_model import Item
from libs.common.scoring.comparables import NO_TIER
from libs.common.scoring.decay import HALF_LIFE_FORTNIGHT, HALF_LIFE_SEASON
from libs.common.scoring.shelf import NO_BRAND, ScoringTables, Shelf

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HISTORY_ITEMS = 64
"""So many of a customer's products, the most bought first, ask for their complements."""
MOST_HELD = 2_000_000
"""Numbers kept in all histories together (16 MB)."""

_NEVER = -np.inf
VIEW_SHARE = 0.3
"""What a view says about the price tier somebody wants, beside an order's 1."""
TIER_DOUBT = 3.0
"""Orders that what he wants elsewhere counts for in a category, and that `NO_TIER` counts for overall."""

_ARRAYS = 7
_HALF_LIVES = np.array([[HALF_LIFE_SEASON], [HALF_LIFE_FORTNIGHT]], dtype=np.float64)

T = TypeVar("T")


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
        return cls(
            items=items,
            positions=positions[positions >= 0],
            rows=np.array([row(product_id, -1) for product_id in items], dtype=np.int64),
            on=positions >= 0,
            weight=numbers[:2],
            since=numbers[2:4],
            last=numbers[4],
            cycle=numbers[5] / DAY,
            times=numbers[6],
        )


@dataclass(frozen=True, eq=False)
class History:
    """What a customer did with all ``n`` products of the shelf, as of one moment. Not to be written to.

    Attributes
    ----------
    owned, looked_at:
        Positions of the products he bought, and of those he viewed, ascending.
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
        shelf, on, places = tables.shelf, traces.on, traces.positions
        own = np.empty((5, len(on)))
        own[:2] = traces.weight * np.exp2(np.minimum(traces.since - at, 0.0) / _HALF_LIVES)
        own[2] = np.maximum(at - traces.last, 0.0) / DAY
        own[3], own[4] = traces.cycle, traces.times
        spread = np.zeros((5, len(shelf)))
        spread[2] = np.inf
        spread[:, places] = own[:, on]
        bought, viewed, age, cycle, times = spread
        total, owned = float(bought.sum()), (bought > 0.0).nonzero()[0]
        return cls(
            traces=traces,
            at=at,
            owned=owned,
            looked_at=(viewed > 0.0).nonzero()[0],
            bought=bought,
            viewed=viewed,
            age=age,
            cycle=cycle,
            times=times,
            complements=_complements(tables, traces.rows, own[0]),
            affinity=_shares(shelf.category[owned], bought[owned], shelf.categories, total),
            willing=_willing(shelf, places, own[0, on] + VIEW_SHARE * own[1, on]),
            loyal=_loyal(shelf, places, own[0, on], total),
        )


class Histories:
    """Histories of the customers asked for last, made anew where items, tables or moment are others.

    Parameters
    ----------
    most:
        How many customers' `Traces` are kept; of whole histories, `MOST_HELD` numbers.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tables: ScoringTables | None = None
        self._traces: OrderedDict[str, Traces] = OrderedDict()
        self._histories: OrderedDict[str, History] = OrderedDict()
        self._nothing: History | None = None

    def of(self, customer: str, tables: ScoringTables, items: Mapping[str, Item], at: Millis) -> History:
        """The history of ``customer``; ``items`` must be the same object as long as they are the same."""
        self._turn_to(tables)
        if not items:
            if self._nothing is None:
                self._nothing = History.of(tables, Traces.of(tables, items), 0)
            return self._nothing
        held = self._histories.get(customer)
        if held is not None and held.at == at and held.traces.items is items:
            self._histories.move_to_end(customer)
            return held
        traces = self._traces.get(customer)
        if traces is None or traces.items is not items:
            traces = Traces.of(tables, items)
            _keep(self._traces, customer, traces, self._most)
        history = History.of(tables, traces, at)
        _keep(self._histories, customer, history, MOST_HELD // (_ARRAYS * len(tables.shelf) + 1))
        return history

    def drop(self, customers: Iterable[str]) -> None:
        """Forget ``customers``."""
        for customer in customers:
            self._traces.pop(customer, None)
            self._histories.pop(customer, None)

    def _turn_to(self, tables: ScoringTables) -> None:
        """Forget what was said of other tables; that alone would keep them in memory."""
        before, self._tables = self._tables, tables
        if before is tables:
            return
        self._histories.clear()
        self._nothing = None
        if (
            before is None
            or before.shelf is not tables.shelf
            or before.learned.complements is not tables.learned.complements
        ):
            self._traces.clear()


def _keep(held: OrderedDict[str, T], customer: str, new: T, most: int) -> None:
    held[customer] = new
    held.move_to_end(customer)
    while len(held) > most:
        held.popitem(last=False)


def _complements(tables: ScoringTables, rows: Ints, own: Floats) -> Floats:
    """Complements of what he buys: his products weighted by their share of his decayed orders."""
    total = float(own.sum())
    if total <= 0.0:
        return np.zeros(len(tables.shelf))
    most = (-own).argsort(kind="stable")[:HISTORY_ITEMS]
    most = most[rows[most] >= 0]
    return tables.row_scores(rows[most], own[most, None] / total)


def _shares(codes: Ints, weight: Floats, size: int, total: float) -> Floats:
    """Array (size,): sums of ``weight`` by code, as shares of ``total``."""
    if total <= 0.0:
        return np.zeros(size)
    return np.bincount(codes, weights=weight, minlength=size) / total


def _willing(shelf: Shelf, places: Ints, weight: Floats) -> Floats:
    """Mean tier of what he has to do with, by category, shrunken to his mean over all of them."""
    wanted = weight * shelf.comparables.tier[places]
    overall = (float(wanted.sum()) + TIER_DOUBT * NO_TIER) / (float(weight.sum()) + TIER_DOUBT)
    categories = shelf.category[places]
    sums = np.bincount(categories, weights=wanted, minlength=shelf.categories)
    weights = np.bincount(categories, weights=weight, minlength=shelf.categories)
    return np.asarray((sums + TIER_DOUBT * overall) / (weights + TIER_DOUBT))


def _loyal(shelf: Shelf, places: Ints, bought: Floats, total: float) -> Floats:
    shares = _shares(shelf.brand[places], bought, shelf.brands, total)
    shares[NO_BRAND] = 0.0
    return shares
