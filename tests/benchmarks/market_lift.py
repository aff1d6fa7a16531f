"""How often the told interval of lift holds the truth: markets played in process, a table with its own doubt.

`python -m tests.benchmarks.market_lift`
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from deploy.local.market.play import BEGIN, PLACEMENT
from deploy.local.market.shoppers import Shoppers, Showings
from deploy.local.market.world import EXAMINED, Floats, Ints, Size, World, customer_id, product_id
from libs.common.clock import DAY, HOUR, Millis
from libs.common.contracts.catalogue import Product
from services.analyzer.model.facts import Decided, FactRow, Ordered, SoldLine, TakenBack, encode_fact
from services.analyzer.model.lift import CONTROLS, TREATMENT, LiftRow, LiftTally
from services.analyzer.model.margins import Margins
from tests.survival.bounds import upper_bound

WORLDS = 200
SIZE = Size(customers=320, history=1, days=5)
SLOTS = len(EXAMINED)
GROUPS, SHARES = (TREATMENT, *CONTROLS), (0.5, 0.25, 0.25)
LEVELS = (0.99, 0.9)


class Told(NamedTuple):
    """A row of lift against one control group, and the lift there was."""

    row: LiftRow
    truth: float

    @property
    def interval(self) -> tuple[float, float]:
        assert self.row.interval is not None, "a group is small"
        return self.row.interval

    @property
    def covers(self) -> bool:
        return self.interval[0] <= self.truth <= self.interval[1]

    @property
    def claims(self) -> bool:
        """Whether it claims that there is a lift, up or down."""
        return not self.interval[0] <= 0.0 <= self.interval[1]


def played(seed: int, levels: Sequence[float] = LEVELS, *, causes: bool = True) -> dict[float, list[Told]]:
    """A short market: what lift is told at each level, against each control group, beside the truth.

    Treatment is shown what a rough guess finds best for each, baseline what anybody buys most, the third
    group nothing. Where nothing ``causes``, nobody is shown anything and the truth is 0.
    """
    world = World.make(SIZE, seed)
    shoppers, draw = Shoppers(world), np.random.default_rng([seed, 9])
    group = draw.choice(len(GROUPS), SIZE.customers, p=SHARES)
    popular = (-world.anyway[: SIZE.history].sum(axis=(0, 1))).argsort(kind="stable")[:SLOTS]
    for day in range(SIZE.history, SIZE.last) if causes else ():
        there = np.flatnonzero(world.visits[day] & (group != GROUPS.index("none")))
        guess = shoppers.worth(day)[there] * draw.lognormal(0.0, 1.0, (len(there), world.products))
        top = (-guess).argsort(axis=1)[:, :SLOTS]
        top[group[there] == GROUPS.index("baseline")] = popular
        shoppers.show(
            day, Showings(np.repeat(there, SLOTS), top.ravel(), np.tile(np.arange(SLOTS), len(there)))
        )
    tally = LiftTally(_margins(world))
    tally.take(facts(shoppers, group))
    effects = {name: float(shoppers.effect[group == code].mean()) for code, name in enumerate(GROUPS)}
    return {
        level: [
            Told(row, effects[TREATMENT] - effects[row.against])
            for row in tally.result(PLACEMENT, level).rows
        ]
        for level in levels
    }


def facts(shoppers: Shoppers, group: Ints) -> Iterator[FactRow]:
    """What the platform would have noted of the market, in the order in which it is counted."""
    world, size = shoppers.world, shoppers.world.size
    for customer, code in enumerate(group.tolist()):
        yield _fact(customer, size.history * DAY, "decided", Decided(PLACEMENT, GROUPS[code]))
    for day in range(size.history, size.last):
        for customer, products in shoppers.returns(day):
            yield _fact(
                customer, day * DAY + 2 * HOUR, "taken_back", TakenBack(str(day), _lines(world, products))
            )
    for day in range(size.last):
        for customer, products in shoppers.orders(day):
            yield _fact(customer, day * DAY + HOUR, "ordered", Ordered(str(day), _lines(world, products)))


def _fact(customer: int, at: Millis, kind: str, fact: Decided | Ordered | TakenBack) -> FactRow:
    return FactRow(0, 0, customer_id(customer), BEGIN + at, kind, encode_fact(fact))


def _lines(world: World, products: Sequence[int]) -> tuple[SoldLine, ...]:
    return tuple(SoldLine(product_id(each), 1.0, float(world.price[each])) for each in products)


def _margins(world: World) -> Margins:
    known = Margins()
    for product in range(world.products):
        entry = world.entry(product)
        known.put(entry["product_id"], Product(**entry))
    return known


def row(what: str, hits: Sequence[bool], wanted: str) -> str:
    """A line of the table: a share with its 95 % interval (Clopper & Pearson 1934)."""
    n, found = len(hits), sum(hits)
    low, high = 1.0 - upper_bound(n - found, n, 0.975), upper_bound(found, n, 0.975)
    return f"| {what} | {found} of {n} | {found / n:.3f} ({low:.3f} to {high:.3f}) | {wanted} |"


def main() -> None:
    """Print how often intervals held the truth, and how often they claimed what was not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=WORLDS)
    chosen = parser.parse_args()
    lifted = [played(seed) for seed in range(chosen.worlds)]
    idle = [played(seed, causes=False) for seed in range(chosen.worlds)]
    print("| interval | worlds | share | wanted |\n|---|---|---|---|")
    for level in LEVELS:
        for at, control in enumerate(CONTROLS):
            told = [world[level][at] for world in lifted]
            name = f"{level:.0%} against {control}"
            print(row(f"{name} covers the truth", [one.covers for one in told], f"{level}"))
            print(row(f"{name} excludes 0", [one.claims for one in told], "–"))
            wrong = [world[level][at].claims for world in idle]
            print(row(f"{name} excludes 0 where nothing is caused", wrong, f"≤ {1 - level:.2g}"))
    truths: Floats = np.array([[one.truth for one in world[LEVELS[0]]] for world in lifted])
    means = ", ".join(
        f"{mean:.2f} against {name}" for mean, name in zip(truths.mean(axis=0), CONTROLS, strict=True)
    )
    print(f"\nTrue lift, on average of the worlds: {means} (margin of a customer in {SIZE.days} days).")


if __name__ == "__main__":
    main()
