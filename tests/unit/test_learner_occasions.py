"""Hour, channel and size of an order: what is bought more than usual then, and what a ranking makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec import convert
from msgspec.structs import replace

from libs.common.bus.ports import Message
from libs.common.clock import DAY, HOUR, Millis
from libs.common.contracts.catalogue import Product, encode_entry, entry_key
from libs.common.contracts.customer_model import Items
from libs.common.contracts.learned_model import MANIFEST_KEY, OCCASIONS, OccasionsPart
from libs.common.contracts.topics import CATALOGUE
from libs.common.scoring.choice import FEATURES
from libs.common.scoring.features import Scene, ScoringTables, Shelf, candidate_features
from libs.common.scoring.learned import LearnedAssembler, LearnedModels
from libs.common.scoring.occasions import GIVEN, HOURS, MOST_FIT, SIZES, hour_at, occasions_of, size_at
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.fold import Fold, Place
from services.analyzer.learner.occasions import DOUBT, MOST_CHANNELS, OccasionCounts
from services.analyzer.learner.parts import Publications, Solved, content_of
from services.analyzer.model.lessons import LessonLine, OrderLesson

T0 = 1_700_006_400_000 // DAY * DAY
"""Midnight."""
HALF_LIFE = 180 * DAY


def goods(*names: str) -> list[Product]:
    """Products ``category-number``."""
    return [
        convert(
            {
                "product_id": name,
                "name": name,
                "category": name.split("-")[0],
                "price": 1.0,
                "currency": "EUR",
            },
            Product,
        )
        for name in names
    ]


def order(at: Millis, *bought: str, channel: str = "web", n: int = 0) -> OrderLesson:
    return OrderLesson(
        customer=f"c{n}",
        at=at,
        occurred_at=at,
        order_id=f"o{n}",
        lines=[LessonLine(name, 1.0, 1.0) for name in bought],
        channel=channel,
        before=Items(customer=f"c{n}"),
    )


def fit_of(counts: OccasionCounts, category: str, column: int) -> float:
    known = occasions_of(counts.told())
    return float(known.fits[known.categories[category], column])


def test_an_order_counts_for_the_two_times_of_the_day_it_lies_between() -> None:
    assert hour_at(T0) == (0, 1, 0.0)
    assert hour_at(T0 + 7 * HOUR + HOUR // 2) == (2, 3, 0.5)
    # The day closes: half past ten at night is as near to midnight as half past one.
    assert hour_at(T0 + 22 * HOUR + HOUR // 2) == (7, 0, 0.5)


def test_fit_is_the_shrunken_log_of_how_much_more_than_usual() -> None:
    counts, shelf = OccasionCounts(HALF_LIFE), Shelf(goods("rolls-1", "rolls-2", "beer-1"))
    for n in range(100):
        # Twice of the same category is once.
        bought = ("rolls-1", "rolls-2") if n % 2 else ("beer-1", "unheard of")
        counts.learn_one(order(T0 + (9 if n % 2 else 21) * HOUR, *bought), shelf)
    assert fit_of(counts, "rolls", 3) == pytest.approx(np.log((50 + DOUBT) / (25 + DOUBT)), abs=0.01)
    assert fit_of(counts, "rolls", 7) == pytest.approx(np.log(DOUBT / (25 + DOUBT)), abs=0.01)
    assert fit_of(counts, "beer", 0) == 0.0
    # Nothing is special about the only channel.
    assert fit_of(counts, "beer", HOURS) == pytest.approx(0.0)


def test_hour_and_channel_of_a_scene_are_columns_and_unknown_ones_say_nothing() -> None:
    fits = np.zeros((2, HOURS + 1), dtype="<f4")
    fits[0, 3], fits[0, 4], fits[1, HOURS] = 1.0, 0.5, -1.0
    part = OccasionsPart(
        version=1, part=0, channels=["phone"], categories=["rolls", "beer"], fits=fits.tobytes()
    )
    learned = LearnedModels(occasions=occasions_of([part]))
    tables = ScoringTables.align(Shelf(goods("new-1", "beer-1", "rolls-1")), learned)

    def columns(at: Millis, channel: str) -> list[list[float]]:
        x = candidate_features(Scene.of(tables, {}, at, channel=channel), np.arange(3))
        return [x[:, FEATURES.index(name)].tolist() for name in ("hour_fit", "channel_fit")]

    assert columns(T0 + 9 * HOUR, "phone") == [[0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]
    assert columns(T0 + 10 * HOUR + HOUR // 2, "web") == [[0.0, 0.0, 0.75], [0.0, 0.0, 0.0]]
    assert columns(T0, "") == [[0.0] * 3, [0.0] * 3]


def test_an_order_counts_for_the_two_sizes_it_lies_between() -> None:
    assert [size_at(products) for products in (0, 1, 2, 64)] == [(0, 1, 0), (0, 1, 0), (1, 2, 0), (6, 7, 0)]
    below, above, part = size_at(6)
    assert (below, above) == (2, 3)
    assert part == pytest.approx(np.log2(1.5))
    assert size_at(128) == size_at(10**9) == (6, 7, 1.0)


def test_size_tells_what_is_bought_in_small_orders_and_what_in_large_ones() -> None:
    counts, shelf = OccasionCounts(HALF_LIFE), Shelf(goods("beer-1", "milk-1", "rolls-1", "soap-1"))
    for n in range(200):
        # What the shelf has not makes an order larger all the same.
        bought = ("milk-1", "rolls-1", "soap-1", "unheard of") if n % 2 else ("beer-1", "beer-1")
        counts.learn_one(order(T0, *bought), shelf)
    small, large = -SIZES, -SIZES + 2
    assert fit_of(counts, "beer", small) == pytest.approx(np.log((100 + DOUBT) / (50 + DOUBT)), abs=0.01)
    assert fit_of(counts, "beer", large) == pytest.approx(np.log(DOUBT / (50 + DOUBT)), abs=0.01)
    assert fit_of(counts, "soap", large) == fit_of(counts, "milk", large) > 0.5

    tables = ScoringTables.align(shelf, LearnedModels(occasions=occasions_of(counts.told())))

    def column(*basket: str) -> list[float]:
        x = candidate_features(Scene.of(tables, {}, T0, basket=basket), np.arange(4))
        return [float(number) for number in x[:, FEATURES.index("size_fit")]]

    assert GIVEN == 0.5
    # Two in hand, of what is taken to be four; said twice is once.
    assert column("milk-1", "unheard of", "milk-1") == [
        fit_of(counts, name, large) for name in ("beer", "milk", "rolls", "soap")
    ]
    assert column() == [0.0] * 4


def test_part_of_before_sizes_were_counted_says_what_it_said() -> None:
    fits = np.ones((1, HOURS), dtype="<f4").tobytes()
    old = OccasionsPart(version=1, part=0, channels=[], categories=["beer"], fits=fits)
    new = replace(old, part=1, categories=["milk"], sizes=np.ones((1, SIZES), dtype="<f4").tobytes())
    assert occasions_of([old, new]).fits.tolist() == [[1.0] * HOURS + [0.0] * SIZES, [1.0] * (HOURS + SIZES)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_published_fit_that_is_no_number_or_huge_stays_within_bounds(bad: float) -> None:
    fits, sizes = (np.full((1, columns), bad, dtype="<f4").tobytes() for columns in (HOURS, SIZES))
    part = OccasionsPart(version=1, part=0, channels=[], categories=["beer"], fits=fits, sizes=sizes)
    found = occasions_of([part]).fits
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= MOST_FIT


def test_part_of_other_columns_says_nothing_and_spoils_no_other() -> None:
    good = OccasionsPart(version=1, part=0, channels=[], categories=["beer"], fits=bytes(4 * HOURS))
    short, other = replace(good, part=1, fits=b"1234"), replace(good, part=2, channels=["web"])
    assert list(occasions_of([good, short, other]).categories) == ["beer"]


def test_channels_are_bounded_and_the_least_used_makes_room() -> None:
    counts, shelf = OccasionCounts(HALF_LIFE), Shelf(goods("beer-1"))
    for channel in range(MOST_CHANNELS):
        for _ in range(1 + (channel != 5)):
            counts.learn_one(order(T0, "beer-1", channel=f"c{channel}"), shelf)
    counts.learn_one(order(T0, "beer-1", channel="x" * 65), shelf)
    counts.learn_one(order(T0, "beer-1", channel=""), shelf)
    assert counts.channels == [f"c{channel}" for channel in range(MOST_CHANNELS)]
    counts.learn_one(order(T0, "beer-1", channel="new"), shelf)
    assert counts.channels[5] == "new"
    assert counts.orders[HOURS + 5] == 1.0


def test_what_was_long_ago_counts_less_and_a_century_later_nothing_overflows() -> None:
    counts, shelf = OccasionCounts(HALF_LIFE), Shelf(goods("beer-1", "rolls-1"))
    for _ in range(40):
        counts.learn_one(order(T0, "beer-1"), shelf)
    for _ in range(20):
        counts.learn_one(order(T0 + HALF_LIFE, "rolls-1"), shelf)
    scale = 1.0 / counts.decay.weight(counts.last)
    assert counts.orders[0] * scale == pytest.approx(40.0)
    for years in (100, 300):
        at = T0 + years * 365 * DAY
        counts.learn_one(replace(order(at, "beer-1"), occurred_at=T0), shelf)
        counts.learn_one(order(at, "rolls-1"), shelf)
    assert np.isfinite(occasions_of(counts.told()).fits).all()
    assert fit_of(counts, "rolls", 0) == pytest.approx(0.0, abs=0.01)


def test_state_goes_on_to_the_bit_and_with_another_shelf() -> None:
    counts, restored = OccasionCounts(HALF_LIFE), OccasionCounts(HALF_LIFE)
    shelf, other = Shelf(goods("beer-1", "rolls-1", "milk-1")), Shelf(goods("milk-1", "tea-1", "beer-2"))
    for n in range(30):
        bought = ("beer-1", "rolls-1", "milk-1")[n % 3]
        counts.learn_one(order(T0 + n * 7 * HOUR, bought, channel=f"c{n % 4}"), shelf)
    restored.restore(counts.state())
    for one in (counts, restored):
        one.learn_one(order(T0 + 9 * DAY, "tea-1"), other)
    assert restored.state() == counts.state()
    assert restored.told() == counts.told()
    assert sorted(occasions_of(counts.told()).categories) == ["beer", "milk", "tea"]


CATEGORIES = ("rolls", "beer", "milk", "soap", "fruit", "parts")
SHELF = goods(*(f"{category}-{n}" for category in CATEGORIES for n in range(6)))


def stocked() -> Catalogue:
    catalogue = Catalogue()
    entries = [(entry_key("product", one.product_id), encode_entry(one)) for one in SHELF]
    catalogue.on_batch([Message(CATALOGUE, 0, 0, key, value, (), 0) for key, value in entries])
    return catalogue


def bought_at(hour: int, channel: str, random: np.random.Generator) -> list[str]:
    """Rolls in the morning, beer in the evening, parts by phone; the rest at any time."""
    pull = dict.fromkeys(CATEGORIES, 1.0)
    pull["rolls"], pull["beer"] = (8.0, 0.2) if hour < 12 else (0.2, 8.0)
    pull["parts"] = 30.0 if channel == "phone" else 0.2
    odds = np.array([pull[product.category] for product in SHELF])
    chosen = random.choice(len(SHELF), size=3, replace=False, p=odds / odds.sum())
    return [SHELF[place].product_id for place in chosen]


def learned_shop(orders: int = 900) -> Fold:
    """Customers who come once each, so that only the occasion tells what they want."""
    random, fold = np.random.default_rng(5), Fold(catalogue=stocked())
    for n in range(orders):
        hour, channel = (8, 20)[int(random.integers(2))], ("web", "phone")[int(random.random() < 0.3)]
        at = T0 + (n // 10) * DAY + hour * HOUR + n % 10
        lesson = order(at, *bought_at(hour, channel, random), channel=channel, n=n)
        fold.settle(at)
        fold.learn_one(Place(n, 0, n), lesson)
    return fold


def published(fold: Fold) -> LearnedModels:
    assembler = LearnedAssembler()
    records, manifest = Publications().records(content_of(fold, fold.goods.last_at, Solved()), 1)
    for key, value, _ in records:
        assembler.put(key, value)
    assert assembler.put(MANIFEST_KEY, manifest)
    assert any(key.startswith(OCCASIONS.encode()) for key, _, _ in records)
    return assembler.models


def first_six(models: LearnedModels, hour: int, channel: str) -> Sequence[str]:
    """Categories of the six best for who is not known."""
    tables = ScoringTables.align(Shelf(SHELF), models)
    scene = Scene.of(tables, {}, T0 + 100 * DAY + hour * HOUR, channel=channel)
    scores = models.choice.utilities(candidate_features(scene, np.arange(len(SHELF))))
    return [SHELF[place].category for place in np.argsort(-scores, kind="stable")[:6].tolist()]


def test_shop_is_ranked_by_hour_and_channel_once_orders_have_told_of_them() -> None:
    models = published(learned_shop())
    morning, evening = first_six(models, 8, "web"), first_six(models, 20, "web")
    assert morning.count("rolls") >= 5
    assert evening.count("beer") >= 5
    assert "parts" not in {*morning, *evening}
    assert first_six(models, 8, "phone").count("parts") >= 3
    weights = dict(zip(FEATURES, models.choice.weights.tolist(), strict=True))
    assert min(weights["hour_fit"], weights["channel_fit"]) > 0.3


def test_what_is_saved_holds_no_category_that_nobody_bought() -> None:
    counts, shelf = OccasionCounts(HALF_LIFE), Shelf(goods(*(f"c{n}-1" for n in range(50)), "beer-1"))
    counts.learn_one(order(T0, "beer-1"), shelf)
    state, restored = counts.state(), OccasionCounts(HALF_LIFE)
    assert state.categories == ["beer"]
    restored.restore(state)
    assert restored.told() == counts.told()
    for both in (counts, restored):
        both.learn_one(order(T0 + 1, "c7-1"), shelf)
    assert restored.state() == counts.state()
