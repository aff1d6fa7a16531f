"""Candidates: what is masked, their sources, the reasons given for them."""

from __future__ import annotations

import numpy as np
import pytest

from libs.common.clock import DAY
from libs.common.contracts.catalogue import Offer, Placement, Withdrawn
from libs.common.contracts.learned_model import Popular
from libs.common.scoring.choice import FEATURES
from libs.common.scoring.learned import LearnedModels, popularity_of
from services.recommender.candidates.explain import OWN, explainers
from tests.unit.candidate_world import NOW, Market, bought, explained, product, source_of


def test_page_basket_excluded_and_unavailable_are_masked_before_candidates_are_chosen() -> None:
    market = Market(
        product("page"),
        product("inbasket"),
        product("excluded"),
        product("soldout", stock=0),
        product("later", available_from="2027-02-01"),
        product("over", available_until="2026-12-01T00:00:00Z"),
        product("good", stock=3, available_from="2020-01-01", available_until="2030-01-01"),
    )
    pool = market.pool(page="page", basket=["inbasket", "unknown"], exclude=["excluded"], now=NOW)
    assert pool.offer_ids == ["product:good"]
    assert pool.here.rejected == {"page_or_basket": 2, "excluded": 1, "unavailable": 3}


def test_availability_follows_the_moment_decided_for() -> None:
    market = Market(
        product("spring", available_from="2027-02-01", available_until="2027-05-01"), product("a")
    )
    assert market.pool(now=NOW).product_ids == ["a"]
    assert market.pool(now=NOW + 30 * DAY).product_ids == ["spring", "a"]
    assert market.pool(now=NOW + 200 * DAY).product_ids == ["a"]
    assert market.pool(now=NOW + 30 * DAY).product_ids == ["spring", "a"]


def test_stock_and_withdrawal_count_at_once() -> None:
    market = Market(product("a", stock=1), product("b"))
    assert market.pool().product_ids == ["a", "b"]
    market.put("product", "a", product("a", stock=0))
    assert market.pool().product_ids == ["b"]
    market.put("product", "b", Withdrawn(at=NOW))
    assert market.pool().product_ids == []


def test_older_revision_does_not_come_back() -> None:
    market = Market(product("a", price=3.0))
    market.assortment.put("product", "a", product("a", price=9.0), 0)
    assert market.assortment.price.tolist() == [3.0]


def test_acceptance_orders_by_choice_before_anything_was_learned_of_trials() -> None:
    market = Market(*(product(f"x{i}", category=f"c{i % 7}", price=1.0 + i) for i in range(80)))
    market.learn({f"x{i}": 0.3 / (i + 1) for i in range(60)}, {"x1": {"x70": 0.4, "x71": 0.1}})
    placement = Placement(placement_id="p", objective="acceptance")
    pool = market.pool({"x9": bought(), "x33": bought(1, 0.4)}, basket=["x1"], placement=placement)
    assert [pool.offer_ids[at] for at in (-pool.by).argsort(kind="stable")[:20]] == [
        pool.offer_ids[at] for at in (-pool.chance).argsort(kind="stable")[:20]
    ]


def test_complements_of_page_basket_and_history_are_found_and_named() -> None:
    market = Market(*(product(f"x{i}", category=f"c{i}") for i in range(90)))
    market.learn(
        {f"x{i}": 0.5 for i in range(40)},
        {"x1": {"x80": 0.4}, "x2": {"x81": 0.34}, "x3": {"x82": 0.2}},
    )
    pool = market.pool({"x3": bought()}, page="x1", basket=["x2"])
    assert source_of(pool, "product:x80") == "page"
    assert source_of(pool, "product:x81") == "basket"
    assert source_of(pool, "product:x82") == "history"
    assert source_of(pool, "product:x3") == "repeat"
    chosen = [pool.offer_ids.index(f"product:{p}") for p in ("x80", "x81", "x82", "x3")]
    [explainer] = explainers([(pool, pool.chosen(chosen))])
    assert [explainer.reasons(one)[0] for one in pool.chosen(chosen)] == [
        "Goes with X1: in 40 of 100 such baskets",
        "Goes with the X2 in your basket: in 34 of 100 such baskets",
        "Goes with the X3 you bought: in 20 of 100 baskets with it",
        "You usually buy this every 14 days",
    ]


def test_upgrades_are_found_and_explained() -> None:
    market = Market(
        product("cheap", category="coffee", price=4.0), product("best", category="coffee", price=9.0)
    )
    pool = market.pool({"cheap": bought()})
    at = pool.offer_ids.index("product:best")
    assert source_of(pool, "product:best") == "upgrade"
    assert explained(pool, at) == ["A better one than Cheap"]


def test_reasons_are_the_two_that_speak_most_for_a_choice_the_strongest_first() -> None:
    market = Market(*(product(f"x{i}", category=f"c{i}") for i in range(9)))
    market.learn({f"x{i}": 0.2 for i in range(9)}, {"x1": {"x3": 0.02}, "x2": {"x3": 0.6}})
    pool = market.pool({"x3": bought(9, 8.0), "x4": bought()}, page="x1", basket=["x2"])
    at = pool.offer_ids.index("product:x3")
    assert explained(pool, at) == [
        "You usually buy this every 14 days",
        "Goes with the X2 in your basket: in 60 of 100 such baskets",
    ]
    said = dict(zip(FEATURES, pool.contributions[at].tolist(), strict=True))
    assert sum(said[name] for name in OWN) > said["basket"] > said["page"] > 0.0
    scores = pool.here.tables.learned.choice.utilities(pool.features)
    assert pool.contributions.sum(axis=1) == pytest.approx(scores - scores.mean())


def test_every_source_has_words_of_its_own() -> None:
    names = [f"x{i}" for i in range(30)]
    market = Market(
        *(product(name, category="Food/Tea" if name == "x29" else f"c{name}") for name in names),
        product("page", category="Food/Tea"),
        product("late", category="late", available_from="2026-12-01"),
        product("rare", category="rare"),
    )
    rows = [Popular(name, 50.0, 0.05, 99, 40.0 if name == "x7" else 2.0) for name in names]
    market.learned = LearnedModels(version=1, popularity=popularity_of(rows))
    market.put("offer", "deal", Offer(offer_id="deal", kind="cross_sell", product_id="x5"))
    market.put("offer", "said", Offer(offer_id="said", kind="content", content={"reason": " Because. "}))
    market.put("offer", "help", Offer(offer_id="help", kind="service"))
    pool = market.pool(page="page")
    told = {offer: explained(pool, at) for at, offer in enumerate(pool.offer_ids)}
    assert told["product:x7"] == ["Bought more than usual these days"]
    assert told["product:x29"] == ["Popular in Tea"]
    assert told["product:late"] == ["New in our range"]
    assert told["product:rare"] == ["Not many know this yet"]
    assert told["deal"] == ["Selected by our team"]
    assert told["said"] == ["Because."]
    assert told["help"] == ["A service for what you have"]
    assert all(1 <= len(words) <= 2 for words in told.values())


def test_popular_products_come_first_and_fill_up_where_nothing_is_known() -> None:
    market = Market(*(product(f"x{i}") for i in range(5)))
    market.learn({"x3": 0.5, "x1": 0.2}, {})
    pool = market.pool()
    best = np.argsort(-pool.chance, kind="stable")
    assert [pool.product_ids[at] for at in best[:2]] == ["x3", "x1"]
    assert len(pool) == 5
    top = int(best[0])
    assert explained(pool, top) == ["Popular right now"]


def test_catalogue_of_one_product_on_its_own_page_offers_nothing() -> None:
    assert len(Market(product("a")).pool(page="a")) == 0
