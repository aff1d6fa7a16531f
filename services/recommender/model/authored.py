"""Authored offers as arrays, made anew when the catalogue changed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from libs.common.clock import Millis
from libs.common.contracts.catalogue import Offer, Product
from libs.common.scoring.trial import SKETCH, offer_sketch
from services.recommender.model.assortment import Assortment, closes, opens
from services.recommender.model.value import KIND_CODES

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_PRODUCT = -1
MISSING = -2


class _Sketched(NamedTuple):
    """A sketch, and the very objects it is of."""

    offer: Offer
    product: Product | None
    sketch: Floats


class Authored:
    """All authored offers of one state of the catalogue.

    Parameters
    ----------
    before:
        Those of an earlier state: of what did not change since it is not sketched again.

    Attributes
    ----------
    offers:
        The offers, by value, the greatest first.
    position:
        Row of the product of each, `NO_PRODUCT` for content alone, `MISSING` where there is no such product.
    rows:
        Index of each offer, by its id.
    kind, margin:
        Kind code; what one conversion earns, as said or as the product says, less what it costs us.
    sketch:
        Array (n, `SKETCH`): the attributes of each one's product, and its content.
    """

    def __init__(self, assortment: Assortment, before: Authored | None = None) -> None:
        self.changes = assortment.changes
        margins = {offer_id: _margin(offer, assortment) for offer_id, offer in assortment.offers.items()}
        ranked = sorted(assortment.offers.values(), key=lambda o: (o.cost - margins[o.offer_id], o.offer_id))
        self.offers: list[Offer] = ranked
        self.rows = {offer.offer_id: row for row, offer in enumerate(ranked)}
        self.position: Ints = np.array([_position(o, assortment) for o in ranked], dtype=np.int64)
        self.kind = np.array([KIND_CODES[o.kind] for o in ranked], dtype=np.int8)
        self.margin: Floats = np.array([margins[o.offer_id] - o.cost for o in ranked], dtype=np.float64)
        known = {} if before is None else before._sketches
        self._sketches: dict[str, _Sketched] = {
            o.offer_id: _sketched(o, assortment, known.get(o.offer_id)) for o in ranked
        }
        self.sketch: Floats = np.array(
            [sketched.sketch for sketched in self._sketches.values()], dtype=np.float64
        ).reshape(-1, SKETCH)
        self.missing = int(np.count_nonzero(self.position == MISSING))
        self._from: Ints = np.array([opens(o.available_from) for o in ranked], dtype=np.int64)
        self._until: Ints = np.array([closes(o.available_until) for o in ranked], dtype=np.int64)

    def open_at(self, now: Millis, products: NDArray[np.bool_]) -> Ints:
        """Indices of offers that hold at ``now`` and whose product, if any, is open in ``products``."""
        if not self.offers:
            return np.empty(0, dtype=np.int64)
        holds = (self._from <= now) & (now < self._until) & (self.position < len(products))
        named = holds & (self.position >= 0)
        holds &= self.position == NO_PRODUCT
        holds[named] = products[self.position[named]]
        found: Ints = np.flatnonzero(holds)
        return found


def _position(offer: Offer, assortment: Assortment) -> int:
    if offer.product_id is None:
        return NO_PRODUCT
    row = assortment.rows.get(offer.product_id, MISSING)
    return row if assortment.product(offer.product_id) is not None else MISSING


def _sketched(offer: Offer, assortment: Assortment, known: _Sketched | None) -> _Sketched:
    """The attributes of the offer's product, and its content: ``known`` while it is of the same objects."""
    product = _product(offer, assortment)
    if known is not None and known.offer is offer and known.product is product:
        return known
    attributes = offer.content if product is None else {**product.attributes, **offer.content}
    return _Sketched(offer, product, offer_sketch(attributes))


def _margin(offer: Offer, assortment: Assortment) -> float:
    if offer.value is not None:
        return offer.value
    product = _product(offer, assortment)
    return 0.0 if product is None else product.unit_margin


def _product(offer: Offer, assortment: Assortment) -> Product | None:
    return None if offer.product_id is None else assortment.product(offer.product_id)
