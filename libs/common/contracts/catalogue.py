"""What can be offered and where: products, authored offers, placements; the same over HTTP and on the bus."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from libs.common.clock import Millis

SCHEMA = b"catalogue/1"

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Money = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]
Kind = Literal["cross_sell", "up_sell", "repeat", "retrofit", "retention", "service", "content"]
KINDS: tuple[Kind, ...] = (
    "cross_sell",
    "up_sell",
    "repeat",
    "retrofit",
    "retention",
    "service",
    "content",
)
AllKinds = Literal["all"]
"""What callers may say in place of a list of kinds; stored as none."""

PRODUCT_KINDS: tuple[Kind, ...] = ("cross_sell", "up_sell", "repeat")
Objective = Literal["uplift", "value", "acceptance"]

MARGIN_SHARE = 0.3
"""Margin assumed where a product names none, as a share of its price."""


class Product(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="product"):
    """Something that is sold. Amounts are per unit of sale, in ``currency``."""

    product_id: Id
    name: Annotated[str, Meta(min_length=1, max_length=1024)]
    category: Annotated[str, Meta(max_length=1024)]
    price: Money
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")]
    brand: str | None = None
    margin: Annotated[float, Meta(ge=-1e12, le=1e12)] | None = None
    cost: Money | None = None
    size: Annotated[float, Meta(gt=0)] | None = None
    unit: str | None = None
    comparable_group: str | None = None
    url: str | None = None
    image_url: str | None = None
    stock: Annotated[float, Meta(ge=0)] | None = None
    available_from: str | None = None
    available_until: str | None = None
    attributes: dict[str, Any] = {}

    @property
    def unit_margin(self) -> float:
        """What one sale earns: as said, else price − cost, else `MARGIN_SHARE` of the price."""
        if self.margin is not None:
            return self.margin
        if self.cost is not None:
            return self.price - self.cost
        return MARGIN_SHARE * self.price


class Offer(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="offer"):
    """An authored offer. Every product is by itself also an offer ``product:{product_id}``."""

    offer_id: Id
    kind: Kind
    product_id: Id | None = None
    content: dict[str, Any] = {}
    value: Annotated[float, Meta(ge=-1e12, le=1e12)] | None = None
    cost: Money = 0.0
    available_from: str | None = None
    available_until: str | None = None


class Placement(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="placement"):
    """A place where offers are shown, and how they are chosen there. ``window`` is in seconds."""

    placement_id: Id
    limit: Annotated[int, Meta(ge=1, le=100)] = 5
    kinds: list[Kind] | None = None
    objective: Objective = "uplift"
    exploration: Share = 0.02
    near_best: Share | None = None
    ghosts: Share = 0.02
    impressions: Literal["reported", "assumed"] = "reported"
    visible: Annotated[int, Meta(ge=0, le=100)] | None = None
    baseline: Literal["popular", "none"] | list[Id] = "popular"
    window: Annotated[int, Meta(gt=0)] | None = None
    contact_cost: Money = 0.0
    fallback: Literal["popular", "none"] = "popular"


class Withdrawn(Struct, frozen=True, kw_only=True, tag="withdrawn"):
    """The entry under this key was deleted. (Not a null value: a sweep must be able to see it.)"""

    at: Millis


CatalogueEntry = Product | Offer | Placement | Withdrawn

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[CatalogueEntry] = msgspec.json.Decoder(CatalogueEntry)


def entry_key(kind: str, entry_id: str) -> bytes:
    """Record key on ``catalogue``: ``product/ID``, ``offer/ID`` or ``placement/ID``."""
    return f"{kind}/{entry_id}".encode()


def encode_entry(entry: CatalogueEntry) -> bytes:
    return _encoder.encode(entry)


def decode_entry(data: bytes) -> CatalogueEntry:
    return _decoder.decode(data)
