"""The words for what came of an offer, and who may say them."""

from __future__ import annotations

WORDS = (
    "shown",
    "opened",
    "clicked",
    "accepted",
    "declined",
    "converted",
    "returned",
    "complained",
    "unsubscribed",
)
"""All outcome words of the external contract."""

OBJECTIONS = frozenset({"complained", "unsubscribed"})
"""Outcome words that refuse marketing by the channel of the offer."""

BROWSER_WORDS = frozenset({"shown", "opened", "clicked", "declined", "complained", "unsubscribed"})
"""What a token alone, without a key, may report; never a value."""
