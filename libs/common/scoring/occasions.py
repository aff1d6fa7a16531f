"""Occasions: how much more than usual goods of a category are bought at an hour of the day, and by a channel.

In a conditional logit what is equal for all alternatives says nothing, so hour and channel speak through the
category of a product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import DAY, Millis
from libs.common.contracts.learned_model import OccasionsPart

Floats = NDArray[np.float64]

HOURS = 8
"""Times of the day, three hours apart, the first at midnight (UTC, as all times of the journal)."""
MOST_FIT = 3.0
"""No fit is further from 0 (natural log of the ratio)."""


def hour_at(at: Millis) -> tuple[int, int, float]:
    """The times of the day before and after ``at``, and how much of it is the latter's, in [0, 1)."""
    place = HOURS * (at % DAY) / DAY
    first = int(place)
    return first, (first + 1) % HOURS, place - first


@dataclass(frozen=True, eq=False)
class Occasions:
    """What was learned about occasions.

    Attributes
    ----------
    categories, channels:
        The row of each category, and the column of each channel.
    fits:
        Array (categories, `HOURS` + channels): log of how much more of the orders at that time of the day, or
        by that channel, hold the category than of all orders.
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
    fits = np.frombuffer(b"".join(part.fits for part in sound), "<f4").astype(np.float64)
    return Occasions(
        categories={name: row for row, name in enumerate(names)},
        channels={name: column for column, name in enumerate(channels, HOURS)},
        fits=np.clip(np.nan_to_num(fits), -MOST_FIT, MOST_FIT).reshape(len(names), width),
    )


NO_OCCASIONS = occasions_of(())
