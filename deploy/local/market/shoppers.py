"""What customers do in a world, shown this or that: views, clicks, orders, returns, and their worth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deploy.local.market.world import (
    DELAYS,
    ENGAGED_FOR_EACH,
    EXAMINED,
    MOST_ENGAGED,
    REPLACES_DAYS,
    SATED_DAYS,
    Bools,
    Floats,
    Ints,
    World,
)

MOST_VIEWS = 2
VIEWED_BEFORE = 0.8
"""P(what is bought anyway was looked at before on the same visit)."""


class Showings(NamedTuple):
    """Offers put before customers: rows (n) of customer, product and slot (0 is the first)."""

    customer: Ints
    product: Ints
    slot: Ints

    def where(self, chosen: Bools) -> Showings:
        """The rows that are ``chosen`` (n)."""
        return Showings(*(column[chosen] for column in self))


class Reaction(NamedTuple):
    """What came of showings (n): looked at, clicked, and bought because of it."""

    examined: Bools
    clicked: Bools
    caused: Bools


class Shoppers:
    """The customers of a world, with all they have bought; two worlds at once: with the showings and without.

    Attributes
    ----------
    bought:
        Whether a customer bought a product on a day (d, c, p), with all that was shown.
    effect:
        Margin that showings caused, expected when each was shown (c): the truth an estimate must cover.
    shown:
        Every showing that was looked at: rows of day, customer, product.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.bought = world.anyway.copy()
        self.effect: Floats = np.zeros(world.size.customers)
        self.shown: list[tuple[int, Showings]] = []
        self._sold = np.zeros_like(world.anyway)

    def views(self, day: int) -> list[tuple[int, list[int]]]:
        """The visitors of a day and what each looks at: what he is about to buy, and what he likes."""
        world, draw = self.world, self._draw(day, 2)
        wanted = world.taste[int(day >= world.size.drift)][:, world.category] * world.sold(day) + 1e-12
        seen = []
        for customer in np.flatnonzero(world.visits[day]).tolist():
            buys = np.flatnonzero(world.anyway[day, customer])
            viewed = buys[draw.random(len(buys)) < VIEWED_BEFORE].tolist()
            share = wanted[customer] / wanted[customer].sum()
            viewed += draw.choice(world.products, int(draw.integers(1, MOST_VIEWS + 1)), p=share).tolist()
            seen.append((customer, list(dict.fromkeys(viewed))))
        return seen

    def worth(self, day: int) -> Floats:
        """Margin that showing each product today would cause, on average, after all that happened (c, p)."""
        return self.world.incremental(day) * ~self._sated(day)

    def show(self, day: int, showings: Showings) -> Reaction:
        """Customers look at what they are shown, slot by slot, and some buy because of it."""
        draw, world = self._draw(day, 3), self.world
        count = len(showings.customer)
        examined = draw.random(count) < EXAMINED[showings.slot]
        where = (showings.customer, showings.product)
        chance = (world.caused(day) * ~self._sated(day))[where]
        engaged = np.minimum(ENGAGED_FOR_EACH * chance, MOST_ENGAGED)
        clicked = examined & (draw.random(count) < engaged)
        caused = clicked & (draw.random(count) * engaged < chance)
        self.effect += np.bincount(
            showings.customer[examined], self.worth(day)[where][examined], world.size.customers
        )
        self.shown.append((day, showings.where(examined)))
        delay = draw.choice(len(DELAYS), count, p=DELAYS)
        for row in np.flatnonzero(caused).tolist():
            self._buy(int(showings.customer[row]), int(showings.product[row]), day + int(delay[row]))
        return Reaction(examined, clicked, caused)

    def orders(self, day: int) -> list[tuple[int, list[int]]]:
        """Who orders what on a day, whatever made him."""
        bought = self.bought[day]
        return [
            (customer, np.flatnonzero(bought[customer]).tolist())
            for customer in np.flatnonzero(bought.any(axis=1)).tolist()
        ]

    def returns(self, day: int) -> list[tuple[int, list[int]]]:
        """Who sends back what of a day's order."""
        back = self.bought[day] & ~self._kept(day)
        return [
            (customer, np.flatnonzero(back[customer]).tolist())
            for customer in np.flatnonzero(back.any(axis=1)).tolist()
        ]

    def margins(self) -> Floats:
        """Margin of all that each customer bought and kept since offers are made (c)."""
        days = range(self.world.size.history, self.world.size.last)
        return np.asarray(sum(self._kept(day).astype(np.int64) for day in days) @ self.world.margin)

    def _kept(self, day: int) -> Bools:
        """What is bought on a day and not sent back (c, p)."""
        return np.asarray(
            self.bought[day] & (self._draw(day, 4).random(self.bought.shape[1:]) >= self.world.returned)
        )

    def _buy(self, customer: int, product: int, day: int) -> None:
        """A sale that a showing caused; what it stands for is not bought any more."""
        world = self.world
        if day >= world.size.last:
            return
        alike = world.group == world.group[product]
        days = slice(day, day + REPLACES_DAYS + 1)
        self.bought[days, customer] &= ~alike | self._sold[days, customer]
        self.bought[day, customer, product] = True
        self._sold[day, customer, product] = True

    def _sated(self, day: int) -> Bools:
        """Who was sold a product lately, or ordered it for one of the next days (c, p)."""
        days = slice(max(0, day - SATED_DAYS + 1), day + len(DELAYS))
        return np.asarray(self._sold[days].any(axis=0))

    def _draw(self, day: int, stream: int) -> np.random.Generator:
        # Trap: a generator of its own for each day and purpose, so that what one arm is shown changes no
        # other customer's luck.
        return np.random.default_rng([self.world.seed, stream, day])
