"""How much more than usual goods of a category are bought at an hour, by a channel, in an order of a size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from libs.common.clock import Millis
from libs.common.contracts.learned_model import OccasionsPart
from libs.common.scoring.occasions import HOURS, MOST_FIT, SIZES, hour_at, size_at
from libs.common.scoring.shelf import Shelf
from services.analyzer.learner.arrays import packed, unpacked
from services.analyzer.learner.counts import Floats, ForwardDecay
from services.analyzer.learner.cuts import cuts, text_bytes
from services.analyzer.model.lessons import OrderLesson

DOUBT = 10.0
"""Decayed orders with a category, as many as usual, that are added to those seen on an occasion."""
MOST_CHANNELS = 16
"""Channels that are told apart; where one more comes, the one with the fewest orders is forgotten."""
MOST_CATEGORIES = 1_000
"""Categories that are published, those in most orders."""
LONGEST_CHANNEL = 64
_SIZES = HOURS + MOST_CHANNELS
"""The first column of sizes."""
_COLUMNS = _SIZES + SIZES


class OccasionsState(Struct, frozen=True, kw_only=True):
    """Everything that was counted, arrays as bytes of ``<f8``."""

    landmark: Millis = 0
    last: Millis = 0
    categories: list[str] = []
    channels: list[str] = []
    orders: bytes = packed(np.zeros(_COLUMNS))
    counts: bytes = b""


class OccasionCounts:
    """Decayed numbers of orders by hour, channel and size, and of those with a category of the shelf.

    Parameters
    ----------
    half_life:
        In ms of event time.

    Attributes
    ----------
    orders:
        Array (`HOURS` + `MOST_CHANNELS` + `SIZES`,): orders, in forward units of ``decay``. One between two
        times of the day, or two sizes, counts in parts for both.
    counts:
        Array (categories, the same): those that hold a category.
    """

    def __init__(self, half_life: Millis) -> None:
        self.decay = ForwardDecay(half_life)
        self.last: Millis = 0
        self.categories: Sequence[str] = ()
        self.channels: list[str] = []
        self.orders: Floats = np.zeros(_COLUMNS)
        self.counts: Floats = np.zeros((0, _COLUMNS))
        self._shelf: Shelf | None = None

    def learn_one(self, lesson: OrderLesson, shelf: Shelf) -> None:
        """Count an order, each of its categories once."""
        self._turn_to(shelf)
        if not self.last:
            self.decay.landmark = lesson.occurred_at
        self.last = max(self.last, lesson.at, lesson.occurred_at)
        if half_lives := self.decay.excess(self.last):
            factor = self.decay.move(half_lives)
            self.orders *= factor
            self.counts *= factor
        find = shelf.index.get
        places = [at for line in lesson.lines if (at := find(line.product_id)) is not None]
        held = np.array(sorted(set(shelf.category[places].tolist())), dtype=np.int64)
        weight = self.decay.weight(lesson.occurred_at)
        before, after, part = hour_at(lesson.occurred_at)
        below, above, more = size_at(len({line.product_id for line in lesson.lines}))
        columns = [before, after, _SIZES + below, _SIZES + above]
        amounts = [weight * (1.0 - part), weight * part, weight * (1.0 - more), weight * more]
        if (channel := self._column(lesson.channel)) is not None:
            columns.append(channel)
            amounts.append(weight)
        self.orders[columns] += amounts
        self.counts[held[:, None], columns] += amounts

    def told(self) -> list[OccasionsPart]:
        """Fits of the categories in most orders, as parts; a function of the state alone.

        A ratio of counts to what is usual, both with `DOUBT` more: the mean of a Gamma posterior around 1
        (DuMouchel 1999).
        """
        columns = HOURS + len(self.channels)
        used = np.r_[:columns, _SIZES:_COLUMNS]
        scale = 1.0 / self.decay.weight(self.last)
        orders, counts = self.orders[used] * scale, self.counts[:, used] * scale
        total = float(orders[:HOURS].sum())
        held = counts[:, :HOURS].sum(axis=1)
        kept = np.sort(np.argsort(-held, kind="stable")[:MOST_CATEGORIES])
        kept = kept[held[kept] > 0.0]
        usual = held[kept, None] * (orders / max(total, 1e-300))
        fits = np.clip(np.log((counts[kept] + DOUBT) / (usual + DOUBT)), -MOST_FIT, MOST_FIT)
        rows, names = fits.astype("<f4"), [self.categories[row] for row in kept.tolist()]
        return [
            OccasionsPart(
                version=0,
                part=number,
                channels=list(self.channels),
                categories=names[some],
                fits=rows[some, :columns].tobytes(),
                sizes=rows[some, columns:].tobytes(),
            )
            for number, some in enumerate(
                cuts(text_bytes(name) + rows.itemsize * len(used) for name in names)
            )
        ]

    def state(self) -> OccasionsState:
        """Without categories in no order: a shelf may have as many as products."""
        held = np.flatnonzero(self.counts.any(axis=1))
        return OccasionsState(
            landmark=self.decay.landmark,
            last=self.last,
            categories=[self.categories[row] for row in held.tolist()],
            channels=list(self.channels),
            orders=packed(self.orders),
            counts=packed(self.counts[held]),
        )

    def restore(self, saved: OccasionsState) -> None:
        """Go on from what was saved."""
        self.decay.landmark, self.last = saved.landmark, saved.last
        self.categories, self.channels = saved.categories, list(saved.channels)
        self.orders = unpacked(saved.orders)
        self.counts = unpacked(saved.counts).reshape(len(saved.categories), _COLUMNS)

    def _column(self, channel: str) -> int | None:
        """Where orders by ``channel`` are counted; None for one that is no name."""
        if not 0 < len(channel) <= LONGEST_CHANNEL:
            return None
        if channel in self.channels:
            return HOURS + self.channels.index(channel)
        if len(self.channels) < MOST_CHANNELS:
            self.channels.append(channel)
            return HOURS + len(self.channels) - 1
        least = int(np.argmin(self.orders[HOURS:_SIZES]))
        self.channels[least] = channel
        self.orders[HOURS + least] = self.counts[:, HOURS + least] = 0.0
        return HOURS + least

    def _turn_to(self, shelf: Shelf) -> None:
        """Count on another shelf; categories that are no more on it are forgotten."""
        if shelf is self._shelf:
            return
        counts = np.zeros((shelf.categories, _COLUMNS))
        to = {name: row for row, name in enumerate(shelf.category_names)}
        kept = [row for row, name in enumerate(self.categories) if name in to]
        counts[[to[self.categories[row]] for row in kept]] = self.counts[kept]
        self._shelf, self.categories, self.counts = shelf, shelf.category_names, counts
