"""Which orders are asked what was chosen: a panel, a share of later ones, discoveries; wherever reads cut."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.common.clock import DAY
from libs.common.contracts.customer_model import Items
from libs.common.scoring.choice import FEATURES
from services.analyzer.learner import checkpoint
from services.analyzer.learner.choice import ChoiceParameters
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.model.lessons import decode_lesson, encode_lesson
from tests.unit.choice_world import FEW, SMALL, T0, order, run, shop, shopping


def test_orders_are_asked_also_with_a_part_given_on_the_page_or_in_the_basket() -> None:
    fold = run(Fold(SMALL, shop()), shopping(300))
    assert fold.choice.logit.seen[FEATURES.index("basket")] > 15
    assert fold.choice.logit.seen[FEATURES.index("page")] > 5


def test_of_many_orders_a_sample_is_learned_from() -> None:
    few = Parameters(goods=FEW, choice=ChoiceParameters(panel=50.0, panel_half_life=28 * DAY))
    lessons = shopping(600)
    sampled = run(Fold(few, shop()), lessons).choice.logit.samples
    every = run(Fold(SMALL, shop()), lessons).choice.logit.samples
    assert 40 < sampled < 0.5 * every


def test_orders_that_are_not_asked_are_read_briefly_and_count_the_same() -> None:
    few = Parameters(goods=FEW, choice=ChoiceParameters(panel=50.0, panel_half_life=28 * DAY))
    rows = [(place, encode_lesson(lesson)) for place, lesson in shopping(300)]
    whole, read = Fold(few, shop()), Fold(few, shop())
    for place, body in rows:
        lesson = decode_lesson(body)
        whole.settle(lesson.at)
        whole.learn_one(place, lesson)
    read.learn_many(rows)
    assert 0 < read.choice.logit.samples < 200
    assert checkpoint.digest(read) == checkpoint.digest(whole)


def test_what_is_learned_does_not_hang_on_where_reads_cut() -> None:
    """Times go back from partition to partition: an order may be of the panel only when its turn comes."""
    hasty = Parameters(goods=FEW, choice=ChoiceParameters(panel=1.5, panel_half_life=300))
    rows = []
    for n, (_, lesson) in enumerate(shopping(300)):
        second, partition = divmod(n, 3)
        at = T0 + second * 1000 + (900, 100, 500)[partition]
        rows.append((Place(at // 1000, partition, n), encode_lesson(replace(lesson, at=at, occurred_at=at))))
    found = set()
    for size in (1, 7, len(rows)):
        fold = Fold(hasty, shop())
        for start in range(0, len(rows), size):
            fold.learn_many(rows[start : start + size])
        assert 20 < fold.choice.logit.samples < 250
        found.add(checkpoint.digest(fold))
    assert len(found) == 1


@pytest.mark.parametrize("size", [1, 50, 500])
def test_of_later_orders_a_share_is_asked_and_first_purchases_are_counted_of_all(size: int) -> None:
    halved = Parameters(goods=FEW, choice=ChoiceParameters(young=100, share=0.5))
    rows = [(place, encode_lesson(lesson)) for place, lesson in shopping(500)]
    whole, half, cut = Fold(SMALL, shop()), Fold(halved, shop()), Fold(halved, shop())
    whole.learn_many(rows)
    half.learn_many(rows)
    for start in range(0, len(rows), size):
        cut.learn_many(rows[start : start + size])
        restored = checkpoint.restore(checkpoint.save(cut), halved, shop())
        assert restored is not None
        cut = restored
    assert checkpoint.digest(cut) == checkpoint.digest(half)
    later = whole.choice.logit.samples - 100
    assert 0.45 * later < half.choice.logit.samples - 100 < 0.7 * later
    assert half.choice.firsts.state() == whole.choice.firsts.state()


def test_of_later_orders_all_discoveries_are_asked() -> None:
    """Customers who come once discover everything; where no share is asked, one order in five still is."""
    none = Parameters(goods=FEW, choice=ChoiceParameters(young=100, share=0.0))
    lessons = [
        (place, replace(lesson, customer=f"n{n}", before=Items(customer=f"n{n}")))
        for n, (place, lesson) in enumerate(shopping(600))
    ]
    every, few = run(Fold(SMALL, shop()), lessons), run(Fold(none, shop()), lessons)
    asked = (few.choice.logit.samples - 100) / (every.choice.logit.samples - 100)
    assert 0.1 < asked < 0.3


def test_discoveries_are_learned_where_something_was_bought_for_the_first_time_and_there_only() -> None:
    only = Parameters(goods=FEW, choice=ChoiceParameters(given=0.0, discoveries=1.0))
    lessons = shopping(150)
    learned = run(Fold(only, shop()), lessons)
    assert learned.choice.logit.samples > 10
    before, count = learned.choice.logit.mean.copy(), learned.choice.logit.samples
    last = lessons[-1][1]
    assert last.before is not None
    owned = [key for key, item in last.before.items.items() if item.orders]
    again = order(owned[:3], last.at + 1, last.customer, 9_000, last.before)
    learned.learn_one(Place(again.at // 1000 + 1, 0, 9_000), again)
    assert learned.choice.logit.samples == count
    assert learned.choice.logit.mean.tolist() == before.tolist()


def test_questions_made_together_are_those_made_one_by_one() -> None:
    """Read ahead or not, over days that change the tables and a panel that leaves orders out."""
    some = Parameters(goods=FEW, choice=ChoiceParameters(panel=0.7))
    written = [(place, encode_lesson(lesson)) for place, lesson in shopping(180)]
    lessons = [(place, decode_lesson(body)) for place, body in written]
    alone = run(Fold(some, shop()), lessons)
    together = Fold(some, shop())
    together.learn_many(written)
    assert 20 < alone.choice.logit.samples < 100
    assert checkpoint.digest(together) == checkpoint.digest(alone)
