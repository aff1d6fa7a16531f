"""The fold: counts, solves at fixed places, the same state to the bit however the sequence is cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from libs.common.clock import DAY
from libs.common.contracts.vectors import pack
from services.analyzer.learner import checkpoint
from services.analyzer.learner.complements import ComplementParameters, ease, solve
from services.analyzer.learner.counts import PAIR_SHIFT, OrderCounts
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.goods import GoodsParameters
from services.analyzer.learner.pairs import lists_from_pairs
from services.analyzer.model.lessons import (
    LessonLine,
    OrderChangeLesson,
    OrderLesson,
    TrialLesson,
    TrialStep,
    decode_lesson,
    encode_lesson,
)

T0 = 1_700_000_000_000
SMALL = Parameters(
    goods=GoodsParameters(complements=ComplementParameters(ridge=2.0, support=2.0, neighbours=5))
)
Lessons = list[tuple[Place, OrderLesson]]


def order(products: Sequence[str], at: int = T0, occurred_at: int | None = None, n: int = 0) -> OrderLesson:
    return OrderLesson(
        customer=f"c{n}",
        at=at,
        occurred_at=at if occurred_at is None else occurred_at,
        order_id=f"o{n}",
        lines=[LessonLine(product_id, 1.0, 2.0) for product_id in products],
    )


def shopping(orders: int, products: int = 30, seed: int = 3) -> Lessons:
    """Orders in canonical order, some with late events, bread and butter often together."""
    random = np.random.default_rng(seed)
    made = []
    for n in range(orders):
        basket = [f"p{p}" for p in random.choice(products, size=random.integers(1, 8), replace=False)]
        if random.random() < 0.5:
            basket += ["bread", "butter"] if random.random() < 0.8 else ["bread"]
        at = T0 + n * DAY // 4
        place = Place(at // 1000, int(random.integers(12)), n)
        made.append((place, order(basket, at, at - int(random.integers(3)) * DAY, n)))
    return made


def run(fold: Fold, lessons: Lessons) -> Fold:
    """As the learner does it."""
    for place, lesson in lessons:
        settle(fold, lesson.at)
        fold.learn_one(place, lesson)
    settle(fold, fold.goods.last_at)
    return fold


def settle(fold: Fold, now: int) -> None:
    at = fold.goods.due(now)
    if at is not None:
        fold.goods.accept(fold.goods.solve(at), at)


def test_ease_equals_the_direct_ridge_solution_of_every_column() -> None:
    random = np.random.default_rng(5)
    x = (random.random((200, 12)) < 0.3).astype(float)
    gram = x.T @ x
    weights = ease(gram, 7.0)
    for j in range(12):
        others = [i for i in range(12) if i != j]
        # Without the own column, ridge regression of j on all others.
        direct = np.linalg.solve(gram[np.ix_(others, others)] + 7.0 * np.eye(11), gram[others, j])
        assert weights[others, j] == pytest.approx(direct)
    assert np.diag(weights).tolist() == [0.0] * 12


@pytest.mark.parametrize("products", [65, 130, 517])
def test_ease_of_many_products_is_their_inverse_whatever_blocks_it_is_made_of(products: int) -> None:
    orders = (np.random.default_rng(products).random((600, products)) < 0.05).astype(float)
    inverse = np.linalg.inv(orders.T @ orders + 7.0 * np.eye(products))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0.0)
    assert ease(orders.T @ orders, 7.0) == pytest.approx(expected, abs=1e-12)


def test_solution_is_ease_on_the_decayed_counts_cut_to_the_best() -> None:
    lessons = shopping(300)
    half_life = 100 * DAY
    counts = OrderCounts(60 * DAY, 7 * DAY, half_life)
    for _, lesson in lessons:
        counts.learn_one([line.product_id for line in lesson.lines], lesson.occurred_at)
    at = lessons[-1][1].at
    parameters = ComplementParameters(ridge=3.0, support=0.0, neighbours=4)
    solution = solve(counts, at, parameters)

    names = list(solution.products)
    x = np.zeros((len(lessons), len(names)))
    for row, (_, lesson) in enumerate(lessons):
        weight = 2.0 ** ((lesson.occurred_at - at) / half_life / 2)
        for line in lesson.lines:
            x[row, names.index(line.product_id)] = weight
    gram = x.T @ x
    expected = ease(gram, 3.0)
    for i, name in enumerate(names):
        best = sorted(
            (j for j in range(len(names)) if expected[i, j] > 0 and gram[i, j] > 0),
            key=lambda j: -expected[i, j],
        )
        row = solution.rows()[name]
        assert [n.product_id for n in row] == [names[j] for j in best[:4]]
        assert [n.weight for n in row] == pytest.approx([expected[i, j] for j in best[:4]], rel=1e-4)
        assert [n.together for n in row] == pytest.approx(
            [100 * gram[i, j] / gram[i, i] for j in best[:4]], rel=1e-4
        )
    bread = solution.rows()["bread"][0]
    assert bread.product_id == "butter"
    assert bread.together > 60
    assert bread.lift > 1.5


def test_pair_that_solution_lacks_is_ranked_by_its_excess_over_chance() -> None:
    counts = OrderCounts(60 * DAY, 7 * DAY, 365 * DAY)
    for n in range(20):
        counts.learn_one(["milk", "new", "lemon"] if n < 3 else ["milk", f"x{n}"], T0)
    new, lemon, milk = (counts.index[product_id] for product_id in ("new", "lemon", "milk"))
    others = {
        one: {two: counts.pairs[min(one, two) << PAIR_SHIFT | max(one, two)] for two in with_it}
        for one, with_it in ((new, (milk, lemon)), (lemon, (milk, new)))
    }
    lists = lists_from_pairs(counts, [new, lemon], others, T0, ComplementParameters(ridge=1.0))
    assert list(lists) == ["new", "lemon"]
    row = lists["new"]
    assert [n.product_id for n in row] == ["lemon"]
    assert row[0].weight == pytest.approx((3 - 3 * 3 / 20) / (3 + 1))
    assert (row[0].together, row[0].lift) == (100.0, pytest.approx(20 / 3))


def test_solves_fall_due_at_twenty_orders_then_with_growth_then_after_four_weeks() -> None:
    fold = Fold(SMALL)
    solved = []
    for n in range(60):
        at = T0 + n
        assert fold.goods.due(at) is None
        fold.learn_one(Place(at // 1000, 0, n), order(["a", "b"], at, n=n))
        if (due := fold.goods.due(at)) is not None:
            solved.append(fold.goods.counts.orders)
            fold.goods.accept(fold.goods.solve(due), due)
    assert solved == [20, 25, 32, 40, 50]
    fold_at = fold.goods.solved_at + 28 * DAY
    assert fold.goods.due(fold_at - 1) is None
    assert fold.goods.due(fold_at) == fold_at
    # However late it is noticed, it was due then.
    assert fold.goods.due(fold_at + 99 * DAY) == fold_at


def test_no_solve_falls_due_while_nobody_buys() -> None:
    fold = run(Fold(SMALL), [(Place(n, 0, n), order(["a", "b"], T0 + n, n=n)) for n in range(20)])
    assert fold.goods.due(T0 + 999 * DAY) is None


def test_ticks_that_make_a_solve_fall_due_change_no_bit() -> None:
    lessons = [*shopping(26), (Place(10**10, 0, 99), order(["bread"], T0 + 80 * DAY, n=99))]
    quiet = run(Fold(SMALL), lessons)
    ticking = Fold(SMALL)
    for place, lesson in lessons:
        for now in range(ticking.goods.last_at, lesson.at, DAY):
            settle(ticking, now)
        settle(ticking, lesson.at)
        ticking.learn_one(place, lesson)
    settle(ticking, ticking.goods.last_at)
    assert quiet.goods.solved_at > T0 + 30 * DAY
    assert checkpoint.digest(quiet) == checkpoint.digest(ticking)


@pytest.mark.parametrize("cuts", [[1], [19, 20, 21], [40, 41, 150], [249]])
def test_restart_from_a_checkpoint_gives_the_same_state_to_the_bit(cuts: list[int]) -> None:
    lessons = shopping(250)
    whole = run(Fold(SMALL), lessons)
    fold, start = Fold(SMALL), 0
    for cut in [*cuts, len(lessons)]:
        run(fold, lessons[start:cut])
        restored = checkpoint.restore(checkpoint.save(fold), SMALL)
        assert restored is not None
        fold, start = restored, cut
    assert checkpoint.digest(fold) == checkpoint.digest(whole)
    assert fold.goods.loose == whole.goods.loose
    assert fold.place == whole.place


def test_another_order_of_lessons_is_another_state() -> None:
    lessons = shopping(250)
    assert checkpoint.digest(run(Fold(SMALL), lessons)) != checkpoint.digest(run(Fold(SMALL), lessons[:-1]))


def test_lesson_out_of_order_is_refused() -> None:
    fold = run(Fold(SMALL), shopping(3))
    with pytest.raises(ValueError, match="does not come after"):
        fold.learn_one(Place(0, 0, 0), order(["a"]))


def test_checkpoint_of_other_parameters_or_of_garbage_is_not_used() -> None:
    body = checkpoint.save(run(Fold(SMALL), shopping(30)))
    assert checkpoint.restore(body, Parameters()) is None
    assert checkpoint.restore(body[:-5], SMALL) is None
    assert checkpoint.restore(None, SMALL) is None


def test_late_and_early_orders_count_by_their_own_time() -> None:
    counts = OrderCounts(60 * DAY, 7 * DAY, 60 * DAY)
    counts.learn_one(["a"], T0)
    counts.learn_one(["b"], T0 - 60 * DAY)
    counts.learn_one(["c"], T0 + 60 * DAY)
    a, b, c = counts.popular
    assert (b / a, c / a) == (0.5, 2.0)


def test_centuries_between_orders_break_nothing_and_scaling_is_exact() -> None:
    fold = Fold(SMALL)
    ancient = -62_000_000_000_000
    fold.learn_one(Place(0, 0, 0), order(["old", "older"], T0, ancient))
    for place, lesson in shopping(60):
        fold.learn_one(place, lesson)
    settle(fold, fold.goods.last_at)
    assert np.isfinite(fold.goods.counts.popular).all()
    assert fold.goods.counts.popular[fold.goods.counts.index["old"]] == 0.0
    near, far = OrderCounts(60 * DAY, 7 * DAY, 60 * DAY), OrderCounts(60 * DAY, 7 * DAY, 60 * DAY)
    near.learn_one(["a", "b"], T0)
    far.learn_one(["a", "b"], T0)
    far.reach(T0 + 600 * 60 * DAY)
    assert [value * 2.0**600 for value in far.popular] == near.popular
    for counts in (near, far):
        counts.learn_one(["a", "c"], T0 + 7 * DAY)
    assert [value * 2.0**600 for value in far.popular] == pytest.approx(near.popular)


def test_returned_goods_were_less_popular_but_still_wanted_together() -> None:
    fold = run(Fold(SMALL), [(Place(1, 0, 1), order(["a", "b"])), (Place(2, 0, 2), order(["a"]))])
    back = OrderChangeLesson(
        customer="c",
        at=T0,
        occurred_at=T0,
        order_id="o",
        change="returned",
        lines=[LessonLine("a", 1.0, None)],
    )
    fold.learn_one(Place(3, 0, 3), back)
    assert fold.goods.counts.popular == [1.0, 1.0]
    assert fold.goods.counts.orders == 2
    assert fold.goods.counts.pairs == {0 << PAIR_SHIFT | 1: 1.0}
    for n in range(4, 8):
        fold.learn_one(Place(n, 0, n), back)
    assert fold.goods.counts.popular[0] == 0.0


def test_memory_is_bounded_and_what_is_forgotten_is_the_lightest() -> None:
    counts = OrderCounts(60 * DAY, 7 * DAY, 60 * DAY, max_pairs=50, max_products=30, max_lines=5)
    for n in range(200):
        counts.learn_one(["bread", "butter", *(f"q{n}-{k}" for k in range(9))], T0 + n * DAY)
        if counts.crowded:
            counts.forget()
        assert len(counts.pairs) <= 50
        assert len(counts.products) <= 30
    bread, butter = sorted((counts.index["bread"], counts.index["butter"]))
    assert counts.pairs[bread << PAIR_SHIFT | butter] == max(counts.pairs.values())
    assert all(key >> PAIR_SHIFT < key & 0xFFFFFFFF < len(counts.products) for key in counts.pairs)
    assert [counts.products[counts.index[key]] for key in counts.products] == counts.products


def test_a_product_counts_once_per_order_and_a_giant_order_makes_few_pairs() -> None:
    counts = OrderCounts(60 * DAY, 7 * DAY, 60 * DAY, max_lines=10)
    counts.learn_one(["a", "a", "b"], T0)
    assert counts.seen == [1, 1]
    counts.learn_one([f"g{n}" for n in range(900)], T0)
    assert len(counts.pairs) == 1 + 45
    assert len(counts.products) == 902


def trial(n: int, step: TrialStep = "shown", *, ghost: bool = False) -> TrialLesson:
    return TrialLesson(
        customer="c",
        at=T0 + n,
        occurred_at=T0 + n,
        step=step,
        decision_id="d",
        offer_id="product:a",
        product_id="a",
        offer_kind="cross_sell",
        placement="home",
        channel="web",
        group="treatment",
        rank=1,
        propensity=0.5,
        chance=0.1,
        feature_set="one",
        vector=pack(np.array([[1.5, 0.0]]))[0],
        shared=pack(np.array([[0.0, 2.0]]))[0],
        window=DAY,
        ghost=ghost,
    )


def test_trials_shown_are_counted_and_several_lessons_of_one_event_follow_each_other() -> None:
    fold = Fold(SMALL)
    lessons = [trial(0), trial(1, "look"), trial(2, ghost=True), trial(3)]
    fold.learn_many([(Place(1, 0, 7, part), encode_lesson(lesson)) for part, lesson in enumerate(lessons)])
    assert (fold.trials, fold.goods.counts.orders, fold.place) == (2, 0, Place(1, 0, 7, 3))
    again = checkpoint.restore(checkpoint.save(fold), SMALL)
    assert again is not None
    assert checkpoint.digest(again) == checkpoint.digest(fold)
    assert decode_lesson(encode_lesson(lessons[1])) == lessons[1]
    assert lessons[0].features().tolist() == [1.5, 0.0, 0.0, 2.0]
