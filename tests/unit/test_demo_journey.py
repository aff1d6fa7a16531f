"""The demo's data, baselines and scores, on a few lines made by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from deploy.local.demo.baselines import HALF_LIFE, Baselines
from deploy.local.demo.data import (
    cut,
    first_scored_week,
    goods_only,
    readable,
    scored_households,
    slug,
    words,
)
from deploy.local.demo.scores import Scoreboard, score
from libs.common.clock import DAY
from libs.common.errors import Misconfigured

PRODUCTS = pd.DataFrame(
    [
        (1, "GROCERY", "SOUP", "CONDENSED SOUP"),
        (2, "GROCERY", "SOUP", "CONDENSED SOUP"),
        (3, "PRODUCE", "TROPICAL FRUIT", "BANANAS"),
        (4, "FUEL", "COUPON/MISC ITEMS", "GASOLINE-REG UNLEADED"),
        (5, "COUPON", "COUPONS/STORE & MFG", "COUPONS/STORE & MFG"),
        (6, "MISCELLANEOUS", None, None),
        (7, "GROCERY", "CRACKERS/MISC BKD FD", "SOUP CRACKERS"),
    ],
    columns=["product_id", "department", "product_category", "product_type"],
)


def transactions(*rows: tuple[int, int, int, int, float, int, str]) -> pd.DataFrame:
    columns = ["household_id", "basket_id", "product_id", "quantity", "sales_value", "week"]
    table = pd.DataFrame(rows, columns=[*columns, "transaction_timestamp"])
    table["transaction_timestamp"] = pd.to_datetime(table["transaction_timestamp"])
    return table


LINES = transactions(
    (10, 100, 1, 2, 3.0, 1, "2017-01-02 10:00"),
    (10, 100, 2, 1, 1.0, 1, "2017-01-02 10:00"),
    (10, 100, 3, 1, 0.5, 1, "2017-01-02 10:00"),
    (10, 100, 4, 9, 30.0, 1, "2017-01-02 10:00"),
    (11, 101, 5, 1, 1.0, 2, "2017-01-09 09:00"),
    (11, 102, 7, 1, 2.0, 2, "2017-01-09 08:00"),
    (11, 103, 3, 0, 0.0, 2, "2017-01-09 09:30"),
    (10, 104, 3, 4, 2.0, 4, "2017-01-23 09:30"),
)


def test_only_goods_are_kept() -> None:
    kept = goods_only(LINES, PRODUCTS)
    assert sorted(set(kept["product_id"])) == [1, 2, 3, 7]
    assert kept["quantity"].min() > 0


def test_baskets_are_in_time_order_at_product_type_level() -> None:
    journey = cut(goods_only(LINES, PRODUCTS), households=2, weeks=(1, 4), seed=1)
    assert [basket.order_id for basket in journey.baskets] == ["basket-100", "basket-102", "basket-104"]
    first = journey.baskets[0]
    assert dict(zip(first.products, zip(first.quantities, first.prices, strict=True), strict=True)) == {
        "soup-condensed-soup": (3, 1.33),
        "tropical-fruit-bananas": (1, 0.5),
    }
    assert [len(day) for day in journey.days] == [1]
    assert journey.scored == {"household-10"}


def test_catalogue_prices_are_means_of_what_was_paid() -> None:
    journey = cut(goods_only(LINES, PRODUCTS), households=2, weeks=(1, 4), seed=1)
    prices = {product["name"]: product["price"] for product in journey.products}
    assert prices == {
        "Condensed soup": 1.33,
        "Tropical fruit: bananas": 0.5,
        "Crackers misc baked fd: soup crackers": 2.0,
    }


def test_no_household_in_the_weeks_is_one_plain_line() -> None:
    with pytest.raises(Misconfigured, match="nothing to replay"):
        cut(goods_only(LINES, PRODUCTS), households=2, weeks=(30, 31), seed=1)


@pytest.mark.parametrize(("weeks", "first"), [((1, 52), 40), ((30, 45), 40), ((1, 8), 7), ((41, 52), 50)])
def test_scoring_begins_in_week_40_or_in_the_last_quarter(weeks: tuple[int, int], first: int) -> None:
    assert first_scored_week(*weeks) == first


@pytest.mark.parametrize(("weeks", "households"), [(13, 100), (52, 100), (5, 260), (1, 1_300)])
def test_of_fewer_weeks_more_households_are_scored(weeks: int, households: int) -> None:
    assert scored_households(weeks) == households


def test_names_are_readable_and_ids_fit_a_url() -> None:
    assert words("FRZN VEGETABLE/VEG DSH") == "Frozen vegetable vegetable dishes"
    assert readable("SOUP", "CONDENSED SOUP") == "Condensed soup"
    assert readable("CIGARETTES", "CIGARETTES") == "Cigarettes"
    assert slug("SOFT DRINKS SFT DRNK 2 LITER") == "soft-drinks-sft-drnk-2-liter"


def test_habit_decays_and_popularity_fills_and_breaks_ties() -> None:
    baselines = Baselines(["a", "b", "c", "d"], start=0)
    baselines.learn("other", 0, ["d"])
    baselines.learn("other", 0, ["c", "d"])
    baselines.learn("me", 0, ["a"])
    baselines.learn("me", HALF_LIFE - DAY, ["b"])
    assert baselines.habit("me", 4) == ["b", "a", "d", "c"]
    baselines.learn("me", 0, ["a"])
    assert baselines.habit("me", 2) == ["a", "b"]
    assert baselines.popular(2) == ["a", "d"]
    assert baselines.habit("stranger", 2) == baselines.popular(2)


def test_score_of_a_list() -> None:
    perfect = score(["a", "b", "x"], ["a", "b"])
    assert perfect == (1.0, 1.0, 1.0)
    late = score(["x", "a"], ["a", "b"])
    best = 1 + 1 / math.log2(3)
    assert late == (pytest.approx((1 / math.log2(3)) / best), 0.5, 1.0)
    assert score(["x"], ["a"]) == (0.0, 0.0, 0.0)


def test_only_the_first_ten_count() -> None:
    assert score([*"0123456789", "a"], ["a"]).hit == 0.0


def test_paired_interval_holds_the_mean_and_is_narrower_than_unpaired() -> None:
    board = Scoreboard()
    rng = np.random.default_rng(3)
    for number in range(300):
        hard = rng.random()
        board.add(
            f"h{number % 60}",
            40,
            {
                "one": score(["a"] if hard < 0.5 else ["x"], ["a"]),
                "two": score(["a"] if hard < 0.45 else ["x"], ["a"]),
            },
        )
    paired = board.interval("one", "ndcg", minus="two")
    alone = board.interval("one", "ndcg")
    assert paired.low <= paired.mean <= paired.high
    assert paired.high - paired.low < alone.high - alone.low
    assert paired.mean == pytest.approx(board.mean("one", "ndcg") - board.mean("two", "ndcg"))


def test_a_household_with_many_baskets_is_still_one_household() -> None:
    few, many = Scoreboard(), Scoreboard()
    for number in range(20):
        hit = score(["a"], ["a" if number % 2 else "b"])
        few.add(f"h{number}", 40, {"r": hit})
        for _ in range(50):
            many.add(f"h{number}", 40, {"r": hit})
    once, often = few.interval("r", "ndcg"), many.interval("r", "ndcg")
    assert (once.low, once.high) == pytest.approx((often.low, often.high), abs=0.05)
