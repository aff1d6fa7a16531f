"""First purchases: how often who never had a product buys it, whatever those do who have it."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import convert

from libs.common.clock import DAY, Millis
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_model import Decayed, Item, Items
from libs.common.contracts.learned_model import USUAL_FIRST, Popular
from libs.common.scoring.choice import FEATURES
from libs.common.scoring.features import Scene, ScoringTables, Shelf, candidate_features
from libs.common.scoring.learned import LearnedModels, popularity_of
from services.analyzer.learner.choice import had_of
from services.analyzer.learner.firsts import DOUBT, FirstPurchases
from services.analyzer.model.lessons import LessonLine, OrderLesson

T0 = 1_760_000_000_000


def shelf(*names: str) -> Shelf:
    facts = {"category": "all", "price": 1.0, "currency": "EUR"}
    return Shelf([convert({"product_id": name, "name": name, **facts}, Product) for name in names])


def learn(firsts: FirstPurchases, lesson: OrderLesson, products: Shelf) -> None:
    tables = ScoringTables.align(products, LearnedModels())
    firsts.learn_one(lesson, products, had_of(tables, lesson))


def order(at: Millis, had: str, *bought: str, occurred: Millis | None = None) -> OrderLesson:
    """An order of who had bought ``had`` (letters) before, and has looked at everything."""
    items = {name: Item(orders=1, bought=Decayed(1.0, at)) for name in had}
    looked = {name: Item(viewed=Decayed(1.0, at)) for name in "abc" if name not in had}
    return OrderLesson(
        customer="c",
        at=at,
        occurred_at=at if occurred is None else occurred,
        order_id=f"o{at}",
        lines=[LessonLine(name, 1.0, 1.0) for name in bought],
        before=Items(customer="c", items={**items, **looked}),
    )


def test_rate_is_that_of_those_who_never_had_it() -> None:
    """Everybody who has milk buys it each time, and of the others one in five begins."""
    firsts, products = FirstPurchases(), shelf("a", "b", "c")
    for n in range(400):
        had = "a" if n % 2 else ""
        learn(firsts, order(T0, had, "a" if n % 2 or n % 5 == 0 else "b"), products)
    rates = firsts.rates()
    assert rates["a"] == pytest.approx((40 + DOUBT * USUAL_FIRST) / (200 + DOUBT))
    assert rates["c"] == pytest.approx(DOUBT * USUAL_FIRST / (400 + DOUBT))


def test_what_was_long_ago_counts_less_and_what_is_imported_late_too() -> None:
    firsts, products = FirstPurchases(), shelf("a", "b")
    learn(firsts, order(T0, "", "a"), products)
    learn(firsts, order(T0 + 60 * DAY, "", "b"), products)
    late = order(T0 + 60 * DAY, "", "a", occurred=T0)
    learn(firsts, late, products)
    usual = DOUBT * USUAL_FIRST
    assert firsts.rates() == pytest.approx(
        {"a": (1.0 + usual) / (2.0 + DOUBT), "b": (1.0 + usual) / (2.0 + DOUBT)}
    )


def test_a_century_later_nothing_overflows() -> None:
    firsts, products = FirstPurchases(), shelf("a")
    for years in (0, 100, 300):
        learn(firsts, order(T0 + years * 365 * DAY, "", "a"), products)
        learn(firsts, order(T0 + years * 365 * DAY, "", "a", occurred=T0), products)
    assert firsts.rates()["a"] == pytest.approx((1.0 + DOUBT * USUAL_FIRST) / (1.0 + DOUBT))


def test_state_goes_on_to_the_bit_and_with_another_shelf() -> None:
    firsts, restored, products = FirstPurchases(), FirstPurchases(), shelf("a", "b", "c")
    for n in range(30):
        learn(firsts, order(T0 + n * DAY, "abc"[: n % 3], "abc"[n % 3]), products)
    restored.restore(firsts.state())
    assert restored.state() == firsts.state()
    other = shelf("c", "x", "a")
    before = firsts.rates()
    for one in (firsts, restored):
        learn(one, order(T0 + 40 * DAY, "a", "x"), shelf("c", "x", "a") if one is firsts else other)
    assert restored.state() == firsts.state()
    assert set(firsts.rates()) == {"a", "c", "x"}
    assert firsts.rates()["c"] < before["c"]


def test_who_could_not_buy_it_yet_does_not_count_against_a_newcomer() -> None:
    """Only orders since its first day count, over half-lives and a restart."""
    firsts = FirstPurchases()
    for n in range(300):
        learn(firsts, order(T0 + n * DAY, "", "a" if n % 5 == 0 else "c"), shelf("a", "c"))
    restored, both = FirstPurchases(), shelf("a", "b", "c")
    learn(firsts, order(T0 + 300 * DAY, "", "c"), both)
    assert firsts.rates()["b"] == pytest.approx(DOUBT * USUAL_FIRST / (1.0 + DOUBT))
    restored.restore(firsts.state())
    for n in range(100):
        learn(restored, order(T0 + 300 * DAY, "", "b" if n % 5 == 0 else "c"), both)
    rate = (20 + DOUBT * USUAL_FIRST) / (101 + DOUBT)
    assert restored.rates()["b"] == pytest.approx(rate)


def test_what_nobody_ever_bought_is_no_better_than_what_hardly_anybody_did() -> None:
    popular = [Popular("a", 9.0, 0.3, 9, 0.0, 0.05), Popular("b", 1.0, 0.001, 1, 0.0, 0.2 * USUAL_FIRST)]
    tables = ScoringTables.align(shelf("a", "b", "c"), LearnedModels(popularity=popularity_of(popular)))
    assert tables.log_first == pytest.approx([np.log(0.05 / USUAL_FIRST), np.log(0.2), np.log(0.2)])
    assert ScoringTables.align(shelf("a"), LearnedModels()).log_first.tolist() == [0.0]


def test_feature_speaks_of_what_he_never_bought_only_and_is_neutral_where_nothing_is_known() -> None:
    popular = [Popular("a", 9.0, 0.3, 9, 0.0, 0.05), Popular("b", 9.0, 0.3, 9, 0.0, float("nan"))]
    learned = LearnedModels(popularity=popularity_of([*popular, Popular("c", 9.0, 0.3, 9, 0.0, 0.05)]))
    tables = ScoringTables.align(shelf("a", "b", "c", "d"), learned)
    scene = Scene.of(tables, {"c": Item(orders=1, bought=Decayed(1.0, T0), last_bought_at=T0)}, T0)
    x = candidate_features(scene, np.arange(4))[:, FEATURES.index("first_rate")]
    assert x == pytest.approx([np.log(0.05 / USUAL_FIRST), 0.0, 0.0, 0.0])
