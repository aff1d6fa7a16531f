"""What feedback's handlers need from outside."""

from __future__ import annotations

from typing import Protocol

from libs.common.clock import Clock, Millis
from libs.common.intake import Intake
from libs.common.journal import Durability, Journal
from libs.common.tokens import OfferToken

__all__ = ["Clock", "Durability", "Intake", "Journal", "Tokens"]


class Tokens(Protocol):
    """Reads what the recommender handed out with an offer."""

    def open(self, text: str, now: Millis, max_age: Millis) -> OfferToken:
        """What a token says; raises `Invalid` with ``token_invalid`` or ``token_expired``."""
        ...
