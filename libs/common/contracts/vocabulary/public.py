"""What customers say in public, and what they do at auctions."""

from __future__ import annotations

from msgspec import Struct

from libs.common.contracts.vocabulary.values import (
    Count,
    Currency,
    Money,
    Name,
    Sentiment,
    Stars,
    TouchpointType,
    When,
)


class Mention(Struct, frozen=True):
    """A post about us; ``sentiment`` from -1 to 1, as the channel system judges it."""

    network: str | None = None
    product_id: Name | None = None
    sentiment: Sentiment | None = None
    reach: Count | None = None
    topic: str | None = None


class Review(Struct, frozen=True):
    """A review: ``rating`` in stars from 1 to 5, or a ``sentiment`` from -1 to 1."""

    product_id: Name | None = None
    rating: Stars | None = None
    sentiment: Sentiment | None = None
    review_id: Name | None = None
    network: str | None = None


class Lot(Struct, frozen=True):
    """A lot of an auction. ``amount`` is the price or bid, in the base currency."""

    lot_id: Name
    product_id: Name | None = None
    category: str | None = None
    amount: Money | None = None
    currency: Currency | None = None
    ends_at: When | None = None


_REVIEW = {"product_id": "grinder", "rating": 4, "review_id": "r-5"}
_LOT = {"lot_id": "l-8", "product_id": "grinder", "category": "kitchen", "ends_at": "2026-05-09T18:00:00Z"}
_BID = {**_LOT, "amount": 42.0}

TYPES = (
    TouchpointType(
        "mention_posted",
        "social",
        Mention,
        "He wrote about us.",
        {"network": "mastodon", "product_id": "grinder", "sentiment": -0.6, "reach": 210},
    ),
    TouchpointType("review_posted", "social", Review, "He reviewed a product, or us.", _REVIEW),
    TouchpointType("product_reviewed", "web", Review, "The same, by Segment's name.", _REVIEW),
    TouchpointType("rating_given", "web", Review, "He gave stars and no text.", _REVIEW),
    TouchpointType(
        "lot_listed", "auction", Lot, "He put something up for auction.", {**_BID, "amount": 10.0}
    ),
    TouchpointType("lot_watched", "auction", Lot, "He watches a lot.", _LOT),
    TouchpointType("bid_placed", "auction", Lot, "He bid.", _BID),
    TouchpointType(
        "bid_outbid", "auction", Lot, "Somebody bid more.", {**_BID, "amount": 45.0}, outbound=True
    ),
    TouchpointType(
        "lot_won", "auction", Lot, "He won the lot; he pays by an order.", {**_BID, "amount": 47.0}
    ),
    TouchpointType(
        "lot_ended", "auction", Lot, "The auction is over, for him without it.", _LOT, outbound=True
    ),
)
