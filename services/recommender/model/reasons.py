"""Why an offer was made, in words to show or to say."""

from __future__ import annotations

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_model import Item

POPULAR = "Popular right now"
FROM_RANGE = "From our range"

_MOST_DAYS = 400
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


def _share(together: float, of_what: str) -> str:
    if together < _LEAST_SHARE:
        return ""
    return f": in {min(round(together), 100)} of 100 {of_what}"
