"""Offer tokens: what a browser hands back to say which offer it is talking about, sealed and canonical."""

from __future__ import annotations

from msgspec import Struct

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey


class OfferToken(Struct, frozen=True, array_like=True):
    """What a token says. ``customer`` is the key the decision was filed under; ``price`` of one unit."""

    decision_id: str
    offer_id: str
    customer: CustomerKey
    placement: str
    issued_at: Millis
    product_id: str | None = None
    price: float | None = None


class TokenSealer:
    """Seals and opens tokens with the key of this data directory (`Secrets.token_key`)."""

    def __init__(self, key: bytes) -> None: ...

    def seal(self, token: OfferToken) -> str:
        """The token in the alphabet A-Z a-z 0-9 - _; equal contents give equal text."""
        ...

    def open(self, text: str, now: Millis, max_age: Millis) -> OfferToken:
        """Read what `seal` wrote; raises `Invalid` with ``token_invalid`` or ``token_expired``, field ``/token``."""
        ...
