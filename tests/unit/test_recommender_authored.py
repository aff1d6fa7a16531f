"""Authored offers among candidates: what they need, make room for, and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from libs.common.contracts.catalogue import Offer, Withdrawn
from libs.common.contracts.learned_model import InterceptsPart
from libs.common.scoring.response import ResponseModel, intercepts_of
from libs.common.scoring.trial import offer_sketch
from services.recommender.model import authored
from tests.unit.candidate_world import NOW, Market, product


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
