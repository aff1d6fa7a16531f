"""Own orders that resemble the basket in hand: which days are kept, and what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import DAY, Millis
from libs.common.contracts.catalogue import Product
from libs.common.contracts.customer_model import MAX_DAYS, Item, Items
from libs.common.contracts.touchpoint import OrderLine
from libs.common.scoring.features import (
    FEATURES,
    Moment,
    Scene,
    ScoringTables,
    Shelf,
    candidate_features,
    scenes_of,
)
from libs.common.scoring.history import History, Traces
from libs.common.scoring.learned import LearnedModels
from libs.common.scoring.merge import merge_items
from libs.common.scoring.trips import DOUBT, FLOOR, Trips
from services.analyzer.model.items import bought, unbought, viewed

TODAY = 19_700
NAMES = ("milk", "rolls", "sausages", "mustard", "soap")


def ordered(*orders: tuple[int, str], items: Items | None = None) -> Items:
    """Items after orders of a day and its goods in one word each."""
    items = items or Items(customer="c")
    for day, goods in orders:
        items = bought(items, lines(goods), day * DAY + 9)
    return items


def lines(goods: str) -> list[OrderLine]:
    return [OrderLine(product_id=key, quantity=1.0) for key in goods.split()]


WEEKS = ordered(
    *((TODAY - 7 * n, "milk rolls") for n in range(6, 0, -1)),
    *((TODAY - 7 * n - 3, "charcoal sausages mustard") for n in range(3, 0, -1)),
)
"""Milk and rolls every week, and of late a barbecue between."""


def tables() -> ScoringTables:
    products = [
        Product(product_id=key, name=key, category="food", price=1.0, currency="EUR") for key in NAMES
    ]
    return ScoringTables.align(Shelf(products), LearnedModels())


def column(scene: Scene) -> list[float]:
    found = candidate_features(scene, np.arange(len(NAMES)))[:, FEATURES.index("trip")]
    return [float(number) for number in found]


def test_basket_brings_up_what_was_bought_with_the_like_of_it_and_puts_back_the_rest() -> None:
    # Charcoal is on the shelf no more, and still says which kind of day it is.
    milk, rolls, sausages, mustard, soap = column(
        Scene.of(tables(), WEEKS.items, TODAY * DAY, basket=["charcoal"])
    )
    assert sausages == mustard > 0.5
    assert milk == rolls < -0.5
    assert soap == 0.0
    weekly = column(Scene.of(tables(), WEEKS.items, TODAY * DAY, basket=["milk"]))
    assert weekly[1] > 0.2
    assert weekly[2] < -0.5


def test_without_a_basket_or_with_one_that_is_new_to_him_nothing_is_said() -> None:
    for basket in ([], ["soap"], ["unheard of"]):
        assert column(Scene.of(tables(), WEEKS.items, TODAY * DAY, basket=basket)) == [0.0] * 5
    assert column(Scene.of(tables(), {}, TODAY * DAY, basket=["milk"])) == [0.0] * 5
    looked = viewed(Items(customer="c"), "milk", TODAY * DAY)
    assert column(Scene.of(tables(), looked.items, TODAY * DAY, basket=["milk"])) == [0.0] * 5


def test_fit_is_the_log_of_shares_of_days_weighed_by_likeness_and_age() -> None:
    items = ordered((TODAY - 120, "a b"), (TODAY, "a c d")).items
    # Days count 1 and 1/2; in hand are b and c: cosines of 1/√(2·2) and 1/√(3·2).
    old, new = 0.5 * 0.5, 6**-0.5
    usual = np.array([1.0, 1 / 3, 2 / 3, 2 / 3])
    among = (np.array([old + new, old, new, new]) + DOUBT * usual) / (old + new + DOUBT)
    expected = np.log((among + FLOOR) / (usual + FLOOR))
    assert Trips.of(items).fits(["b", "c", "b"]) == pytest.approx(expected)


def test_scenes_of_several_customers_are_those_of_each_alone() -> None:
    known, other = tables(), ordered((TODAY, "milk soap"), (TODAY - 1, "rolls soap")).items
    asked = [
        Moment(History.of(known, Traces.of(known, items), TODAY * DAY), None, basket, "web")
        for items in (WEEKS.items, other, {})
        for basket in ((), ("milk",), ("sausages", "soap"))
    ]
    alone = [scenes_of(known, [one])[0] for one in asked]
    assert any(scene.trip.any() for scene in alone)
    for one, together in zip(alone, scenes_of(known, asked), strict=True):
        assert one.trip.tobytes() == together.trip.tobytes()


days = st.lists(st.tuples(st.integers(-(10**6), 10**6), st.sampled_from(["a", "b", "a b", "b c", "d"])))


@given(days, st.lists(st.sampled_from("abcde")))
def test_fits_are_finite_and_bounded(orders: list[tuple[int, str]], basket: list[str]) -> None:
    fits = Trips.of(ordered(*orders).items).fits(basket)
    assert fits is None or bool(np.all(np.abs(fits) <= np.log(1.0 + 1.0 / FLOOR) + 1e-9))


def test_item_keeps_the_latest_days_each_once_in_whatever_order_they_are_told() -> None:
    told = [TODAY - n for n in range(MAX_DAYS + 4)]
    ascending = ordered(*((day, "milk") for day in [*told, *told]))
    descending = ordered(*((day, "milk milk") for day in reversed(told)))
    for items in (ascending, descending):
        assert items.items["milk"].days == tuple(sorted(told)[-MAX_DAYS:])


def test_what_comes_back_takes_its_latest_day_along_and_a_look_none() -> None:
    items = ordered((TODAY - 7, "milk rolls"), (TODAY, "milk rolls"))
    after, _ = unbought(viewed(items, "milk", (TODAY + 1) * DAY), lines("milk"))
    assert after.items["milk"].days == (TODAY - 7,)
    assert after.items["rolls"].days == (TODAY - 7, TODAY)


def test_a_day_stays_while_another_order_of_it_may_stand() -> None:
    reordered, _ = unbought(ordered((TODAY, "milk"), (TODAY, "milk")), lines("milk"))
    assert reordered.items["milk"].days == (TODAY,)
    twice, _ = unbought(ordered((TODAY - 7, "milk"), (TODAY, "milk"), (TODAY, "milk")), lines("milk"))
    assert twice.items["milk"].days == (TODAY - 7, TODAY)
    often = ordered(*((TODAY - day, "milk") for day in range(MAX_DAYS + 1)))
    fewer, _ = unbought(often, lines("milk"))
    assert fewer.items["milk"].days[-1] == TODAY - 1


@given(days)
def test_days_of_linked_keys_are_those_of_one(orders: list[tuple[int, str]]) -> None:
    parts = [ordered(*orders[0::2]), ordered(*orders[1::2], items=Items(customer="anon:x"))]
    whole = ordered(*orders).items
    merged = merge_items(parts).items
    assert {key: item.days for key, item in merged.items()} == {key: one.days for key, one in whole.items()}


def test_item_of_before_days_were_kept_is_read() -> None:
    old: Millis = TODAY * DAY
    items = {"milk": Item(orders=3, last_bought_at=old), **ordered((TODAY, "rolls soap")).items}
    found = column(Scene.of(tables(), items, old, basket=["rolls"]))
    assert found[0] == 0.0
