"""The platform's interval against the market's truth, over many worlds played in process."""

from __future__ import annotations

from tests.benchmarks.market_lift import WORLDS, played

LEVEL = 0.99


def test_interval_covers_the_truth_in_all_but_a_few_of_two_hundred_worlds() -> None:
    worlds = [played(seed, [LEVEL])[LEVEL] for seed in range(WORLDS)]
    for told in zip(*worlds, strict=True):
        assert all(one.truth > 0.0 for one in told)
        # At 99 % two of two hundred are expected outside; eight are too many for chance (p < 0.001).
        assert sum(one.covers for one in told) >= WORLDS - 7, told[0].row.against
        # And not because it says nothing.
        assert sum(one.claims for one in told) >= WORLDS * 0.9, told[0].row.against


def test_where_nothing_is_caused_hardly_any_interval_claims_a_lift() -> None:
    worlds = [played(seed, [LEVEL], causes=False)[LEVEL] for seed in range(WORLDS)]
    for told in zip(*worlds, strict=True):
        assert sum(one.claims for one in told) <= 7, told[0].row.against
