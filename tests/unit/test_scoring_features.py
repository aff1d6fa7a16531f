"""Features, choice score and price tiers."""

from __future__ import annotations

import numpy as np
import pytest

from libs.common.clock import DAY
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_model import Decayed, Item
from libs.common.contracts.learned_model import Neighbour, Popular
from libs.common.scoring.choice import START_WEIGHTS, ChoiceModel
from libs.common.scoring.comparables import NO_TIER, Comparables
from libs.common.scoring.features import FEATURES, Scene, ScoringTables, Shelf, candidate_features
from libs.common.scoring.learned import LearnedModels, complements_of, popularity_of

T0 = 1_700_000_000_000


def product(product_id: str, price: float = 1.0, **changes: object) -> Product:
    fields = {"name": product_id, "category": "food", "currency": "EUR", **changes}
    return Product(product_id=product_id, price=price, **fields)  # type: ignore[arg-type]


def tables(*products: Product) -> ScoringTables:
    learned = LearnedModels(
        version=1,
        popularity=popularity_of([Popular("bread", 9.0, 0.3, 9), Popular("gone", 8.0, 0.2, 8)]),
        complements=complements_of(
            {
                "bread": [Neighbour("butter", 0.2, 40.0, 3.0), Neighbour("gone", 0.1, 9.0, 2.0)],
                "gone": [Neighbour("jam", 0.4, 50.0, 5.0)],
            }
        ),
    )
    return ScoringTables.align(Shelf(products), learned)


SHOP = (product("bread"), product("butter"), product("jam", category="sweet"), product("salt"))


def column(scene: Scene, name: str) -> list[float]:
    x = candidate_features(scene, np.arange(len(SHOP)))
    return [float(value) for value in x[:, FEATURES.index(name)]]


def test_complements_come_from_basket_page_and_history_also_of_what_left_the_shelf() -> None:
    loved = {"bread": Item(orders=2, bought=Decayed(2.0, T0), last_bought_at=T0)}
    scene = Scene.of(tables(*SHOP), loved, T0, page="bread", basket=["gone", "unheard of"])
    assert scene.page.tolist() == [0.0, 0.2, 0.0, 0.0]
    assert scene.basket.tolist() == pytest.approx([0.0, 0.0, 0.4 / 2**0.5, 0.0])
    assert scene.history.tolist() == [0.0, 0.2, 0.0, 0.0]


def test_history_fades_and_cycles_are_due() -> None:
    items = {
        "bread": Item(orders=3, bought=Decayed(2.0, T0), last_bought_at=T0, cycle=7.0 * DAY),
        "jam": Item(viewed=Decayed(4.0, T0), last_viewed_at=T0),
    }
    scene = Scene.of(tables(*SHOP), items, T0 + 120 * DAY)
    assert scene.bought.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert scene.age[0] == 120.0
    assert scene.age[2] == np.inf
    week_later = Scene.of(tables(*SHOP), items, T0 + 7 * DAY)
    assert column(week_later, "due")[0] == 1.0
    assert 0 < column(scene, "due")[0] < 0.01
    assert column(week_later, "viewed")[2] == pytest.approx(np.log1p(4.0 * 2**-0.5))
    assert column(scene, "category")[:3] == [1.0, 1.0, 0.0]


def test_what_was_never_bought_is_judged_by_columns_of_its_own() -> None:
    items = {"bread": Item(orders=3, bought=Decayed(2.0, T0), last_bought_at=T0)}
    scene = Scene.of(tables(*SHOP), items, T0, page="bread", basket=["gone"])
    assert column(scene, "first") == [0.0, 1.0, 1.0, 1.0]
    # Three orders' worth of everybody's share beside his own two; nothing goes with it in his history.
    assert column(scene, "usual") == pytest.approx([np.log(2.0 + 3 * 0.3 + 0.003), 0.0, 0.0, 0.0])
    for name in ("popularity", "history", "trend", "page", "basket"):
        plain = column(scene, name)
        assert column(scene, f"first_{name}") == [0.0, *plain[1:]]
        assert name == "trend" or any(plain)


def test_orders_so_far_season_trend_and_aisle_of_the_basket() -> None:
    items = {"bread": Item(orders=3, bought=Decayed(2.0, T0), last_bought_at=T0)}
    scene = Scene.of(tables(*SHOP), items, T0 + 90 * DAY, basket=["jam", "butter", "salt", "unheard of"])
    assert column(scene, "times") == pytest.approx([np.log(4.0), 0.0, 0.0, 0.0])
    assert column(scene, "season") == pytest.approx([0.5, 0.0, 0.0, 0.0])
    assert column(scene, "aisle") == pytest.approx([2 / 3, 2 / 3, 1 / 3, 2 / 3])
    assert column(scene, "trend") == scene.tables.rankings.trend.tolist()
    assert column(Scene.of(tables(*SHOP), items, T0, page="jam"), "aisle") == [0.0] * 4


def test_features_are_finite_for_a_stranger_and_an_empty_shop() -> None:
    scene = Scene.of(tables(*SHOP), {}, T0, page="nothing", basket=[])
    assert np.isfinite(candidate_features(scene, np.arange(len(SHOP)))).all()
    empty = Scene.of(ScoringTables.align(Shelf(()), LearnedModels()), {}, T0)
    assert candidate_features(empty, np.arange(0)).shape == (0, len(FEATURES))


def test_new_popularity_reuses_aligned_complements() -> None:
    before = tables(*SHOP)
    learned = LearnedModels(version=2, complements=before.learned.complements)
    after = ScoringTables.align(before.shelf, learned, before)
    assert after.columns is before.columns
    assert after.log_share[0] < before.log_share[0]


def test_choice_prefers_habit_then_what_goes_with_the_basket() -> None:
    items = {"salt": Item(orders=5, bought=Decayed(4.0, T0), last_bought_at=T0 - 9 * DAY, cycle=9.0 * DAY)}
    choice = ChoiceModel()
    quiet = choice.probabilities(candidate_features(Scene.of(tables(*SHOP), items, T0), np.arange(4)))
    given = Scene.of(tables(*SHOP), items, T0, basket=["bread"])
    basket = choice.probabilities(candidate_features(given, np.arange(4)))
    assert quiet.sum() == pytest.approx(1.0)
    assert quiet.argmax() == 3
    assert basket[1] > 3 * quiet[1]
    assert len(choice.probabilities(np.zeros((0, len(FEATURES))))) == 0
    assert set(START_WEIGHTS) == set(FEATURES)


def test_tiers_and_upgrades_of_a_named_group() -> None:
    shelf = Comparables(
        [product(f"tv{n}", price, comparable_group="tv") for n, price in enumerate((900, 300, 500))]
    )
    assert shelf.tier.tolist() == pytest.approx([5 / 6, 1 / 6, 0.5])
    assert shelf.dearer(1, shelf.comparable_with(1)).tolist() == [2, 0]
    assert shelf.dearer(0, shelf.comparable_with(0)).tolist() == []
    assert shelf.comparable_with(0).tolist() == [1, 2]


def test_sizes_decide_where_no_group_is_named() -> None:
    cups = [("small", 2.0, 100.0), ("mid", 5.0, 200.0), ("big", 5.2, 401.0), ("other", 9.0, 200.0)]
    made = [product(n, price, size=size, unit="ml") for n, price, size in cups[:3]]
    made.append(product("other", 9.0, size=200.0, unit="g"))
    shelf = Comparables(made)
    assert shelf.comparable_with(0).tolist() == [1]
    assert shelf.comparable_with(1).tolist() == [0]
    assert shelf.comparable_with(2).tolist() == []
    assert shelf.tier[3] == NO_TIER
    assert shelf.dearer(0, shelf.comparable_with(0)).tolist() == [1]


def test_price_decides_where_no_size_is_known() -> None:
    shelf = Comparables([product("case", 20.0), product("phone", 500.0), product("phone+", 900.0)])
    assert shelf.dearer(0, shelf.comparable_with(0)).tolist() == []
    assert shelf.dearer(1, shelf.comparable_with(1)).tolist() == [2]
