"""The products that can be chosen: what topic ``catalogue`` says of them, as far as choice depends on it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import msgspec

from libs.common.bus.ports import Message
from libs.common.contracts.catalogue import Product, decode_entry, entry_key

_log = logging.getLogger(__name__)

_PRODUCT = entry_key("product", "")


class Catalogue:
    """Products by id, changed entry by entry while a fold may be reading.

    Attributes
    ----------
    changes:
        Counts changes of what choice depends on; a price of transport or a picture is none.
    """

    def __init__(self) -> None:
        self._products: dict[bytes, Product | None] = {}
        self.changes = 0

    def on_batch(self, messages: Sequence[Message]) -> None:
        """Take what a view has just read."""
        for message in messages:
            if message.key.startswith(_PRODUCT):
                self._take(message.key, message.value)

    def remember(self, products: Iterable[Product]) -> None:
        """Begin with what an earlier learner knew; what the topic said meanwhile is newer."""
        for product in products:
            key = entry_key("product", product.product_id)
            if key not in self._products:
                self._set(key, product)

    def products(self) -> list[Product]:
        """All of them in one order, whatever order they came in."""
        # Trap: copied in one step, because the views write while the fold reads in its thread.
        held = list(self._products.values())
        return sorted(
            (product for product in held if product is not None), key=lambda product: product.product_id
        )

    def _take(self, key: bytes, value: bytes | None) -> None:
        try:
            entry = None if value is None else decode_entry(value)
        except (msgspec.DecodeError, RecursionError):
            _log.warning(
                "an entry of the catalogue cannot be read", extra={"entry": key.decode("utf-8", "replace")}
            )
            return
        self._set(key, _facts_of(entry) if isinstance(entry, Product) else None)

    def _set(self, key: bytes, product: Product | None) -> None:
        if self._products.get(key) != product:
            self.changes += 1
        self._products[key] = product


def _facts_of(product: Product) -> Product:
    """What tells products apart where one is chosen: words, pictures, stock and margins do not."""
    return Product(
        product_id=product.product_id,
        name="-",
        category=product.category,
        price=product.price,
        currency=product.currency,
        brand=product.brand,
        size=product.size,
        unit=product.unit,
        comparable_group=product.comparable_group,
        available_from=product.available_from,
    )
