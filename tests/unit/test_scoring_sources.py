"""Sources of candidates: what each finds, in which order, never more than its bound, never what is closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.clock import DAY
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_model import Decayed, Item
from libs.common.contracts.learned_model import Neighbour, Popular
from libs.common.scoring.features import Scene, willingness
from libs.common.scoring.learned import LearnedModels, complements_of, popularity_of
from libs.common.scoring.rankings import FEW_ORDERS, PER_CATEGORY
from libs.common.scoring.shelf import ScoringTables, Shelf
from libs.common.scoring.sources import complements, newcomers, popular, repeats, upgrades
from libs.common.scoring.sources.look import Look
from libs.common.scoring.sources.union import CODES, SOURCES, candidates

NOW = 1_800_000_000_000


def product(product_id: str, **more: Any) -> Product:
    fields: dict[str, Any] = {"name": product_id, "category": "food", "price": 2.0, "currency": "EUR"}
    return Product(product_id=product_id, **(fields | more))


def bought(weight: float = 2.0, age: int = 1, cycle: float = 14.0, views: float = 0.0) -> Item:
    at = NOW - age * DAY
    return Item(
        orders=3 if weight else 0,
        bought=Decayed(weight, NOW),
        last_bought_at=at,
        cycle=cycle * DAY,
        viewed=Decayed(views, NOW),
        last_viewed_at=NOW if views else 0,
    )


def sold(product_id: str, weight: float, recent: float = 0.0, orders: int = 100) -> Popular:
    return Popular(product_id, weight, weight / 1000, orders, recent)


class Shop:
    """A shelf with what was learned about it."""

    def __init__(
        self,
        products: Sequence[Product],
        rows: Sequence[Popular] = (),
        pairs: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        lists = {
            key: [Neighbour(other, weight, 100 * weight, 2.0) for other, weight in others.items()]
            for key, others in (pairs or {}).items()
        }
        learned = LearnedModels(popularity=popularity_of(rows), complements=complements_of(lists))
        self.shelf = Shelf(products)
        self.tables = ScoringTables.align(self.shelf, learned)

    def look(
        self,
        items: Mapping[str, Item] | None = None,
        page: str | None = None,
        basket: Sequence[str] = (),
        closed: Sequence[str] = (),
    ) -> Look:
        free = np.ones(len(self.shelf), dtype=bool)
        for product_id in (page, *basket, *closed):
            if product_id in self.shelf.index:
                free[self.shelf.index[product_id]] = False
        scene = Scene.of(self.tables, items or {}, NOW, page, basket)
        return Look(scene, free, page, basket)

    def names(self, positions: np.ndarray[Any, Any]) -> list[str]:
        return [self.shelf.ids[at] for at in positions.tolist()]


def test_repeats_prefer_what_is_bought_often_and_due() -> None:
    shop = Shop([product(name) for name in ("often", "due", "just", "never")])
    look = shop.look(
        {"often": bought(5.0, 1, 14.0), "due": bought(2.0, 14, 14.0), "just": bought(2.0, 1, 14.0)}
    )
    assert shop.names(repeats.repeats(look)) == ["often", "due", "just"]


def test_what_was_looked_at_is_found_apart_from_what_was_bought() -> None:
    shop = Shop([product(name) for name in ("a", "b", "c")])
    look = shop.look({"a": bought(), "b": bought(0.0, views=2.0), "c": bought(0.0, views=3.0)})
    assert shop.names(repeats.viewed(look)) == ["c", "b"]


def test_complements_need_a_page_a_basket_or_a_history() -> None:
    shop = Shop([product(f"x{n}") for n in range(6)], pairs={"x0": {"x3": 0.2, "x4": 0.4}, "x1": {"x5": 0.1}})
    assert shop.names(complements.of_page(shop.look(page="x0"))) == ["x4", "x3"]
    assert shop.names(complements.of_basket(shop.look(basket=["x1"]))) == ["x5"]
    assert shop.names(complements.of_history(shop.look({"x0": bought()}))) == ["x4", "x3"]
    nobody = shop.look()
    for source in (complements.of_page, complements.of_basket, complements.of_history):
        assert not len(source(nobody))


def test_popular_of_a_category_comes_from_the_page_and_from_where_he_buys_most() -> None:
    products = [product(f"{c}{n}", category=c) for c in ("tea", "jam", "oil", "tin") for n in range(3)]
    shop = Shop(products, [sold(f"{c}{n}", 10.0 + n) for c in ("tea", "jam", "oil", "tin") for n in range(3)])
    look = shop.look({"jam0": bought(5.0), "oil0": bought(1.0)}, page="tea2")
    assert shop.names(popular.in_category(look)) == [
        *("tea1", "tea0"),
        *("jam2", "jam1", "jam0"),
        *("oil2", "oil1", "oil0"),
    ]
    assert not len(popular.in_category(shop.look()))


def test_trending_is_what_rises_above_the_pace_of_all_and_no_category_fills_it() -> None:
    names = [f"ice{n}" for n in range(6)] + ["rice", "salt"]
    shop = Shop(
        [product(name, category="ice" if name.startswith("ice") else name) for name in names],
        [
            *(sold(f"ice{n}", 80.0, 40.0 + n) for n in range(6)),
            sold("rice", 800.0, 80.0),
            sold("salt", 800.0, 60.0),
        ],
    )
    found = shop.names(popular.trending(shop.look()))
    assert found == ["ice5", "ice4", "ice3"]
    assert len(found) == PER_CATEGORY
    trend = shop.tables.rankings.trend
    assert trend[shop.shelf.index["ice5"]] > 0.2 > 0.0 > trend[shop.shelf.index["rice"]]


@pytest.mark.parametrize("recent", [0.0, float("inf"), float("nan")])
def test_without_numbers_that_can_be_trusted_nothing_is_trending(recent: float) -> None:
    shop = Shop([product("a"), product("b")], [sold("a", 5.0, recent), sold("b", 5.0, recent)])
    assert not len(popular.trending(shop.look()))
    assert np.isfinite(shop.tables.rankings.trend).all()


def test_new_is_what_few_bought_the_newest_in_the_catalogue_first() -> None:
    shop = Shop(
        [
            product("known"),
            product("rare"),
            product("old", available_from="2020-01-01"),
            product("young", available_from="2026-06-01"),
            product("odd", available_from="no date"),
        ],
        [sold("known", 50.0, orders=FEW_ORDERS), sold("rare", 5.0, orders=FEW_ORDERS - 1)],
    )
    assert shop.names(newcomers.new(shop.look())) == ["young", "old", "odd", "rare"]
    assert shop.tables.rankings.orders.tolist() == [10, 9, 0, 0, 0]


COFFEES = [
    product("plain", category="coffee", price=4.0, size=500.0, unit="g"),
    product("fine", category="coffee", price=6.0, size=500.0, unit="g"),
    product("best", category="coffee", price=5.0, size=250.0, unit="g", brand="Bean"),
    product("bulk", category="coffee", price=7.0, size=1000.0, unit="g"),
    product("tiny", category="coffee", price=3.0, size=100.0, unit="g"),
    product("milk", category="dairy", brand="Bean"),
]


def test_an_upgrade_is_dearer_per_unit_and_of_comparable_size() -> None:
    shop = Shop(COFFEES)
    found = upgrades.replaced(shop.look(page="plain"))
    # "bulk" costs more but less per gram, "tiny" is dearer per gram but a fifth of the size.
    assert sorted(shop.names(found.upgrades)) == ["best", "fine"]
    assert found.by[shop.shelf.index["best"]] == shop.shelf.index["plain"]
    assert found.by[shop.shelf.index["bulk"]] == -1


def test_upgrades_are_sorted_by_what_he_is_likely_to_take() -> None:
    known = Shop(COFFEES, [sold("fine", 90.0), sold("best", 10.0)])
    assert known.names(upgrades.replaced(known.look(page="plain")).upgrades) == ["fine", "best"]
    equal = Shop(COFFEES, [sold("fine", 50.0), sold("best", 50.0)])
    loyal = equal.look({"milk": bought(5.0)}, page="plain")
    assert equal.names(upgrades.replaced(loyal).upgrades) == ["best", "fine"], "he buys that brand"


def test_the_usual_products_upgrades_do_not_crowd_out_those_of_the_page() -> None:
    rooms = upgrades.UPGRADES
    many = [product(f"a{n}", category="a", price=2.0 + n / 100) for n in range(3 * rooms)]
    page = [product("page", category="p", price=2.0), product("better", category="p", price=2.5)]
    shop = Shop([*many, *page], [sold(f"a{n}", 50.0) for n in range(3 * rooms)])
    found = upgrades.replaced(shop.look({"a0": bought(9.0)}, page="page")).upgrades
    assert "better" in shop.names(found)
    assert len(found) == rooms + 1


def test_willingness_is_learned_by_category_from_orders_and_views() -> None:
    tiers = [product(f"{c}{n}", category=c, price=2.0 + n) for c in ("wine", "soap") for n in range(3)]
    shop = Shop(tiers)
    places = np.arange(6)
    rich = willingness(shop.look({"wine2": bought(9.0)}).scene, places)
    assert rich[2] > rich[1] > rich[0], "in wine he buys the dearest"
    assert abs(rich[3] - rich[5]) < abs(rich[0] - rich[2]), "of soap little is known"
    looked = willingness(shop.look({"wine2": bought(0.0, views=5.0)}).scene, places)
    assert looked[2] > looked[0]
    assert willingness(shop.look().scene, places).tolist() == pytest.approx(
        (-np.abs(shop.shelf.comparables.tier - 0.5)).tolist()
    )


def test_in_a_named_group_prices_are_compared_by_size_only_where_all_say_it_alike() -> None:
    group = {"comparable_group": "tv"}
    small = product("s", price=400.0, size=40.0, **group)
    alike = Shelf([small, product("l", price=500.0, size=80.0, **group)])
    assert alike.peers.of(1).dearer.tolist() == [0], "dearer per inch"
    mixed = Shelf([small, product("l", price=500.0, **group)])
    assert mixed.peers.of(0).dearer.tolist() == [1]
    assert mixed.peers.of(1).dearer.tolist() == []


def test_sources_are_named_by_the_first_that_finds() -> None:
    shop = Shop([product(f"x{n}", category=f"c{n}") for n in range(5)], pairs={"x0": {"x1": 0.5}})
    found = candidates(shop.look({"x1": bought(), "x2": bought()}, page="x0"))
    named = dict(zip(shop.names(found.positions), (SOURCES[code] for code in found.sources), strict=True))
    assert named == {"x1": "page", "x2": "repeat", "x3": "new", "x4": "new"}
    assert set(CODES) == set(SOURCES)


BOUNDS = {
    complements.of_page: complements.COMPLEMENTS,
    complements.of_basket: complements.COMPLEMENTS,
    complements.of_history: complements.COMPLEMENTS,
    repeats.repeats: repeats.REPEATS,
    repeats.viewed: repeats.VIEWED,
    popular.popular: popular.POPULAR,
    popular.trending: popular.TRENDING,
    popular.in_category: popular.OF_PAGE + popular.FAVOURITES * popular.OF_FAVOURITE,
    newcomers.new: newcomers.NEW,
    lambda look: upgrades.replaced(look).upgrades: 2 * upgrades.UPGRADES,
}


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 400), owned=st.integers(0, 1_000))
def test_no_source_names_what_is_closed_or_more_than_its_bound(seed: int, size: int, owned: int) -> None:
    shop, look = any_look(seed, size, owned)
    for source, bound in BOUNDS.items():
        found = source(look)
        assert len(found) <= bound
        assert look.open[found].all()
    found = candidates(look)
    assert look.open[found.positions].all()
    assert (np.diff(found.positions) > 0).all()
    price = shop.shelf.comparables.unit_price
    better = found.replaces >= 0
    assert (price[found.positions[better]] > price[found.replaces[better]]).all()
    again = candidates(any_look(seed, size, owned)[1])
    for one, other in zip(found, again, strict=True):
        assert np.array_equal(one, other)


def any_look(seed: int, size: int, owned: int) -> tuple[Shop, Look]:
    """A shop and a customer drawn at random; prices of 0, no sizes and unknown products among them."""
    rng = np.random.default_rng(seed)
    products = [
        product(
            f"x{n}",
            category=f"c{rng.integers(1 + size // 8)}",
            price=float(rng.choice([0.0, 1.0, 1.5, 2.0, 9.0])),
            size=None if rng.random() < 0.3 else float(rng.choice([100.0, 150.0, 400.0])),
            brand=None if rng.random() < 0.5 else f"b{rng.integers(4)}",
        )
        for n in range(size)
    ]
    rows = [sold(f"x{n}", float(rng.random() * 90), float(rng.random() * 20)) for n in range(0, size, 2)]
    pairs = {
        f"x{rng.integers(2 * size)}": {f"x{rng.integers(2 * size)}": float(rng.random()) for _ in range(60)}
        for _ in range(size)
    }
    items = {
        f"x{rng.integers(2 * size)}": bought(
            float(rng.random() * 3), int(rng.integers(300)), float(rng.integers(60)), float(rng.random())
        )
        for _ in range(owned)
    }
    shop = Shop(products, rows, pairs)
    page, basket = f"x{rng.integers(2 * size)}", [f"x{rng.integers(2 * size)}" for _ in range(3)]
    closed = [f"x{n}" for n in range(size) if rng.random() < 0.2]
    return shop, shop.look(items, page, basket, closed)
