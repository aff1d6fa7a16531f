"""Candidates: masks, sources, kinds, tiers, availability, authored offers, reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from libs.common.clock import DAY
from libs.common.contracts.catalogue import KINDS, Offer, Placement, Product, Withdrawn
from libs.common.contracts.customer_model import Decayed, Item
from libs.common.contracts.learned_model import InterceptsPart, Neighbour, Popular
from libs.common.scoring.choice import FEATURES
from libs.common.scoring.learned import LearnedModels, complements_of, popularity_of
from libs.common.scoring.response import ResponseModel, intercepts_of
from libs.common.scoring.sources.look import top_of
from libs.common.scoring.sources.union import CODES, SOURCES
from libs.common.scoring.trial import offer_sketch
from services.recommender.candidates import places
from services.recommender.candidates.explain import OWN, explainers
from services.recommender.candidates.gather import Where, gather
from services.recommender.candidates.places import MOST
from services.recommender.candidates.pool import Pool
from services.recommender.model import authored
from services.recommender.model.assortment import Assortment
from services.recommender.model.situation import situation
from services.recommender.model.steps import side_by_side
from services.recommender.model.tables import TableMaker

NOW = 1_800_000_000_000


def product(product_id: str, **more: Any) -> Product:
    fields: dict[str, Any] = {"name": product_id.title(), "category": "food", "price": 2.0, "currency": "EUR"}
    return Product(product_id=product_id, **(fields | more))


def bought(times: int = 3, weight: float = 2.0) -> Item:
    return Item(
        orders=times, bought=Decayed(weight, NOW - DAY), last_bought_at=NOW - DAY, cycle=14.0 * DAY, price=2.0
    )


class Market:
    """A catalogue with learned models, asked for candidates."""

    def __init__(self, *products: Product) -> None:
        self.assortment = Assortment()
        self.learned = LearnedModels()
        self.revision = 0
        for one in products:
            self.put("product", one.product_id, one)
        self.tables = TableMaker(self.assortment, lambda: self.learned, lambda: 0.0)

    def put(self, kind: str, entry_id: str, entry: Product | Offer | Placement | Withdrawn) -> None:
        self.revision += 1
        self.assortment.put(kind, entry_id, entry, self.revision)

    def learn(self, popular: dict[str, float], pairs: dict[str, dict[str, float]]) -> None:
        self.learned = LearnedModels(
            version=self.learned.version + 1,
            popularity=popularity_of(Popular(p, 100 * share, share, 10) for p, share in popular.items()),
            complements=complements_of(
                {
                    p: [Neighbour(q, weight, 100 * weight, 2.0) for q, weight in others.items()]
                    for p, others in pairs.items()
                }
            ),
        )

    def pool(
        self,
        items: dict[str, Item] | None = None,
        *,
        page: str | None = None,
        basket: Sequence[str] = (),
        exclude: Sequence[str] = (),
        kinds: Sequence[str] | None = None,
        limit: int = MOST,
        also: Sequence[str] = (),
        now: int = NOW,
        placement: Placement | None = None,
    ) -> Pool:
        tables = self.tables.now()
        here = situation(self.assortment, tables.scoring, items or {}, now, page, basket, exclude)
        place = placement or Placement(placement_id="p")
        [pool] = side_by_side([gather(here, tables, Where(place, "web", {}, limit, kinds, also))])
        assert isinstance(pool, Pool)
        return pool


def kinds_of(pool: Pool) -> dict[str, str]:
    return {offer: KINDS[kind] for offer, kind in zip(pool.offer_ids, pool.kinds.tolist(), strict=True)}


def source_of(pool: Pool, offer_id: str) -> str:
    return SOURCES[pool.sources[pool.offer_ids.index(offer_id)]]


def explained(pool: Pool, at: int) -> list[str]:
    [one] = pool.chosen([at])
    [explainer] = explainers([(pool, [one])])
    return explainer.reasons(one)


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


def test_acceptance_orders_by_choice_before_anything_was_learned_of_trials() -> None:
    market = Market(*(product(f"x{i}", category=f"c{i % 7}", price=1.0 + i) for i in range(80)))
    market.learn({f"x{i}": 0.3 / (i + 1) for i in range(60)}, {"x1": {"x70": 0.4, "x71": 0.1}})
    placement = Placement(placement_id="p", objective="acceptance")
    pool = market.pool({"x9": bought(), "x33": bought(1, 0.4)}, basket=["x1"], placement=placement)
    assert [pool.offer_ids[at] for at in (-pool.by).argsort(kind="stable")[:20]] == [
        pool.offer_ids[at] for at in (-pool.chance).argsort(kind="stable")[:20]
    ]


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


def test_authored_offers_of_a_baseline_go_on_whatever_they_are_worth() -> None:
    market = Market(product("x"))
    for i in range(500):
        name = f"a{i:03}"
        market.put("offer", name, Offer(offer_id=name, kind="content", value=float(i)))
    market.put("offer", "over", Offer(offer_id="over", kind="content", available_until="2020-01-01"))
    named = ["over", "a000", "unknown", "product:x"]
    assert "a000" not in market.pool().offer_ids
    pool = market.pool(also=named)
    assert {"a000", "product:x"} <= set(pool.offer_ids)
    assert not {"over", "unknown"} & set(pool.offer_ids)


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


def test_popular_products_come_first_and_fill_up_where_nothing_is_known() -> None:
    market = Market(*(product(f"x{i}") for i in range(5)))
    market.learn({"x3": 0.5, "x1": 0.2}, {})
    pool = market.pool()
    best = np.argsort(-pool.chance, kind="stable")
    assert [pool.product_ids[at] for at in best[:2]] == ["x3", "x1"]
    assert len(pool) == 5
    top = int(best[0])
    assert explained(pool, top) == ["Popular right now"]


def test_kinds_that_were_not_asked_for_are_left_out_and_counted() -> None:
    market = Market(product("a"), product("b", category="other"))
    pool = market.pool({"a": bought()}, kinds=["repeat"])
    assert pool.product_ids == ["a"]
    assert pool.here.rejected["kind"] == 1


def test_authored_offers_need_their_product_and_content_needs_none() -> None:
    market = Market(product("a", margin=1.0), product("gone"))
    market.put("product", "gone", Withdrawn(at=NOW))
    market.put(
        "offer", "deal", Offer(offer_id="deal", kind="cross_sell", product_id="a", value=5.0, cost=1.0)
    )
    market.put("offer", "orphan", Offer(offer_id="orphan", kind="cross_sell", product_id="missing"))
    market.put("offer", "dead", Offer(offer_id="dead", kind="cross_sell", product_id="gone"))
    market.put("offer", "read", Offer(offer_id="read", kind="content", content={"title": "x"}, value=1.0))
    market.put(
        "offer", "past", Offer(offer_id="past", kind="content", content={}, available_until="2020-01-01")
    )
    pool = market.pool()
    assert sorted(pool.offer_ids) == ["deal", "product:a", "read"]
    deal = pool.offer_ids.index("deal")
    assert pool.score[deal] == pytest.approx(pool.mean[deal] * 0.5 * 4.0 * 0.95)
    read = pool.offer_ids.index("read")
    assert pool.product_ids[read] is None
    assert pool.score[read] == pytest.approx(pool.mean[read] * pool.worth.caused[read] * 1.0), (
        "nothing to return"
    )
    assert sorted(market.pool(page="a").offer_ids) == ["read"], "an offer goes with its product"


def test_authored_offers_that_nobody_takes_make_room_for_others() -> None:
    market = Market(*(product(f"x{i}", category=f"c{i}") for i in range(150)))
    names = [f"a{i:02}" for i in range(60)]
    for name in names:
        market.put("offer", name, Offer(offer_id=name, kind="content", content={"title": name}, value=0.1))
    before = {offer for offer in market.pool().offer_ids if offer in names}
    assert 0 < len(before) < len(names)
    poor = InterceptsPart(
        version=1, part=0, offers=sorted(before), cells=[], numbers=np.tile([-3.0, 0.1], (len(before), 3))
        .astype("<f4").tobytes(),
    )  # fmt: skip
    heads = ResponseModel().heads
    market.learned = replace(
        market.learned, version=2, response=ResponseModel(2, heads, intercepts_of([poor], heads))
    )
    after = {offer for offer in market.pool().offer_ids if offer in names}
    assert after
    assert not after & before


def test_content_is_offered_from_an_empty_catalogue() -> None:
    market = Market()
    assert len(market.pool()) == 0
    market.put("offer", "read", Offer(offer_id="read", kind="content", content={"title": "x"}))
    assert market.pool().offer_ids == ["read"]


def test_catalogue_of_one_product_on_its_own_page_offers_nothing() -> None:
    assert len(Market(product("a")).pool(page="a")) == 0


def test_prices_change_kinds_without_a_rebuild_of_everything_at_each_request() -> None:
    market = Market(product("a", price=4.0, category="c"), product("b", price=5.0, category="c"))
    assert kinds_of(market.pool(page="a")) == {"product:b": "up_sell"}
    shelf = market.tables.now().scoring.shelf
    market.put("product", "b", product("b", price=5.0, category="c", stock=7))
    assert market.tables.now().scoring.shelf is shelf
    market.put("product", "b", product("b", price=3.5, category="c"))
    assert kinds_of(market.pool(page="a")) == {"product:b": "cross_sell"}


def test_top_keeps_ties_in_their_order() -> None:
    scores = np.ones(1000)
    assert top_of(np.arange(1000), scores, 3).tolist() == [0, 1, 2]
    scores[[7, 900]] = 2.0
    assert top_of(np.arange(1000), scores, 3).tolist() == [7, 900, 0]


def test_only_offers_that_changed_or_whose_product_did_are_sketched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sketched: list[Mapping[str, Any]] = []

    def counted(attributes: Mapping[str, Any]) -> Any:
        sketched.append(attributes)
        return offer_sketch(attributes)

    monkeypatch.setattr(authored, "offer_sketch", counted)
    market = Market(product("coffee", attributes={"roast": "dark"}), product("tea"))

    def offer(offer_id: str, product_id: str | None = None, **content: Any) -> None:
        value = {"a": 3.0, "b": 2.0, "c": 1.0}[offer_id]
        one = Offer(offer_id=offer_id, kind="content", product_id=product_id, value=value, content=content)
        market.put("offer", offer_id, one)

    def sketches() -> list[list[float]]:
        return market.tables.now().authored.sketch.tolist()

    offer("a", "coffee", colour="red")
    offer("b", colour="blue")
    before = sketches()
    assert len(sketched) == 2
    offer("c", colour="green")
    assert sketches()[:2] == before
    assert len(sketched) == 3
    market.put("product", "tea", product("tea", price=9.0))
    assert sketches()[:2] == before
    assert len(sketched) == 3
    market.put("product", "coffee", product("coffee", attributes={"roast": "mild"}))
    assert (sketches()[0] == before[0], sketches()[1] == before[1]) == (False, True)
    assert sketched[3:] == [{"roast": "mild", "colour": "red"}]
    market.put("offer", "a", Withdrawn(at=NOW))
    offer("b", colour="black")
    assert len(sketches()) == 2
    assert sketched[4:] == [{"colour": "black"}]
