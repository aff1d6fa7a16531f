"""Candidates' kinds: cross-sell, up-sell, repeat; what each is worth, and those nobody asked for."""

from __future__ import annotations

import numpy as np
import pytest

from libs.common.contracts.catalogue import Offer
from tests.unit.candidate_world import Market, bought, kinds_of, product


def test_kinds_follow_page_habit_and_price() -> None:
    market = Market(
        product("cheap", category="coffee", price=4.0),
        product("good", category="coffee", price=6.0),
        product("best", category="coffee", price=9.0),
        product("milk", category="dairy"),
        product("bread", category="bakery"),
    )
    pool = market.pool({"good": bought(), "milk": bought()})
    assert kinds_of(pool) == {
        "product:cheap": "cross_sell",
        "product:good": "repeat",
        "product:best": "up_sell",
        "product:milk": "repeat",
        "product:bread": "cross_sell",
    }
    pool = market.pool({"good": bought()}, page="cheap")
    assert kinds_of(pool)["product:good"] == "up_sell", "dearer than the page's, though he bought it"


def test_only_the_most_bought_of_comparable_products_is_the_usual_one() -> None:
    market = Market(
        product("cheap", category="coffee", price=4.0), product("good", category="coffee", price=6.0)
    )
    often, once = bought(9, 5.0), bought(1, 0.5)
    assert kinds_of(market.pool({"good": often, "cheap": once}))["product:good"] == "repeat"
    assert kinds_of(market.pool({"good": once, "cheap": often}))["product:good"] == "up_sell"


def test_up_sell_is_worth_the_difference_of_margins() -> None:
    market = Market(
        product("cheap", category="coffee", price=4.0, margin=1.0),
        product("best", category="coffee", price=9.0, margin=3.5),
    )
    pool = market.pool(page="cheap")
    assert pool.score.tolist() == pytest.approx([pool.mean[0] * 0.7 * (3.5 - 1.0) * 0.95])
    assert pool.chance.sum() == pytest.approx(1.0)


def test_missing_margin_counts_as_thirty_percent_and_cost_is_subtracted() -> None:
    market = Market(product("a", price=10.0), product("b", price=10.0, cost=4.0), product("free", price=0.0))
    assert market.assortment.margin.tolist() == [3.0, 6.0, 0.0]
    assert np.isfinite(market.pool().score).all()


def test_kinds_are_chosen_before_authored_offers_are_cut() -> None:
    market = Market(product("x"))
    for i in range(450):
        market.put("offer", f"a{i}", Offer(offer_id=f"a{i}", kind="content", value=9.0))
    market.put("offer", "help", Offer(offer_id="help", kind="service", value=1.0))
    pool = market.pool(kinds=["service"])
    assert pool.offer_ids == ["help"]
    assert pool.here.rejected["kind"] == 451


def test_slots_are_filled_with_popular_products_of_the_kinds_wanted() -> None:
    names = [f"x{i:03}" for i in range(300)]
    market = Market(*(product(name, category=f"c{i}") for i, name in enumerate(names)))
    market.learn({name: 0.9 / (i + 1) for i, name in enumerate(names)}, {})
    items = {name: bought() for name in names[:280]}
    pool = market.pool(items, kinds=["cross_sell"], limit=15)
    assert sorted(pool.product_ids) == names[280:295]  # type: ignore[type-var]
    assert set(kinds_of(pool).values()) == {"cross_sell"}
    assert len(market.pool(items, kinds=["cross_sell"]).product_ids) == 20, "there are no more"
    assert len(market.pool(items, kinds=["service"])) == 0


def test_kinds_that_were_not_asked_for_are_left_out_and_counted() -> None:
    market = Market(product("a"), product("b", category="other"))
    pool = market.pool({"a": bought()}, kinds=["repeat"])
    assert pool.product_ids == ["a"]
    assert pool.here.rejected["kind"] == 1


def test_prices_change_kinds_without_a_rebuild_of_everything_at_each_request() -> None:
    market = Market(product("a", price=4.0, category="c"), product("b", price=5.0, category="c"))
    assert kinds_of(market.pool(page="a")) == {"product:b": "up_sell"}
    shelf = market.tables.now().scoring.shelf
    market.put("product", "b", product("b", price=5.0, category="c", stock=7))
    assert market.tables.now().scoring.shelf is shelf
    market.put("product", "b", product("b", price=3.5, category="c"))
    assert kinds_of(market.pool(page="a")) == {"product:b": "cross_sell"}
