"""Lists of products that the solution lacks: made at fixed places, published in parts that stay."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import numpy as np
import pytest

from libs.common.clock import DAY, SECOND
from libs.common.contracts.learned_model import MANIFEST_KEY, PAIRS, Manifest, Neighbour
from libs.common.scoring.learned import LearnedAssembler
from services.analyzer.learner import checkpoint
from services.analyzer.learner.complements import ComplementParameters
from services.analyzer.learner.counts import PAIR_SHIFT, OrderCounts
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.goods import GoodsParameters
from services.analyzer.learner.pairs import PART_BYTES, Lists, PairLog, lists_from_pairs, row_bytes
from services.analyzer.learner.parts import Publications, Solved, content_of
from services.analyzer.learner.threads import in_thread
from services.analyzer.model.lessons import LessonLine, OrderLesson

T0 = 1_700_000_000_000
FEW = ComplementParameters(ridge=2.0, support=40.0, neighbours=20, pair_orders=16, pair_lists=150)
LOOSE = Parameters(goods=GoodsParameters(complements=FEW))


def lessons(count: int, products: int = 300, seed: int = 4) -> list[tuple[Place, OrderLesson]]:
    """Few products are bought often, most of them seldom."""
    random = np.random.default_rng(seed)
    made = []
    for n in range(count):
        at = T0 + n * DAY // 50
        chosen = (products * random.random(7) ** 3).astype(int)
        lines = [LessonLine(f"product number {p}", 1.0, None) for p in chosen.tolist()]
        order = OrderLesson(customer="c", at=at, occurred_at=at, order_id=f"o{n}", lines=lines)
        made.append((Place(at // SECOND, 0, n), order))
    return made


def learn(fold: Fold, rows: list[tuple[Place, OrderLesson]]) -> Fold:
    for place, lesson in rows:
        if (at := fold.goods.due(lesson.at)) is not None:
            fold.goods.accept(fold.goods.solve(at), at)
        fold.learn_one(place, lesson)
    if (at := fold.goods.due(fold.goods.last_at)) is not None:
        fold.goods.accept(fold.goods.solve(at), at)
    return fold


def published(fold: Fold) -> tuple[object, ...]:
    content = content_of(fold, fold.goods.last_at, Solved())
    return content.orders, content.popularity, content.complements, content.pairs


def in_use(fold: Fold) -> Lists:
    """The lists as a reader has them."""
    publications, assembler = Publications(), LearnedAssembler()
    records, manifest = publications.records(content_of(fold, fold.goods.last_at, Solved()), 1)
    for key, value, _ in records:
        assembler.put(key, value)
    assembler.put(MANIFEST_KEY, manifest)
    complements = assembler.models.complements
    return {product_id: complements.of(product_id) for product_id in complements.products}


def test_content_depends_on_the_lessons_alone_not_on_restarts_and_publications() -> None:
    rows = lessons(700)
    calm = learn(Fold(LOOSE), rows)
    for cuts in ([3, 250, 251, 699], list(range(0, 700, 37))):
        fold, start = Fold(LOOSE), 0
        for cut in [*cuts, len(rows)]:
            for place, lesson in rows[start:cut]:
                learn(fold, [(place, lesson)])
                if place.number % 5 == 0:
                    published(fold)
            restored = checkpoint.restore(checkpoint.save(fold), LOOSE)
            assert restored is not None
            assert published(restored) == published(fold)
            fold, start = restored, cut
        assert checkpoint.digest(fold) == checkpoint.digest(calm)
        assert published(fold) == published(calm)


def test_list_of_what_was_just_bought_is_as_of_now() -> None:
    fold = learn(Fold(LOOSE), lessons(500))
    for n, product in enumerate(["brand new", "product number 299", "brand new"]):
        lines = [LessonLine(key, 1.0, None) for key in (product, "product number 298")]
        order = OrderLesson(
            customer="c", at=fold.goods.last_at, occurred_at=fold.goods.last_at, order_id="o", lines=lines
        )
        fold.learn_one(Place(10**10, 0, n), order)
    expected = fold.goods.pending_pairs()
    assert {"brand new", "product number 298", "product number 299"} <= expected.keys()
    kept = in_use(fold)
    assert {key: kept[key] for key in expected} == expected
    assert kept["brand new"][0].product_id == "product number 298"


def test_every_loose_product_has_its_list_right_after_a_solve_and_no_solved_one_has() -> None:
    fold = learn(Fold(LOOSE), lessons(500))
    fold.goods.accept(fold.goods.solve(fold.goods.last_at), fold.goods.last_at)
    newest = fold.goods.pair_log.newest()
    most = sorted(fold.goods.loose, key=lambda number: (-fold.goods.counts.popular[number], number))[
        : FEW.pair_lists
    ]
    expected = lists_from_pairs(fold.goods.counts, most, fold.goods.loose, fold.goods.last_at, FEW)
    assert newest == {key: row for key, row in expected.items() if row}
    assert len(fold.goods.solution.products) > 5
    assert not newest.keys() & set(fold.goods.solution.products)
    assert max(map(len, newest.values())) == FEW.pair_neighbours
    assert fold.goods.touched == {}


def test_loose_products_have_the_weights_of_their_pairs_whatever_time_passes_between_orders() -> None:
    fold = learn(Fold(LOOSE), lessons(300))
    line = [LessonLine(key, 1.0, None) for key in ("product number 1", "brand new")]
    for n, at in enumerate((T0 + DAY, T0 + 600 * 365 * DAY, T0 + 600 * 365 * DAY)):
        order = OrderLesson(customer="c", at=at, occurred_at=at, order_id="o", lines=line)
        fold.learn_one(Place(10**11, 0, n), order)
        counts, loose = fold.goods.counts, fold.goods.loose
        pairs = {(a, b) for key in counts.pairs for a, b in [divmod(key, 1 << PAIR_SHIFT)]}
        expected = {(a, b) for pair in pairs for a, b in (pair, pair[::-1]) if a in loose}
        assert {(number, other) for number, others in loose.items() for other in others} == expected
        assert all(
            weight == counts.pairs[min(number, other) << PAIR_SHIFT | max(number, other)]
            for number, others in loose.items()
            for other, weight in others.items()
        )
    assert counts.pairs_decay.landmark > T0 + 50 * 365 * DAY


def test_lists_are_bounded_however_many_orders_come() -> None:
    fold = Fold(LOOSE)
    for row in lessons(1500, products=3000):
        learn(fold, [row])
        at_once = FEW.pair_orders * 7
        assert fold.goods.pair_log.added <= 2 * FEW.pair_lists + at_once
        assert len(fold.goods.touched) < at_once


def test_a_days_orders_leave_solved_lists_and_most_parts_of_pairs_as_they_are() -> None:
    wide = Parameters(
        goods=GoodsParameters(complements=ComplementParameters(ridge=2.0, support=40.0, pair_orders=16))
    )
    rows = lessons(4_000, products=4_000)
    fold = learn(Fold(wide), rows)
    publications, solved = Publications(), Solved()
    first, _ = publications.records(content_of(fold, 0, solved), 1)
    for n, (_, lesson) in enumerate(rows[:10]):
        fold.learn_one(Place(10**10, 0, n), msgspec.structs.replace(lesson, at=fold.goods.last_at))
    again, manifest = publications.records(content_of(fold, 0, solved), 2)
    names = [key.split(b"/")[0] for key, _, _ in again]
    assert b"complements" not in names
    assert names.count(b"pairs") <= 3 < msgspec.msgpack.decode(manifest, type=Manifest).parts[PAIRS]
    assert sum(len(value) for _, value, _ in again) < sum(len(value) for _, value, _ in first) / 3


def test_log_is_cut_by_size_and_closed_parts_are_never_touched() -> None:
    log = PairLog()
    row = [Neighbour("n" * 100, 0.5, 1.0, 2.0)] * 10
    log.add({f"p{n}": row for n in range(100)})
    closed = log.parts[0]
    before = dict(closed)
    pending = log.with_pending({"p0": [], "p99": []})
    assert (pending.newest()["p0"], log.newest()["p0"], log.newest()["p99"]) == ([], row, row)
    log.add({f"p{n}": row[:5] for n in range(50)})
    assert log.parts[0] is closed
    assert closed == before
    assert log.newest()["p0"] == row[:5]
    for part in log.parts[:-1]:
        size = sum(row_bytes(key, each) for key, each in part.items())
        assert PART_BYTES <= size < PART_BYTES + row_bytes("p99", row)


def test_restored_log_is_cut_where_an_undisturbed_one_is() -> None:
    row = [Neighbour("n" * 100, 0.5, 1.0, 2.0)] * 10
    log = PairLog()
    for n in range(300):
        log.add({f"p{n // 2}": row[: 5 + n % 6]})
        log = PairLog(log.parts, log.added)
    calm = PairLog()
    for n in range(300):
        calm.add({f"p{n // 2}": row[: 5 + n % 6]})
    assert len(log.parts) > 1
    assert (log.parts, log.added) == (calm.parts, calm.added)


def test_what_has_faded_to_nothing_has_no_neighbours() -> None:
    counts = OrderCounts(60 * DAY, 7 * DAY, 365 * DAY)
    counts.learn_one(["old", "older"], T0 - 10_000 * 365 * DAY)
    counts.reach(T0)
    lists = lists_from_pairs(counts, [0], {0: {1: counts.pairs[1]}}, T0, FEW)
    assert lists == {"old": []}
    counts.learn_one(["new", "newer"], T0)
    counts.learn_one(["other"], T0)
    old, new = ({b: counts.pairs[a << PAIR_SHIFT | b]} for a, b in ((0, 1), (2, 3)))
    lists = lists_from_pairs(counts, [0, 2], {0: old, 2: new}, T0, FEW)
    assert lists["old"] == []
    assert [n.product_id for n in lists["new"]] == ["newer"]
    assert lists_from_pairs(counts, [], {}, T0, FEW) == {}


async def test_who_is_cancelled_waits_for_the_thread() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.002)
        assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_fails_in_a_thread_is_raised() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x")
