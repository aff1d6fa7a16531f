"""Learning of choices: the question an order answers, what is learned of it, and equal bits wherever cut."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from libs.common.clock import DAY
from libs.common.contracts.catalogue import Offer, Product, Withdrawn, encode_entry
from libs.common.contracts.customer_model import Decayed, Item, Items
from libs.common.contracts.learned_model import MANIFEST_KEY
from libs.common.contracts.touchpoint import OrderLine
from libs.common.scoring.choice import FEATURES, START
from libs.common.scoring.features import Scene, ScoringTables, Shelf, candidate_features
from libs.common.scoring.learned import LearnedAssembler
from libs.common.scoring.sources.look import Look
from libs.common.scoring.sources.union import candidates
from services.analyzer.learner import checkpoint
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.choice import ChoiceParameters, Draw, Exercise, _given, exercises_of
from services.analyzer.learner.complements import ComplementParameters
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.goods import GoodsParameters
from services.analyzer.learner.multinomial import MOST_WEIGHT
from services.analyzer.learner.parts import Publications, Solved, content_of
from services.analyzer.learner.tables import PAIRS_LONGEST
from services.analyzer.model.items import bought
from services.analyzer.model.lessons import LessonLine, OrderLesson
from tests.unit.choice_world import (
    FEW,
    SMALL,
    T0,
    Lessons,
    message,
    order,
    product,
    run,
    shop,
    shopping,
    stocked,
)


def exercise_of(tables: ScoringTables, lesson: OrderLesson, draw: Draw) -> Exercise:
    [exercise] = exercises_of(tables, [(lesson, draw)])
    return exercise


def test_learner_and_recommender_see_the_same_bits() -> None:
    """Features of an order's question, from the learner's state and from what a reader put together."""
    catalogue = shop()
    # After so many orders no list of pairs waits to be made anew, so that both know the same.
    lessons = shopping(10 * SMALL.goods.complements.pair_orders + 1)
    # Some products are in the solution, of others only pairs are known.
    some = GoodsParameters(complements=ComplementParameters(ridge=2.0, support=40.0, neighbours=8))
    fold = run(Fold(Parameters(goods=some), catalogue), lessons[:-1])
    assert fold.goods.solution.products
    assert fold.goods.pair_log.newest()
    last = lessons[-1][1]
    tables = fold.choice.tables
    tables.state = replace(tables.state, pairs_at=fold.goods.last_at - PAIRS_LONGEST)
    tables._note(fold.goods, fold.choice.firsts, fold.choice.occasions)
    tables._make(fold.goods.solution)
    mine = tables.now(fold.goods, fold.choice.firsts, fold.choice.occasions)
    assert mine is not None
    assembler, publications = LearnedAssembler(), Publications()
    records, manifest = publications.records(content_of(fold, last.at, Solved()), 1)
    for key, value, _ in records:
        assembler.put(key, value)
    assert assembler.put(MANIFEST_KEY, manifest)
    theirs = ScoringTables.align(Shelf(catalogue.products()), assembler.models)
    assert last.before is not None
    exercise = exercise_of(mine, last, Draw(0.0, "next", b"seed"))
    scene = Scene.of(theirs, last.before.items, last.occurred_at, channel=last.channel)
    found = candidates(Look(scene, np.ones(len(theirs.shelf), dtype=bool))).positions
    x = candidate_features(scene, found)
    assert len(x) > 20
    assert x[:, [FEATURES.index("hour_fit"), FEATURES.index("channel_fit")]].all()
    assert exercise.x.tobytes() == x.tobytes()
    assert_same_bits_halfway(mine, theirs, last)
    assert assembler.models.choice.weights.tobytes() == fold.choice.logit.mean.tobytes()
    assert fold.choice.logit.samples > 100


def assert_same_bits_halfway(mine: ScoringTables, theirs: ScoringTables, lesson: OrderLesson) -> None:
    """The same with half of an order of what the customer of ``lesson`` had bought before in the basket."""
    assert lesson.before is not None
    had = list(lesson.before.items)[:8]
    order = replace(lesson, lines=[LessonLine(product_id, 1.0, 2.0) for product_id in had])
    draw = Draw(0.0, "rest", b"seed")
    given, open_ = _given(had, draw), np.ones(len(theirs.shelf), dtype=bool)
    assert len(given) == 4
    open_[[theirs.shelf.index[key] for key in given]] = False
    scene = Scene.of(theirs, lesson.before.items, lesson.occurred_at, basket=given, channel=lesson.channel)
    x = candidate_features(scene, candidates(Look(scene, open_, None, given)).positions)
    assert all(x[:, FEATURES.index(name)].any() for name in ("size_fit", "trip", "basket"))
    assert exercise_of(mine, order, draw).x.tobytes() == x.tobytes()


def test_order_is_asked_for_as_a_whole_as_the_rest_of_a_basket_or_as_discoveries() -> None:
    fold = run(Fold(SMALL, shop()), shopping(60))
    tables = fold.choice.tables.now(fold.goods, fold.choice.firsts, fold.choice.occasions)
    assert tables is not None
    owned = Items(customer="c", items={"p1": Item(orders=1, bought=Decayed(1.0, T0), last_bought_at=T0)})
    lesson = order(["p1", "p2", "bread", "butter", "unheard of"], T0 + DAY, before=owned)
    whole, rest, discoveries = (
        exercise_of(tables, lesson, Draw(0.0, kind, b"seed")) for kind in ("next", "rest", "discovery")
    )
    assert (whole.bought, rest.bought, discoveries.bought) == (4, 2, 3)
    assert (whole.chosen.sum(), rest.chosen.sum(), discoveries.chosen.sum()) == (4, 2, 3)
    times, basket = FEATURES.index("times"), FEATURES.index("basket")
    assert whole.x[:, times].any()
    assert not discoveries.x[:, times].any()
    assert rest.x[:, basket].any()
    assert not whole.x[:, basket].any()
    # Which half is given follows from the seed alone.
    seeds = (b"seed", b"a", b"b", b"c", b"d")
    again, *others = (exercise_of(tables, lesson, Draw(0.0, "rest", seed)).x.tobytes() for seed in seeds)
    assert again == rest.x.tobytes()
    assert any(other != again for other in others)


def test_order_is_foreseen_before_it_is_learned() -> None:
    fold = run(Fold(SMALL, shop()), shopping(60))
    sold = fold.goods.counts.seen[fold.goods.counts.index["bread"]]
    seen: list[int] = []
    learn = fold.choice.learn_one

    def spy(lesson: OrderLesson, goods: object) -> None:
        seen.append(fold.goods.counts.seen[fold.goods.counts.index["bread"]])
        learn(lesson, fold.goods)

    fold.choice.learn_one = spy  # type: ignore[method-assign]
    fold.learn_one(Place(10**10, 0, 0), order(["bread"], T0 + 90 * DAY, before=Items(customer="c")))
    assert seen == [sold]
    assert fold.goods.counts.seen[fold.goods.counts.index["bread"]] == sold + 1


@pytest.mark.parametrize("cuts", [[1], [19, 20, 21], [40, 41, 150], [249]])
def test_restart_from_a_checkpoint_learns_the_same_choices_to_the_bit(cuts: list[int]) -> None:
    lessons = shopping(250)
    whole = run(Fold(SMALL, shop()), lessons)
    assert whole.choice.logit.samples > 100
    # Only the first learner reads the catalogue: later ones remember it.
    fold, start = Fold(SMALL, shop()), 0
    for cut in [*cuts, len(lessons)]:
        run(fold, lessons[start:cut])
        catalogue = Catalogue() if cut > 20 else shop()
        restored = checkpoint.restore(checkpoint.save(fold), SMALL, catalogue)
        assert restored is not None
        fold, start = restored, cut
    assert checkpoint.digest(fold) == checkpoint.digest(whole)


def test_who_learns_anew_with_the_remembered_catalogue_learns_the_same() -> None:
    lessons = shopping(120)
    live = run(Fold(SMALL, shop()), lessons)
    remembered = Catalogue()
    restored = checkpoint.restore(checkpoint.save(live), SMALL, remembered)
    assert restored is not None
    assert checkpoint.digest(run(Fold(SMALL, remembered), lessons)) == checkpoint.digest(live)
    assert checkpoint.digest(run(Fold(SMALL), lessons)) != checkpoint.digest(live)


def wandering(orders: int, customers: int = 12) -> Lessons:
    """Customers who go through the shop in turn and so never want what they had last."""
    known = [Items(customer=f"c{n}") for n in range(customers)]
    made: Lessons = []
    for n in range(orders):
        who, visit, at = n % customers, n // customers, T0 + n * DAY // 6
        basket = [f"p{(3 * visit + 7 * who + place) % 40}" for place in range(3)]
        made.append((Place(at // 1000, who, n), order(basket, at, f"c{who}", n, known[who])))
        known[who] = bought(known[who], [OrderLine(product_id=key, quantity=1.0) for key in basket], at)
    return made


def test_model_learns_what_customers_go_by() -> None:
    fold = run(Fold(SMALL, shop()), wandering(700))
    learned = dict(zip(FEATURES, (fold.choice.logit.mean - START.weights).tolist(), strict=True))
    assert learned["recency"] < -1.0
    honest = fold.choice.honest
    assert honest.loss < honest.prior - 0.2
    frozen = Parameters(goods=FEW, choice=ChoiceParameters(doubt=1e-6))
    still = run(Fold(frozen, shop()), wandering(700))
    assert still.choice.logit.mean == pytest.approx(START.weights, abs=1e-3)
    assert still.choice.honest.loss == pytest.approx(still.choice.honest.prior, abs=1e-3)
    assert honest.ndcg > still.choice.honest.ndcg + 0.1


def odd(item: Item) -> Items:
    return Items(customer="c", items={"a": item})


@pytest.mark.parametrize(
    "before",
    [
        Items(customer="c"),
        Items(
            customer="c", items={f"gone{n}": Item(orders=1, bought=Decayed(1.0, T0)) for n in range(1_000)}
        ),
        Items(
            customer="c",
            items={
                f"p{n}": Item(orders=n + 1, bought=Decayed(1e15, T0), last_bought_at=T0, cycle=1e12)
                for n in range(1_000)
            },
        ),
        odd(Item(orders=1, bought=Decayed(float("nan"), T0), last_bought_at=T0)),
        odd(Item(orders=1, bought=Decayed(float("inf"), T0), last_bought_at=T0)),
        odd(Item(orders=1, bought=Decayed(1e308, T0), last_bought_at=-(10**17), cycle=float("nan"))),
        odd(Item(orders=2, bought=Decayed(-5.0, T0), last_bought_at=10**17, cycle=-1.0, price=0.0)),
        odd(Item(orders=1, bought=Decayed(1.0, T0), last_bought_at=T0, days=(-(2**62), 2**62))),
    ],
    ids=["nothing", "unknown", "thousand", "nan", "infinite", "huge", "negative", "days"],
)
@pytest.mark.parametrize("products", [1, 40])
def test_odd_customers_and_orders_break_nothing(before: Items, products: int) -> None:
    shelf = [product("a", "", 0.0), product("b", "never heard of", 0.0)][: products // 2 + 1]
    fold = run(Fold(SMALL, stocked(*shelf, *(product(f"p{n}") for n in range(products - 1)))), shopping(80))
    for n, lines in enumerate([["a"], ["a", "b"], ["nobody", "knows"], ["p1", "a"], []] * 8):
        at = T0 + 30 * DAY + n
        fold.learn_one(Place(10**10, 0, n), order(lines, at, "odd", n, before))
    figures = [*fold.choice.logit.mean, *fold.choice.logit.information.ravel(), fold.choice.honest.loss]
    assert np.isfinite(figures).all()
    assert np.abs(fold.choice.logit.mean).max() <= MOST_WEIGHT
    assert checkpoint.restore(checkpoint.save(fold), SMALL) is not None


def test_without_a_catalogue_nothing_is_learned_and_nothing_breaks() -> None:
    fold = run(Fold(SMALL), shopping(60))
    assert fold.choice.logit.samples == 0
    assert fold.goods.counts.orders == 60
    assert fold.choice.logit.mean.tobytes() == START.weights.tobytes()


def test_catalogue_holds_products_only_and_forgets_the_withdrawn() -> None:
    catalogue = stocked(product("b"), product("a"), product("c"))
    changes = catalogue.changes
    catalogue.on_batch(
        [
            message("b", encode_entry(Withdrawn(at=T0))),
            message("c", None),
            message("a", b"not an entry"),
            message("o", encode_entry(Offer(offer_id="o", kind="service")), "offer"),
        ]
    )
    assert [one.product_id for one in catalogue.products()] == ["a"]
    assert catalogue.changes == changes + 2
    # Words and stock do not matter to choice; what the topic withdrew is not remembered back.
    catalogue.on_batch(
        [
            message(
                "a",
                encode_entry(
                    Product(
                        product_id="a",
                        name="new words",
                        category="food",
                        price=2.0,
                        currency="EUR",
                        stock=3.0,
                    )
                ),
            )
        ]
    )
    catalogue.remember([product("b"), product("d")])
    assert [one.product_id for one in catalogue.products()] == ["a", "d"]
    assert catalogue.changes == changes + 3
