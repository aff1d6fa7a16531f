"""The truth: products, customers, what they buy anyway, and what being shown an offer makes them buy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CURRENCY = "EUR"
CATEGORIES = ("coffee", "tea", "garden", "kitchen", "sports", "books")
GROUPS_EACH = 3
TIERS = ("plain", "good", "best")
TIER_PRICE = np.array([1.0, 1.5, 2.3])
EXAMINED = np.array([1.0, 0.65, 0.4])
"""P(a slot is looked at), from the first on."""
DELAYS = np.array([0.6, 0.25, 0.15])
"""P(what a showing caused is ordered after 0, 1, 2 … days)."""
REPLACES_DAYS = 3
"""What a showing sold stands for what he would have bought of the same kind on that day and the next ones."""
SATED_DAYS = 7
"""Who bought a product needs no other for so many days: showing it causes nothing."""
MOST_CAUSED = 0.4
REGULARS = 3
REGULAR_CHANCE = 0.1
STRAY_CHANCE = 0.06
REGULAR_PULL = 0.3
"""Showing somebody what he buys regularly causes that share of what it would cause with others."""
ENGAGED_FOR_EACH = 2.5
MOST_ENGAGED = 0.6


class Size(NamedTuple):
    """How large a market is. Its first ``history`` days nothing is offered; drift is at half of the rest."""

    customers: int = 800
    history: int = 14
    days: int = 24

    @property
    def last(self) -> int:
        """The day after the last one, counted from the first of the history."""
        return self.history + self.days

    @property
    def drift(self) -> int:
        """The first day of other tastes."""
        return self.history + self.days // 2


@dataclass(frozen=True, eq=False)
class World:
    """One market. Arrays are over products (p), customers (c), days (d) counted from the history's first.

    Attributes
    ----------
    price, margin, returned:
        Of each product (p): in `CURRENCY`, and P(a sale is returned).
    category, group, tier:
        Of each product (p): codes; products of a group are comparable, of different tiers.
    opens, closes:
        The first day a product is sold, and the first day it is not (p).
    rate:
        P(bought because shown) of a product before and after the drift (2, p), for average taste.
    taste:
        Of a customer for a category before and after (2, c, categories), 1 on average.
    limit:
        The dearest tier a customer pays for in a category (c, categories).
    visits:
        Whether a customer visits on a day (d, c).
    anyway:
        Whether he buys a product that day though nothing is shown (d, c, p).
    """

    size: Size
    seed: int
    price: Floats
    margin: Floats
    returned: Floats
    category: Ints
    group: Ints
    tier: Ints
    opens: Ints
    closes: Ints
    rate: Floats
    taste: Floats
    limit: Ints
    regular: Bools
    visits: Bools
    anyway: Bools

    @classmethod
    def make(cls, size: Size, seed: int) -> World:
        """The market of ``seed``: the same on every machine."""
        draw = np.random.default_rng([seed, 1])
        shelf = _shelf(draw, size)
        customers, kinds = size.customers, len(CATEGORIES)
        before = np.minimum(draw.dirichlet(np.full(kinds, 0.7), customers) * kinds, 3.0)
        # Tastes move on: what one liked of one category he now likes of the next.
        taste = np.stack((before, np.roll(before, 1, axis=1)))
        rate = np.stack((shelf["rate"], draw.permutation(shelf["rate"])))
        limit = draw.choice(len(TIERS), (customers, kinds), p=(0.35, 0.4, 0.25))
        regular = _regulars(draw, before, limit, shelf)
        visits = draw.random((size.last, customers)) < draw.beta(4, 4, customers)
        stray = STRAY_CHANCE * _stray(taste[0], limit, shelf)
        chance = np.where(regular, REGULAR_CHANCE, stray)
        days = np.arange(size.last)[:, None]
        sold = (shelf["opens"] <= days) & (days < shelf["closes"])
        anyway = draw.random((size.last, *regular.shape)) < chance
        anyway &= visits[:, :, None] & sold[:, None, :]
        del shelf["rate"]
        return cls(
            size=size,
            seed=seed,
            rate=rate,
            taste=taste,
            limit=limit,
            regular=regular,
            visits=visits,
            anyway=anyway,
            **shelf,
        )

    @property
    def kept_margin(self) -> Floats:
        """Margin of a sale of each product (p), those that are sent back among them."""
        return np.asarray(self.margin * (1.0 - self.returned))

    @property
    def products(self) -> int:
        """How many products there are, at any time."""
        return len(self.price)

    def sold(self, day: int) -> Bools:
        """Which products are sold on a day (p)."""
        return (self.opens <= day) & (day < self.closes)

    def caused(self, day: int) -> Floats:
        """P(buys it because it was shown and looked at, that day) for everybody and everything (c, p)."""
        after = int(day >= self.size.drift)
        chance = self.rate[after] * self.taste[after][:, self.category]
        chance *= self.tier <= self.limit[:, self.category]
        chance *= np.where(self.regular, REGULAR_PULL, 1.0)
        return np.asarray(np.minimum(chance, MOST_CAUSED) * self.sold(day))

    def replaced(self, day: int) -> Floats:
        """Margin of what he buys anyway of the same group in the days a sale on ``day`` stands for (c, p)."""
        soon = self.anyway[day : day + REPLACES_DAYS + 1].sum(axis=0) * self.kept_margin
        alike = (self.group[:, None] == self.group).astype(np.float64)
        return np.asarray(soon @ alike)

    def incremental(self, day: int) -> Floats:
        """Margin that showing each product on ``day`` to each customer causes, on average (c, p).

        For customers to whom nothing was sold yet that had not been bought anyway.
        """
        late = [day + delay for delay in range(len(DELAYS)) if day + delay < self.size.last]
        won = sum(DELAYS[on - day] * (self.kept_margin - self.replaced(on)) for on in late)
        return np.asarray(self.caused(day) * won)

    def entry(self, product: int) -> dict[str, Any]:
        """A product as a shop would send it: nothing of the truth."""
        category = CATEGORIES[self.category[product]]
        group = int(self.group[product])
        return {
            "product_id": product_id(product),
            "name": f"{TIERS[self.tier[product]].capitalize()} {category} {group % GROUPS_EACH + 1}",
            "category": f"shop/{category}",
            "price": round(float(self.price[product]), 2),
            "margin": round(float(self.margin[product]), 4),
            "currency": CURRENCY,
            "comparable_group": f"{category}-{group % GROUPS_EACH + 1}",
        }


def product_id(product: int) -> str:
    """The id a product has on the bus."""
    return f"p{product:02d}"


def product_of(identity: str) -> int:
    """The product of an id."""
    return int(identity.removeprefix("p"))


def customer_id(customer: int) -> str:
    """The id a customer has on the bus."""
    return f"c{customer:05d}"


def _shelf(draw: np.random.Generator, size: Size) -> dict[str, Any]:
    """Columns of the products: every category has groups, every group a product of each tier."""
    groups = len(CATEGORIES) * GROUPS_EACH
    group = np.repeat(np.arange(groups), len(TIERS))
    tier = np.tile(np.arange(len(TIERS)), groups)
    base = draw.uniform(4.0, 12.0, groups)
    price = np.round(base[group] * TIER_PRICE[tier], 2)
    count = len(price)
    opens, closes = np.zeros(count, dtype=np.int64), np.full(count, size.last)
    moved = draw.permutation(count)
    # A tenth leaves the market on the way, a tenth comes later: cold offers must get their chance.
    leaving, coming = np.split(moved[: count // 5], [count // 10])
    closes[leaving] = size.history + size.days * 3 // 8
    opens[coming] = size.history + size.days // 4
    return {
        "price": price,
        "margin": np.round(price * draw.uniform(0.3, 0.6, count), 4),
        "returned": np.where(draw.random(count) < 0.1, 0.3, 0.03),
        "category": group // GROUPS_EACH,
        "group": group,
        "tier": tier,
        "opens": opens,
        "closes": closes,
        "rate": np.clip(draw.lognormal(-2.5, 0.9, count), 0.005, 0.35),
    }


def _regulars(draw: np.random.Generator, taste: Floats, limit: Ints, shelf: dict[str, Any]) -> Bools:
    """What each customer buys again and again: `REGULARS` groups of his taste, at the tier he pays for."""
    share = np.repeat(taste + 0.05, GROUPS_EACH, axis=1)
    # The greatest of the logarithms with Gumbel noise: a draw without replacement by share.
    groups = (np.log(share) + draw.gumbel(size=share.shape)).argsort(axis=1)[:, -REGULARS:]
    most = np.take_along_axis(limit, groups // GROUPS_EACH, axis=1)
    tiers = np.minimum(most, draw.integers(len(TIERS), size=groups.shape))
    regular = np.zeros((len(taste), len(shelf["price"])), dtype=np.bool_)
    np.put_along_axis(regular, groups * len(TIERS) + tiers, True, axis=1)
    return regular


def _stray(taste: Floats, limit: Ints, shelf: dict[str, Any]) -> Floats:
    """How a purchase out of nowhere spreads over the products (c, p), summing to 1."""
    wanted = taste[:, shelf["category"]] * (shelf["tier"] <= limit[:, shelf["category"]]) + 1e-9
    return np.asarray(wanted / wanted.sum(axis=1, keepdims=True))
