"""Folds of the items: what a customer bought and looked at, product by product."""

from __future__ import annotations

from msgspec.structs import replace

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_model import MAX_DAYS, Decayed, Item, Items
from libs.common.contracts.touchpoint import OrderLine
from libs.common.scoring.decay import HALF_LIFE_FORTNIGHT, HALF_LIFE_SEASON, added, bounded
from libs.common.scoring.merge import join_days, keep_recent

_NEW = Item()


def bought(items: Items, lines: list[OrderLine], at: Millis) -> Items:
    """An order: one purchase more of each product in it, whatever number of lines it is spread over."""
    after = dict(items.items)
    for product_id, (quantity, price) in _by_product(lines).items():
        after[product_id] = _bought(after.get(product_id, _NEW), quantity, price, at)
    return replace(items, items=keep_recent(after))


def _by_product(lines: list[OrderLine]) -> dict[str, tuple[float, float]]:
    products: dict[str, tuple[float, float]] = {}
    for line in lines:
        quantity, price = products.get(line.product_id, (0.0, 0.0))
        products[line.product_id] = (
            bounded(quantity + line.quantity),
            price if line.price is None else bounded(line.price),
        )
    return products


def _bought(item: Item, quantity: float, price: float, at: Millis) -> Item:
    known = item.orders
    latest = known == 0 or at >= item.last_bought_at
    return Item(
        orders=known + 1,
        bought=added(item.bought, 1.0, at, HALF_LIFE_SEASON),
        last_bought_at=at if latest else item.last_bought_at,
        cycle=_cycle(item, at),
        quantity=item.quantity + (quantity - item.quantity) / (known + 1),
        price=float(price) if price and (latest or not item.price) else item.price,
        viewed=item.viewed,
        last_viewed_at=item.last_viewed_at,
        days=join_days(item.days, (at // DAY,)),
    )


def _cycle(item: Item, at: Millis) -> float:
    # The mean of n − 1 gaps is (last − first) / (n − 1): the first purchase can be had back from it, and so
    # a late order finds its place among the others without their times being kept.
    if item.orders == 0:
        return 0.0
    first = item.last_bought_at - item.cycle * (item.orders - 1)
    return (max(item.last_bought_at, at) - min(first, at)) / item.orders


def unbought(items: Items, lines: list[OrderLine]) -> tuple[Items, float]:
    """Cancelled or returned lines: their purchases no longer count. Also says what the goods were worth.

    A line without a price is worth what was last paid; a product never bought here is passed over.
    """
    after = dict(items.items)
    value = 0.0
    for product_id, (quantity, price) in _by_product(lines).items():
        item = after.get(product_id)
        if item is None or item.orders == 0:
            continue
        value = bounded(value + (price or item.price) * quantity)
        if item.orders > 1:
            # The purchase that is undone is not known: the latest is the likeliest.
            faded = added(item.bought, -1.0, item.last_bought_at, HALF_LIFE_SEASON)
            left = replace(
                item,
                orders=item.orders - 1,
                bought=Decayed(max(0.0, faded.weight), faded.at),
                days=_undone(item),
            )
            after[product_id] = left if left.orders > 1 else replace(left, cycle=0.0)
        elif item.viewed.weight > 0.0:
            after[product_id] = Item(viewed=item.viewed, last_viewed_at=item.last_viewed_at)
        else:
            del after[product_id]
    return replace(items, items=after), value


def _undone(item: Item) -> tuple[int, ...]:
    """The days left: the latest stays where more orders than days say that it may have another one."""
    return item.days if len(item.days) < min(item.orders, MAX_DAYS) else item.days[:-1]


def viewed(items: Items, product_id: str, at: Millis) -> Items:
    """A look at a product."""
    item = items.items.get(product_id, _NEW)
    seen = replace(
        item,
        viewed=added(item.viewed, 1.0, at, HALF_LIFE_FORTNIGHT),
        last_viewed_at=max(item.last_viewed_at, at) if item.viewed.weight else at,
    )
    return replace(items, items=keep_recent({**items.items, product_id: seen}))
