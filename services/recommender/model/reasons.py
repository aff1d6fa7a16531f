"""Why an offer was made, in words to show or to say."""

from __future__ import annotations

from functools import lru_cache

from libs.common.clock import DAY, Millis
from libs.common.contracts.catalogue import Offer
from libs.common.contracts.customer_model import Item

POPULAR = "Popular right now"
TRENDING = "Bought more than usual these days"
NEW = "New in our range"
DISCOVERY = "Not many know this yet"
FROM_RANGE = "From our range"

SAID = "reason"
"""Key of an authored offer's content under which it says itself why it is made."""
MOST_SAID = 200

_BY_KIND = {
    "retrofit": "Extends what you already have",
    "retention": "For you as our customer",
    "service": "A service for what you have",
    "content": "Worth knowing",
}
_MOST_DAYS = 400
_NEW_FOR = 90 * DAY
_LEAST_SHARE = 0.5
"""Per cent below which a share is not worth naming."""


def goes_with_page(name: str, together: float) -> str:
    return f"Goes with {name}" + _share(together, "such baskets")


def goes_with_basket(name: str, together: float) -> str:
    return f"Goes with the {name} in your basket" + _share(together, "such baskets")


def goes_with_history(name: str, together: float) -> str:
    return f"Goes with the {name} you bought" + _share(together, "baskets with it")


def usual(item: Item) -> str:
    """What a customer's own purchases say about a product."""
    days = round(item.cycle / DAY)
    if item.orders >= 3 and 1 <= days <= _MOST_DAYS:
        return f"You usually buy this every {days} days" if days > 1 else "You usually buy this every day"
    if item.orders >= 2:
        return f"You bought this {item.orders} times"
    return "You bought this before"


def seen(item: Item, now: Millis) -> str:
    days = (now - item.last_viewed_at) // DAY
    return "You looked at this today" if days < 1 else "You looked at this lately"


def better_than(name: str) -> str:
    return f"A better one than {name}"


def new(listed: Millis, now: Millis) -> str:
    """``listed`` is since when it can be had, 0 where that is not known."""
    return NEW if listed and now - listed <= _NEW_FOR else DISCOVERY


def popular_in(category: str) -> str:
    """``category`` is a path; its last part is what people say."""
    name = category.rpartition("/")[2].strip()
    return f"Popular in {name}" if name else POPULAR


def authored(offer: Offer) -> str:
    """Why an offer is made that somebody wrote: in its own words, else by its kind."""
    said = offer.content.get(SAID)
    if isinstance(said, str) and said.strip():
        return said.strip()[:MOST_SAID]
    return _BY_KIND.get(offer.kind, "Selected by our team")


@lru_cache(maxsize=16_384)
def _share(together: float, of_what: str) -> str:
    if together < _LEAST_SHARE:
        return ""
    return f": in {min(round(together), 100)} of 100 {of_what}"
