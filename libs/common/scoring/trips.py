"""A customer's own orders of earlier days: what else was in those that resemble the basket in his hand.

A neighbourhood of sessions (Jannach & Ludewig 2017) that is his alone: who has charcoal in hand is about to
buy what he bought with charcoal, not what he buys on Mondays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import DAY
from libs.common.contracts.customer_model import Item
from libs.common.scoring.decay import HALF_LIFE_SEASON

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DOUBT = 0.3
"""Added to the likeness of all his days together, spread as his days usually are."""
WINDOW = 720
"""Days before his latest order that are looked at; the last of them count for 1/64."""
FLOOR = 0.01
"""Added to shares of his days before they are compared: no fit is further from 0 than log(101)."""
_WEIGHT = np.exp2(-np.arange(WINDOW) * (DAY / HALF_LIFE_SEASON))
"""What a day counts for by its distance from the latest: half after 120 days."""


@dataclass(frozen=True, eq=False)
class Trips:
    """On which days ``m`` products of a customer were bought, as pairs (k,) of a product and a day.

    Attributes
    ----------
    row:
        The row of each product id.
    rows, days:
        Arrays (k,): the product's row, and how many days before his latest order.
    worth:
        Array (`WINDOW`,): what one product shared with the day says: its weight over the root of its size.
    usual:
        Array (m,): in what share of the days on which he bought something each was bought.
    """

    row: Mapping[str, int]
    rows: Ints
    days: Ints
    worth: Floats
    usual: Floats

    @classmethod
    def of(cls, items: Mapping[str, Item]) -> Trips:
        """Those of ``items``, the rows in their order."""
        told = [item.days for item in items.values()]
        rows = np.repeat(np.arange(len(told)), list(map(len, told)))
        dates = np.fromiter(chain.from_iterable(told), dtype=np.int64, count=len(rows))
        latest = int(dates.max()) if len(dates) else 0
        near = dates > latest - WINDOW
        rows, days = rows[near], latest - dates[near]
        size = np.bincount(days, minlength=WINDOW).astype(np.float64)
        usual = np.bincount(rows, _WEIGHT[days], len(told)) / max(float(_WEIGHT[size > 0.0].sum()), 1.0)
        return cls(
            row={product_id: row for row, product_id in enumerate(items)},
            rows=rows,
            days=days,
            worth=_WEIGHT / np.sqrt(np.maximum(size, 1.0)),
            usual=usual,
        )

    def fits(self, basket: Sequence[str]) -> Floats | None:
        """Array (m,): log of how much likelier than on any of his days each is bought on one that resembles
        ``basket``; None where no day does.

        A day resembles it by the cosine of what was bought on it and what is in it.
        """
        given = dict.fromkeys(basket)
        held = [row for product_id in given if (row := self.row.get(product_id)) is not None]
        in_hand = np.zeros(len(self.usual), dtype=np.bool_)
        in_hand[held] = True
        shared = np.bincount(self.days[in_hand[self.rows]], minlength=WINDOW)
        if not shared.any():
            return None
        like = self.worth * shared * len(given) ** -0.5
        among = np.bincount(self.rows, like[self.days], len(self.usual)) + DOUBT * self.usual
        among /= float(like.sum()) + DOUBT
        return np.asarray(np.log((among + FLOOR) / (self.usual + FLOOR)))
