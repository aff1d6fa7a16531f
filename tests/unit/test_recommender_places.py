"""Which candidates go on where there are many: the best, those of a baseline, places kept for others."""

from __future__ import annotations

import numpy as np
import pytest

from libs.common.scoring.sources.look import top_of
from libs.common.scoring.sources.union import CODES
from services.recommender.candidates import places
from services.recommender.candidates.places import MOST
from tests.unit.candidate_world import Market, bought, product


def test_places_are_kept_for_sources_that_would_never_be_drawn() -> None:
    by = np.linspace(1.0, 0.0, 150)
    sources = np.full(150, CODES["popular"], dtype=np.int8)
    sources[120:140] = CODES["new"]
    kept = places.best(by, sources)
    assert len(kept) == MOST
    assert (sources[kept] == CODES["new"]).sum() == places.RESERVED[CODES["new"]]
    assert kept[-1] == 129, "the best of them"
    assert kept[:90].tolist() == list(range(90))
    assert places.best(by[:MOST], sources[:MOST]).tolist() == list(range(MOST))


def test_at_most_a_hundred_of_the_best_go_on_and_the_rest_are_counted() -> None:
    market = Market(*(product(f"x{i}", category=f"c{i}") for i in range(400)))
    market.learn(
        {f"x{i}": 0.9 / (i + 1) for i in range(400)}, {"x0": {f"x{i}": 0.1 for i in range(250, 380)}}
    )
    pool = market.pool(page="x0")
    assert len(pool) == MOST
    assert pool.here.rejected["surplus"] == 40
    assert len(set(pool.offer_ids)) == MOST


@pytest.mark.parametrize("limit", [16, 17, 100])
def test_a_whole_baseline_goes_on_before_places_are_kept(limit: int) -> None:
    market = Market(*(product(f"x{i:03}", category=f"c{i % 9}", price=1.0 + i % 7) for i in range(400)))
    market.learn({f"x{i:03}": 0.9 / (400 - i) for i in range(400)}, {})
    baseline = [f"product:x{i:03}" for i in range(399, 399 - limit, -1)]
    pool = market.pool({"x001": bought()}, limit=limit, also=baseline)
    assert set(baseline) <= set(pool.offer_ids)
    assert len(pool) == places.room(limit)


def test_top_keeps_ties_in_their_order() -> None:
    scores = np.ones(1000)
    assert top_of(np.arange(1000), scores, 3).tolist() == [0, 1, 2]
    scores[[7, 900]] = 2.0
    assert top_of(np.arange(1000), scores, 3).tolist() == [7, 900, 0]
