"""``python -m tests.benchmarks.decision``: CPU of one decision with its record, in this process alone.

The shop of the recommender's row in memory: a basket of one product, 10 offers, 128 posterior draws, tokens,
the event of the journal and the pool. No HTTP, no spool: what is left is the decision, alone and beside 19
others, as they come where many ask. With ``--profile`` the dearest functions follow.
"""

from __future__ import annotations

import cProfile
import pstats
import random
import sys
import time
from collections.abc import Callable

from libs.common.clock import DAY
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_event import encode_event
from libs.common.contracts.customer_model import Decayed, Item, Items
from libs.common.contracts.learned_model import Neighbour, Popular
from libs.common.scoring.learned import LearnedModels, complements_of, popularity_of
from libs.common.telemetry import Metrics
from libs.common.tokens import TokenSealer
from services.recommender.handlers.decide import Decided, Decider, Holdout, Question, encode_answer
from services.recommender.metrics import RecommenderMetrics
from services.recommender.model.assortment import Assortment
from services.recommender.model.consent import Policy
from services.recommender.model.tables import TableMaker
from services.recommender.model.who import Who
from services.recommender.model.wire import Ask
from services.recommender.ports import encode_kept

NOW = 1_800_000_000_000
PEOPLE = 2_000
LAPS, LAP = 30, 60
TOGETHER = (1, 20)


def shop(products: int) -> tuple[Assortment, LearnedModels]:
    """A catalogue, and what would have been learned of it."""
    rng = random.Random(0)
    assortment = Assortment()
    for n in range(products):
        price = round(rng.uniform(1, 50), 2)
        one = Product(
            product_id=f"p{n}", name=f"Product {n}", category=f"shop/c{n % 25}", price=price, currency="EUR"
        )
        assortment.put("product", one.product_id, one, n + 1)
    lists = {
        f"p{n}": [Neighbour(f"p{rng.randrange(products)}", rng.random() / 9, 5.0, 2.0) for _ in range(50)]
        for n in range(products)
    }
    popular = [
        Popular(f"p{n}", 100 / (n + 1), 0.2 / (n + 1), 3 * products // (n + 1)) for n in range(products)
    ]
    return assortment, LearnedModels(
        version=1, popularity=popularity_of(popular), complements=complements_of(lists)
    )


def items_of(rng: random.Random, products: int) -> Items:
    """Three orders of four products."""

    def item() -> Item:
        at = NOW - rng.randrange(60 * DAY)
        return Item(orders=1, bought=Decayed(1.0, at), last_bought_at=at)

    return Items(customer="c", items={f"p{int(products * rng.random() ** 2)}": item() for _ in range(12)})


def decisions(products: int) -> Callable[[range], tuple[int, int]]:
    """Makes the decisions of some numbers; answers the bytes of the last one's event and of its pool."""
    assortment, learned = shop(products)
    decider = Decider(
        assortment,
        TableMaker(assortment, lambda: learned, time.monotonic),
        TokenSealer(b"k" * 32).seal,
        Holdout(b"s" * 32, 0.0, 0.0),
        Policy(),
        RecommenderMetrics(Metrics("recommender")),
    )
    rng = random.Random(1)
    people = [Who(f"c{n}", (f"c{n}",), None, items_of(rng, products), {}) for n in range(PEOPLE)]

    def question(number: int) -> Question:
        ask = Ask(placement="basket", limit=10, context={"basket": [f"p{rng.randrange(products)}"]})
        who = people[rng.randrange(PEOPLE)]
        return Question(ask, f"{number:032x}", who, NOW + number, NOW + number, True)

    def decide(numbers: range) -> tuple[int, int]:
        sizes = (0, 0)
        for decided in decider.decide([question(number) for number in numbers]):
            assert isinstance(decided, Decided)
            assert decided.event is not None
            assert len(decided.answer.offers) == 10
            kept = decided.kept(encode_answer(decided.answer))
            encode_kept(kept)
            sizes = len(encode_event(decided.event)), len(kept.pool)
        return sizes

    return decide


def cost(decide: Callable[[range], tuple[int, int]], together: int) -> float:
    """Seconds of CPU a decision, so many at a time."""
    best = float("inf")
    # The best of many short laps: other work on the machine makes all of them dearer.
    for lap in range(LAPS):
        began = time.process_time()
        for number in range(lap * LAP, (lap + 1) * LAP, together):
            decide(range(number, number + together))
        best = min(best, (time.process_time() - began) / LAP)
    return best


def main() -> None:
    """Print the table."""
    print("| products | µs of CPU, alone | beside 19 others | event, bytes | pool, bytes |")
    print("|---:|---:|---:|---:|---:|")
    for products in (500, 5_000):
        decide = decisions(products)
        event, pool = decide(range(200))
        alone, beside = (1e6 * cost(decide, together) for together in TOGETHER)
        print(f"| {products:,} | {alone:,.0f} | {beside:,.0f} | {event:,} | {pool:,} |", flush=True)
        if "--profile" in sys.argv:
            profile = cProfile.Profile()
            profile.runcall(
                lambda decide=decide: [decide(range(n, n + 20)) for n in range(50_000, 50_500, 20)]
            )
            pstats.Stats(profile).sort_stats("cumtime").print_stats(60)


if __name__ == "__main__":
    main()
