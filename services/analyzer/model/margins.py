"""What sold lines earn, by the catalogue as it is now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from libs.common.contracts.catalogue import MARGIN_SHARE, Product
from services.analyzer.model.facts import SoldLine

MICROS = 1_000_000
"""Amounts are summed as whole millionths: exact, whatever the order."""


class Earning(NamedTuple):
    """``share`` of the price paid is margin; ``unit`` is, where nobody said what was paid."""

    share: float
    unit: float


ASSUMED = Earning(MARGIN_SHARE, 0.0)
"""Of a product that is not in the catalogue."""


class Margins:
    """What each product of the catalogue earns.

    A line earns quantity × price paid × the product's share of margin (its margin over its price in the
    catalogue), so that a discount lowers what is earned, and a later change of the price does not. Where no
    price was given, or the catalogue's is 0, it earns quantity × margin per unit. Of a product that is not in
    the catalogue 30 % of what was paid is margin.
    """

    def __init__(self) -> None:
        self._by_product: dict[str, Earning] = {}

    def __len__(self) -> int:
        return len(self._by_product)

    def put(self, product_id: str, product: Product | None) -> None:
        """Take what the catalogue says of a product now; None: it is gone."""
        if product is None:
            self._by_product.pop(product_id, None)
            return
        unit = product.unit_margin
        self._by_product[product_id] = Earning(unit / product.price if product.price > 0.0 else 0.0, unit)

    def knows(self, product_id: str) -> bool:
        return product_id in self._by_product

    def of(self, lines: Iterable[SoldLine]) -> int:
        """Margin of ``lines`` in millionths, each line rounded."""
        known, total = self._by_product, 0
        for product_id, quantity, price in lines:
            share, unit = known.get(product_id, ASSUMED)
            total += round(quantity * (unit if price is None or not share else price * share) * MICROS)
        return total
