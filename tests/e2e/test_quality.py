"""The twin that experiments run on answers like the pipeline, and both like somebody who has learned."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from deploy.local.demo.data import CURRENCY, Basket, Journey
from libs.common.clock import DAY, MINUTE
from tests.benchmarks.quality.alone import ZeroOutcomes
from tests.benchmarks.quality.exam import Exam, Subject
from tests.benchmarks.quality.loop import Loop
from tests.benchmarks.quality.pipeline import pipeline
from tests.benchmarks.quality.shadow import Shadow
from tests.benchmarks.quality.subjects import LIVE, Together, subjects
from tests.benchmarks.quality.twin import twin

START = int(datetime(2017, 1, 2, tzinfo=UTC).timestamp() * 1000)
PRODUCTS, HOUSEHOLDS, DAYS, SCORED_DAYS = 80, 40, 60, 3
SEED = 5


def journey() -> Journey:
    """Households with favourites of their own, some goods always bought together, two months."""
    rng = np.random.default_rng(SEED)
    ids = [f"p{number}" for number in range(PRODUCTS)]
    products = [
        {
            "product_id": product,
            "name": product,
            "category": f"c{number // 8}",
            "price": 1.0 + number % 8,
            "currency": CURRENCY,
        }
        for number, product in enumerate(ids)
    ]
    favourites = [rng.permutation(PRODUCTS)[:10].tolist() for _ in range(HOUSEHOLDS)]
    baskets = []
    for day in range(DAYS):
        for number in np.flatnonzero(rng.random(HOUSEHOLDS) < 0.4).tolist():
            some = rng.choice(favourites[number], 3, replace=False).tolist()
            goods = sorted({*some, *(product ^ 1 for product in some[:2]), int(rng.integers(PRODUCTS))})
            baskets.append(
                Basket(
                    order_id=f"basket-{len(baskets)}",
                    customer=f"household-{number}",
                    at=START + day * DAY + len(baskets) % 600 * MINUTE,
                    week=1 + (day >= DAYS - SCORED_DAYS),
                    products=tuple(ids[product] for product in goods),
                    quantities=tuple(1 for _ in goods),
                    prices=tuple(1.0 + product % 8 for product in goods),
                )
            )
    baskets.sort(key=lambda basket: (basket.at, basket.order_id))
    return Journey(products, baskets, frozenset(f"household-{n}" for n in range(HOUSEHOLDS)), score_from=2)


async def examined(loop: Loop, shadow: Shadow, hears: bool) -> list[Subject]:
    taken = journey()
    together = Together([product["product_id"] for product in taken.products])
    all_of_them: list[Subject] = [*subjects(together, SEED), ZeroOutcomes(taken.products, shadow)]
    await Exam(loop, taken, all_of_them, [together, shadow] if hears else [together]).run()
    return all_of_them


@pytest.mark.embedded
async def test_twin_and_pipeline_answer_alike() -> None:
    shadow = Shadow(journey().products)
    async with twin(shadow) as loop:
        twins = await examined(loop, shadow, hears=False)
    async with pipeline("embedded") as loop:
        pipelines = await examined(loop, Shadow(journey().products), hears=True)
    for one, other in zip(twins, pipelines, strict=True):
        assert len(one.board) == len(other.board) > 15, one.name
        # Draws follow the number of the version, and how often was published differs.
        told, same = (dict(subject.board.rows) for subject in (one, other))
        told.pop(LIVE, None), same.pop(LIVE, None)
        assert told == same, one.name
    plain = pipelines[0].board
    assert plain.mean("learned", "ndcg") > 1.5 * plain.mean("popularity", "ndcg")
