"""The catalogue in memory: products as rows of numpy arrays, authored offers and placements beside them."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from libs.common.clock import Millis
from libs.common.contracts.catalogue import (
    CatalogueEntry,
    Offer,
    Placement,
    Product,
)
from libs.common.errors import Invalid
from libs.common.times import parse_time

Floats = NDArray[np.float64]
Times = NDArray[np.int64]
Mask = NDArray[np.bool_]

ALWAYS: Millis = np.iinfo(np.int64).max
PRODUCT_OFFER = "product:"
GONE = "\0gone/"


class ProductCard(msgspec.Struct, frozen=True):
    """What an answer says about a product."""

    name: str
    url: str | None
    image_url: str | None
    price: float
    currency: str


_Entry = TypeVar("_Entry")

_encoder = msgspec.json.Encoder()


def opens(available_from: str | None) -> Millis:
    """When something begins to be available; what cannot be read never held it back."""
    return -ALWAYS if available_from is None else _time_or(available_from, -ALWAYS)


def closes(available_until: str | None) -> Millis:
    """When something ends to be available; what cannot be read never ends it."""
    return ALWAYS if available_until is None else _time_or(available_until, ALWAYS)


def _time_or(text: str, otherwise: Millis) -> Millis:
    try:
        return parse_time(text, "")
    except Invalid:
        return otherwise


def _facts(product: Product) -> tuple[Any, ...]:
    return (
        product.category,
        product.comparable_group,
        product.price,
        product.size,
        product.unit,
        product.brand,
        product.available_from,
        product.attributes,
    )


def offer_id_of(product_id: str) -> str:
    """The id of the offer every product is by itself."""
    return PRODUCT_OFFER + product_id


class Assortment:
    """All that can be offered, changed entry by entry.

    A product keeps its row for ever, also when it is withdrawn, so that arrays made elsewhere stay right;
    they only get too short.

    Attributes
    ----------
    version:
        The greatest revision taken in.
    changes, facts:
        Count changes of any kind, and those that change what products are (not what they cost us or how
        many are left).
    """

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.ids: list[str] = []
        self.offer_ids: list[str] = []
        self.products: list[Product] = []
        self.cards: list[msgspec.Raw] = []
        self.offers: dict[str, Offer] = {}
        self.placements: dict[str, Placement] = {}
        self.version = 0
        self.changes = 0
        self.facts = 0
        self._revisions: dict[tuple[str, str], int] = {}
        self._grow(64)
        self._open: tuple[int, Millis, Millis, Mask] | None = None

    @property
    def size(self) -> int:
        """Rows in use, those of withdrawn products included."""
        return len(self.ids)

    @property
    def price(self) -> Floats:
        return self._price[: self.size]

    @property
    def margin(self) -> Floats:
        return self._margin[: self.size]

    def put(self, kind: str, entry_id: str, entry: CatalogueEntry, revision: int) -> bool:
        """Take in one entry unless a newer one of the same key is here; True where something changed."""
        key = (kind, entry_id)
        # Trap: an equal revision comes again after the loss of a broker; it is not news.
        if self._revisions.get(key, -1) >= revision:
            return False
        self._revisions[key] = revision
        self.version = max(self.version, revision)
        self.changes += 1
        self._hold(kind, entry_id, entry)
        return True

    def _hold(self, kind: str, entry_id: str, entry: CatalogueEntry | None) -> None:
        if kind == "product":
            self._put_product(entry_id, entry if isinstance(entry, Product) else None)
        elif kind == "offer":
            self._put(self.offers, entry_id, entry if isinstance(entry, Offer) else None)
        elif kind == "placement":
            self._put(self.placements, entry_id, entry if isinstance(entry, Placement) else None)

    def drop(self, kind: str, entry_id: str) -> None:
        """Forget an entry that is not in the catalogue any more, its revision too."""
        if self._revisions.pop((kind, entry_id), None) is None:
            return
        self.changes += 1
        self._hold(kind, entry_id, None)

    def reached(self, version: int) -> None:
        """Say how far the catalogue is that was read without revisions."""
        self.version = max(self.version, version)

    def product(self, product_id: str) -> Product | None:
        row = self.rows.get(product_id)
        return self.products[row] if row is not None and self._here[row] else None

    def available(self, now: Millis) -> Mask:
        """Which rows can be sold at ``now``: present, in stock, within their time. Not to be written to."""
        held = self._open
        if held is not None and held[0] == self.changes and held[1] <= now < held[2]:
            return held[3]
        n = self.size
        begins, ends = self._from[:n], self._until[:n]
        mask = self._here[:n] & (self._stock[:n] > 0) & (begins <= now) & (now < ends)
        edges = np.concatenate((begins, ends))
        earlier, later = edges[edges <= now], edges[edges > now]
        since = int(earlier.max()) if len(earlier) else -ALWAYS
        until = int(later.min()) if len(later) else ALWAYS
        self._open = (self.changes, since, until, mask)
        return mask

    def _put_product(self, product_id: str, product: Product | None) -> None:
        row = self.rows.get(product_id)
        if row is None:
            if product is None:
                return
            row = self.rows[product_id] = len(self.ids)
            self.ids.append(product_id)
            self.offer_ids.append(offer_id_of(product_id))
            self.products.append(product)
            self.cards.append(msgspec.Raw(b"null"))
            if row >= len(self._price):
                self._grow(2 * row)
            self.facts += 1
        elif product is None:
            # Trap: nothing may be comparable with what is gone, so it moves to a category of its own.
            product = Product(
                product_id=product_id, name="-", category=GONE + product_id, price=0.0, currency=""
            )
            self._here[row] = False
            self.products[row] = product
            self.facts += 1
            return
        elif _facts(product) != _facts(self.products[row]):
            self.facts += 1
        self._here[row] = True
        self.products[row] = product
        self._price[row] = product.price
        self._margin[row] = product.unit_margin
        self._stock[row] = np.inf if product.stock is None else product.stock
        self._from[row] = opens(product.available_from)
        self._until[row] = closes(product.available_until)
        card = ProductCard(product.name, product.url, product.image_url, product.price, product.currency)
        self.cards[row] = msgspec.Raw(_encoder.encode(card))

    @staticmethod
    def _put(entries: dict[str, _Entry], entry_id: str, entry: _Entry | None) -> None:
        if entry is None:
            entries.pop(entry_id, None)
        else:
            entries[entry_id] = entry

    def _grow(self, rows: int) -> None:
        held = len(self.ids) and len(self._price)
        grown = {
            "_price": np.zeros(rows),
            "_margin": np.zeros(rows),
            "_stock": np.full(rows, np.inf),
            "_from": np.full(rows, -ALWAYS, dtype=np.int64),
            "_until": np.full(rows, ALWAYS, dtype=np.int64),
            "_here": np.zeros(rows, dtype=np.bool_),
        }
        for name, array in grown.items():
            if held:
                array[:held] = getattr(self, name)[:held]
            setattr(self, name, array)

    _price: Floats
    _margin: Floats
    _stock: Floats
    _from: Times
    _until: Times
    _here: Mask
