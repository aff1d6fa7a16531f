"""The platform's interval against the market's truth, over many worlds played in process."""

from __future__ import annotations

import numpy as np

from deploy.local.market.shoppers import Shoppers, Showings
from deploy.local.market.world import EXAMINED, Size, World
from services.analyzer.model.interval import Stratum, compare

WORLDS = 200
SLOTS = len(EXAMINED)


def played(seed: int, causes: bool = True) -> tuple[tuple[float, float] | None, float]:
    """A short market where half the customers are shown what a rough guess finds best; interval and truth.

    Those of the other half are never shown anything. Where nothing ``causes``, the truth is 0.
    """
    size = Size(customers=160, history=1, days=5)
    world = World.make(size, seed)
    shoppers = Shoppers(world)
    draw = np.random.default_rng([seed, 9])
    treated = draw.random(size.customers) < 0.5
    for day in range(size.history, size.last):
        who = np.flatnonzero(world.visits[day] & treated) if causes else np.empty(0, dtype=np.int64)
        guess = shoppers.worth(day)[who] * draw.lognormal(0.0, 1.0, (len(who), world.products))
        top = (-guess).argsort(axis=1)[:, :SLOTS]
        slots = np.tile(np.arange(SLOTS), len(who))
        shoppers.show(day, Showings(np.repeat(who, SLOTS), top.ravel(), slots))
    margins = shoppers.margins()
    found = compare([Stratum(1.0, margins[treated], margins[~treated])], 0.99)
    return found.interval, float(shoppers.effect[treated].mean())


def test_interval_covers_the_truth_in_all_but_a_few_of_two_hundred_worlds() -> None:
    covered = seen = 0
    for seed in range(WORLDS):
        interval, truth = played(seed)
        assert interval is not None
        assert truth > 0.0
        covered += interval[0] <= truth <= interval[1]
        seen += interval[0] > 0.0
    # At 99 % two of two hundred are expected outside; eight are too many for chance (p < 0.001).
    assert covered >= WORLDS - 7
    assert seen > 0


def test_where_nothing_is_caused_hardly_any_interval_claims_a_lift() -> None:
    claimed = sum(
        not interval[0] <= 0.0 <= interval[1]
        for interval in (played(seed, causes=False)[0] for seed in range(WORLDS))
        if interval is not None
    )
    assert claimed <= 7
