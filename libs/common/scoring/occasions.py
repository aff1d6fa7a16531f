"""Occasions: how much more than usual goods of a category are bought at an hour, by a channel, in an order of
a size.

In a conditional logit what is equal for all alternatives says nothing, so hour, channel and size speak
through the category of a product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import DAY, Millis
from libs.common.contracts.learned_model import OccasionsPart

Floats = NDArray[np.float64]

HOURS = 8
"""Times of the day, three hours apart, the first at midnight (UTC, as all times of the journal)."""
SIZES = 8
"""Sizes of an order, each twice the one before: of 1, 2, 4 … 128 products."""
GIVEN = 0.5
"""What is in a basket is taken for this share of what will be: who is met halfway has as much before him as
behind, and so learners are asked."""
MOST_FIT = 3.0
"""No fit is further from 0 (natural log of the ratio)."""


def hour_at(at: Millis) -> tuple[int, int, float]:
    """The times of the day before and after ``at``, and how much of it is the latter's, in [0, 1)."""
    place = HOURS * (at % DAY) / DAY
    first = int(place)
    return first, (first + 1) % HOURS, place - first


def size_at(products: float) -> tuple[int, int, float]:
    """The sizes below and above an order of so many ``products``, and its share of the latter, in [0, 1]."""
    place = min(log2(max(products, 1.0)), SIZES - 1.0)
    first = min(int(place), SIZES - 2)
    return first, first + 1, place - first


@dataclass(frozen=True, eq=False)
class Occasions:
    """What was learned about occasions.

    Attributes
    ----------
    categories, channels:
        The row of each category, and the column of each channel.
    fits:
        Array (categories, `HOURS` + channels + `SIZES`): log of how much more of the orders at that time of
        the day, by that channel, or of that size, hold the category than of all orders.
    """

    categories: Mapping[str, int]
    channels: Mapping[str, int]
    fits: Floats

    def on(self, categories: Sequence[str]) -> Floats:
        """Array (``categories``, columns of ``fits``), 0 where nothing is known."""
        rows = np.array([self.categories.get(name, len(self.fits)) for name in categories], dtype=np.int64)
        return np.concatenate([self.fits, np.zeros((1, self.fits.shape[1]))])[rows]


def occasions_of(parts: Sequence[OccasionsPart]) -> Occasions:
    """What parts of one version say; a part that has not the columns of the first says nothing."""
    channels = parts[0].channels if parts else []
    width = HOURS + len(channels)
    sound = [
        part
        for part in parts
        if part.channels == channels and len(part.fits) == 4 * width * len(part.categories)
    ]
    names = [name for part in sound for name in part.categories]
    fits = np.frombuffer(b"".join(part.fits for part in sound), "<f4").reshape(-1, width)
    sizes = np.frombuffer(b"".join(map(_sizes, sound)), "<f4").reshape(-1, SIZES)
    both = np.concatenate([fits, sizes], axis=1).astype(np.float64)
    return Occasions(
        categories={name: row for row, name in enumerate(names)},
        channels={name: column for column, name in enumerate(channels, HOURS)},
        fits=np.clip(np.nan_to_num(both), -MOST_FIT, MOST_FIT),
    )


def _sizes(part: OccasionsPart) -> bytes:
    """Its fits by size; a part of before sizes were counted says nothing about them."""
    wanted = 4 * SIZES * len(part.categories)
    return part.sizes if len(part.sizes) == wanted else bytes(wanted)


NO_OCCASIONS = occasions_of(())
