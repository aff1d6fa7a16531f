"""Catalogue entries as callers send them: checked, made into what is stored, and shown."""

from __future__ import annotations

from typing import Any

import msgspec

from libs.common.contracts.catalogue import AllKinds, CatalogueEntry, Id, Kind, Offer, Placement, Product
from libs.common.contracts.identity import RESERVED_PREFIXES, may_be_frozen
from libs.common.errors import Invalid
from libs.common.personal import refuse_personal
from libs.common.times import parse_time
from services.recommender.errors import PRODUCT_MISSING, ForeignCurrency, ReservedName
from services.recommender.model.assortment import PRODUCT_OFFER, Assortment
from services.recommender.model.wire import NO_OFFER

OFFER_NOT_BUILT = frozenset({"eligibility", "caps", "windows", "retrofit"})
PLACEMENT_NOT_BUILT = frozenset({"caps", "pacing", "diversity", "cool_down"})
MARGIN_ASSUMED = "margin_assumed"
PRICE_ZERO = "price_zero"
CATEGORY_MISSING = "category_missing"
FLAGS = (MARGIN_ASSUMED, PRICE_ZERO, CATEGORY_MISSING, PRODUCT_MISSING)
"""What entries of the catalogue are flagged with; they are offered nevertheless, where that is possible."""


class ProductIn(Product, frozen=True, kw_only=True, tag=False):
    """A product as sent; the id may be in the path alone."""

    product_id: Id | None = None  # type: ignore[assignment]


class OfferIn(Offer, frozen=True, kw_only=True, tag=False):
    """An authored offer as sent."""

    offer_id: Id | None = None  # type: ignore[assignment]


class PlacementIn(Placement, frozen=True, kw_only=True, tag=False):
    """A placement as sent."""

    placement_id: Id | None = None  # type: ignore[assignment]
    kinds: list[Kind] | AllKinds | None = None  # type: ignore[assignment]


class ProductOut(Product, frozen=True, kw_only=True, tag=False):
    """A product as `shown`: ``flags`` says what of it was assumed, or is likely a mistake."""

    flags: list[str]


class OfferOut(Offer, frozen=True, kw_only=True, tag=False):
    """An authored offer as `shown`."""


class PlacementOut(Placement, frozen=True, kw_only=True, tag=False):
    """A placement as `shown`."""


EntryIn = ProductIn | OfferIn | PlacementIn


def product_of(sent: ProductIn, currency: str) -> Product:
    """The product to store; raises `Invalid`."""
    if sent.currency != currency:
        raise ForeignCurrency(currency)
    _window(sent.available_from, sent.available_until)
    return Product(**_fields(sent))


def offer_of(sent: OfferIn) -> Offer:
    """The authored offer to store; its product may come later. Raises `Invalid`."""
    offer = Offer(**_fields(sent))
    if offer.offer_id.startswith(PRODUCT_OFFER) or offer.offer_id == NO_OFFER:
        raise ReservedName("offer_id", f"{PRODUCT_OFFER} or be {NO_OFFER}")
    _window(sent.available_from, sent.available_until)
    return offer


def placement_of(sent: PlacementIn) -> Placement:
    """The placement to store; raises `Invalid`."""
    fields = _fields(sent)
    if fields["kinds"] == "all":
        fields["kinds"] = None
    return Placement(**fields)


def shown(entry: CatalogueEntry) -> dict[str, Any]:
    """An entry as the contract shows it, with what was assumed where nothing was said."""
    fields = msgspec.structs.asdict(entry)
    if isinstance(entry, Product):
        fields["margin"] = entry.unit_margin
        fields["flags"] = flags_of(entry)
    return {name: value for name, value in fields.items() if value is not None}


def flags_of(product: Product) -> list[str]:
    """What of a product was assumed, or is likely a mistake."""
    found = {
        MARGIN_ASSUMED: product.margin is None and product.cost is None,
        PRICE_ZERO: product.price == 0.0,
        CATEGORY_MISSING: not product.category.strip("/ "),
    }
    return [flag for flag, holds in found.items() if holds]


def count_flags(assortment: Assortment) -> dict[str, int]:
    """How many entries carry each of `FLAGS`, offers of products that are not there among them."""
    counts = dict.fromkeys(FLAGS, 0)
    for product_id in assortment.ids:
        product = assortment.product(product_id)
        for flag in flags_of(product) if product is not None else ():
            counts[flag] += 1
    counts[PRODUCT_MISSING] = sum(
        offer.product_id is not None and assortment.product(offer.product_id) is None
        for offer in assortment.offers.values()
    )
    return counts


def check_caller(field: str, key: str | None) -> None:
    """Refuse an id that looks like a customer key the platform makes itself, or names a person."""
    if key is None:
        return
    if key.startswith(RESERVED_PREFIXES):
        raise ReservedName(field, " or ".join(RESERVED_PREFIXES))
    if field == "anonymous_id" and may_be_frozen(key):
        raise Invalid("bad_string", "must not end in ~ and a number", f"/{field}")
    refuse_personal(key, f"/{field}")


def _fields(sent: EntryIn) -> dict[str, Any]:
    fields = msgspec.structs.asdict(sent)
    for name in ("product_id", "offer_id", "placement_id"):
        if name in fields and fields[name] is None and not (name == "product_id" and "offer_id" in fields):
            raise Invalid("missing", f"{name} is required", f"/{name}")
    return fields


def _window(begins: str | None, ends: str | None) -> None:
    if begins is not None:
        parse_time(begins, "/available_from")
    if ends is not None:
        parse_time(ends, "/available_until")
