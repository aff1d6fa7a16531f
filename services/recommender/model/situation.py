"""One request, laid over the shelf: what may be offered to whom, here and now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import Millis
from libs.common.contracts.customer_model import Item
from libs.common.scoring.features import Moment, Scene, ScoringTables, scenes_of
from libs.common.scoring.history import Traces, histories_of
from libs.common.scoring.sources.look import Look
from services.recommender.errors import EXCLUDED, PAGE_OR_BASKET, UNAVAILABLE
from services.recommender.model.assortment import Assortment

Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Situation:
    """What sources of candidates look at.

    Attributes
    ----------
    scene:
        What is known of all products for this customer, as arrays over shelf positions.
    open:
        Which positions may be offered at all: masked before any candidate is chosen.
    page, basket:
        The product looked at and those in hand, by id.
    items:
        The customer's products, where the answer may be personal.
    rejected:
        How many products each rule took out.
    """

    assortment: Assortment
    tables: ScoringTables
    scene: Scene
    open: Mask
    page: str | None
    basket: Sequence[str]
    items: Mapping[str, Item]
    now: Millis
    rejected: dict[str, int]

    @property
    def size(self) -> int:
        return len(self.open)

    @cached_property
    def look(self) -> Look:
        """The same as sources of candidates see it."""
        return Look(self.scene, self.open, self.page, self.basket)

    def name(self, position: int) -> str:
        return self.tables.shelf.products[position].name


class Visit(NamedTuple):
    """Whose scene is asked for: a customer's traces on ``tables``, the moment, page, basket and channel."""

    tables: ScoringTables
    traces: Traces
    at: Millis
    page: str | None
    basket: Sequence[str]
    channel: str


def scenes(visits: Sequence[Visit]) -> list[Scene]:
    """The scenes of several visits on the same tables."""
    tables = visits[0].tables
    pasts = histories_of(tables, [(visit.traces, visit.at) for visit in visits])
    return scenes_of(
        tables,
        [
            Moment(past, visit.page, visit.basket, visit.channel)
            for past, visit in zip(pasts, visits, strict=True)
        ],
    )


def situation(
    assortment: Assortment,
    tables: ScoringTables,
    items: Mapping[str, Item],
    now: Millis,
    page: str | None,
    basket: Sequence[str],
    exclude: Sequence[str],
    scene: Scene | None = None,
) -> Situation:
    """The situation of a customer with ``items`` at ``now``; nothing in it is written to afterwards.

    ``scene`` is what ``items``, page and basket make at ``now``, where it is at hand.
    """
    size = len(tables.shelf)
    free = assortment.available(now)[:size].copy()
    rejected: dict[str, int] = {}
    if missing := size - int(np.count_nonzero(free)):
        rejected[UNAVAILABLE] = missing
    index = tables.shelf.index
    _close(free, index, (page, *basket) if page is not None else basket, PAGE_OR_BASKET, rejected)
    _close(free, index, exclude, EXCLUDED, rejected)
    return Situation(
        assortment=assortment,
        tables=tables,
        scene=Scene.of(tables, items, now, page, basket) if scene is None else scene,
        open=free,
        page=page,
        basket=basket,
        items=items,
        now=now,
        rejected=rejected,
    )


def _close(
    free: Mask, index: Mapping[str, int], product_ids: Iterable[str], code: str, rejected: dict[str, int]
) -> None:
    places = list({place for product_id in product_ids if (place := index.get(product_id)) is not None})
    if places:
        if taken := int(np.count_nonzero(free[places])):
            rejected[code] = taken
        free[places] = False
