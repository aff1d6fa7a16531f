"""Learning of choices: the posterior, the question an order answers, bounds, and equal bits wherever cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from libs.common.bus.ports import Message
from libs.common.clock import DAY
from libs.common.contracts.catalogue import Offer, Product, Withdrawn, encode_entry, entry_key
from libs.common.contracts.customer_model import Decayed, Item, Items
from libs.common.contracts.learned_model import MANIFEST_KEY
from libs.common.contracts.topics import CATALOGUE
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
from services.analyzer.learner.multinomial import MOST_WEIGHT, ConditionalLogit
from services.analyzer.learner.parts import Publications, Solved, content_of
from services.analyzer.learner.tables import PAIRS_LONGEST
from services.analyzer.model.items import bought
from services.analyzer.model.lessons import LessonLine, OrderLesson, decode_lesson, encode_lesson

T0 = 1_700_000_000_000
FEW = GoodsParameters(complements=ComplementParameters(ridge=2.0, support=2.0, neighbours=8))
SMALL = Parameters(goods=FEW)
Lessons = list[tuple[Place, OrderLesson]]


def product(product_id: str, category: str = "food", price: float = 2.0) -> Product:
    return Product(product_id=product_id, name=product_id, category=category, price=price, currency="EUR")


def exercise_of(tables: ScoringTables, lesson: OrderLesson, draw: Draw) -> Exercise:
    [exercise] = exercises_of(tables, [(lesson, draw)])
    return exercise


def stocked(*products: Product) -> Catalogue:
    catalogue = Catalogue()
    catalogue.on_batch([message(one.product_id, encode_entry(one)) for one in products])
    return catalogue


def message(product_id: str, value: bytes | None, kind: str = "product") -> Message:
    return Message(CATALOGUE, 0, 0, entry_key(kind, product_id), value, (), 0)


def shop(products: int = 40) -> Catalogue:
    shelf = [product(f"p{n}", f"c{n % 5}", 1.0 + n % 7) for n in range(products)]
    return stocked(*shelf, product("bread"), product("butter"))


def shopping(orders: int, customers: int = 12, seed: int = 3, products: int = 40) -> Lessons:
    """Customers with favourites, who take butter with bread; with what was known before each order."""
    random = np.random.default_rng(seed)
    taste = random.dirichlet(np.full(products, 0.15), size=customers)
    known = [Items(customer=f"c{n}") for n in range(customers)]
    made: Lessons = []
    for n in range(orders):
        who, at = int(random.integers(customers)), T0 + n * DAY // 6
        size = int(random.integers(1, 6))
        basket = [
            f"p{p}"
            for p in random.choice(products, size=size, replace=False, p=taste[who] * 0.9 + 0.1 / products)
        ]
        basket += ["bread", "butter"] if random.random() < 0.4 else []
        lesson = order(basket, at, f"c{who}", n, known[who])
        known[who] = bought(known[who], [OrderLine(product_id=key, quantity=1.0) for key in basket], at)
        made.append((Place(at // 1000, who % 12, n), lesson))
    return made


def order(
    products: Sequence[str], at: int = T0, customer: str = "c", n: int = 0, before: Items | None = None
) -> OrderLesson:
    return OrderLesson(
        customer=customer,
        at=at,
        occurred_at=at,
        order_id=f"o{n}",
        lines=[LessonLine(product_id, 1.0, 2.0) for product_id in products],
        channel="phone" if n % 4 == 0 else "web",
        before=before,
    )


def run(fold: Fold, lessons: Lessons) -> Fold:
    for place, lesson in lessons:
        fold.settle(lesson.at)
        fold.learn_one(place, lesson)
    fold.settle(fold.goods.last_at)
    return fold


def logit(size: int, memory: float = 1e9, doubt: float = 10.0) -> ConditionalLogit:
    return ConditionalLogit(np.zeros(size), np.ones(size), doubt, memory)


def test_weights_of_simulated_choices_are_found() -> None:
    random = np.random.default_rng(4)
    true = np.array([1.0, -0.5, 0.25, 0.0])
    # Features that go together need the whole precision matrix: their weights are told apart only by it.
    mix = np.array([[1.0, 0.9, 0, 0], [0, 0.5, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 0.2]])
    model = logit(4)
    for _ in range(6_000):
        x = random.normal(size=(10, 4)) @ mix
        chance = np.exp(x @ true)
        chosen = np.zeros(10, dtype=bool)
        chosen[random.choice(10, p=chance / chance.sum())] = True
        assert model.learn_one(x, chosen)
    error = model.mean - true
    precision = model.information + np.diag(model.variance) / 100
    # Squared error in units of its own precision is χ² with four degrees of freedom.
    assert error @ precision @ error < 18.5
    assert np.sqrt(np.diag(np.linalg.inv(precision))).max() < 0.15


def test_set_of_which_none_or_all_were_taken_teaches_nothing() -> None:
    model = logit(2)
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert not model.learn_one(x, np.array([False, False]))
    assert not model.learn_one(x, np.array([True, True]))
    assert (model.samples, model.mean.tolist(), model.information.any()) == (0, [0.0, 0.0], False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e308])
def test_number_that_is_none_teaches_nothing(bad: float) -> None:
    model = logit(2)
    assert not model.learn_one(np.array([[bad, 0.0], [0.0, 1.0]]), np.array([True, False]))
    assert (model.samples, model.mean.tolist()) == (0, [0.0, 0.0])


def test_no_weight_grows_without_bound_on_what_always_holds() -> None:
    model = logit(1, doubt=1e9)
    for _ in range(3_000):
        assert model.learn_one(np.array([[1e6], [0.0]]), np.array([True, False]))
    assert np.isfinite(model.mean).all()
    assert abs(model.mean[0]) <= MOST_WEIGHT


def test_feature_that_is_silent_keeps_its_prior_and_its_scale() -> None:
    model = ConditionalLogit(np.array([0.5, 2.0]), np.array([1.0, 0.7]), 1.0, 500.0)
    random = np.random.default_rng(1)
    for _ in range(2_000):
        x = np.column_stack([random.normal(size=5), np.zeros(5)])
        model.learn_one(x, np.eye(5, dtype=bool)[random.integers(5)])
    assert model.mean[1] == pytest.approx(2.0)
    assert model.variance[1] == pytest.approx(0.49)
    assert abs(model.mean[0]) < 0.2


def test_what_was_long_ago_is_forgotten_towards_the_prior() -> None:
    model = ConditionalLogit(np.array([1.0, 0.0]), np.array([1.0, 1.0]), 1.0, 100.0)
    for _ in range(500):
        model.learn_one(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([False, True]))
    assert model.mean[0] < -1.0
    for n in range(1_500):
        # Nothing is heard of the first feature any more.
        model.learn_one(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([n % 2 == 0, n % 2 == 1]))
    assert model.mean[0] == pytest.approx(1.0, abs=0.1)


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


def test_one_surprising_order_turns_nothing_around() -> None:
    """The only product he knows seems certain, and he takes another: there the likelihood is flat."""
    logit = ConditionalLogit(START.weights, np.full(len(FEATURES), 0.5), 1.0, 20_000.0)
    x = np.zeros((10, len(FEATURES)))
    x[0, [FEATURES.index(name) for name in ("habit", "usual", "recency", "season", "times")]] = 8.0
    chosen = np.arange(10) == 7
    surprise = -float(np.log(logit.predict_one(x)[7]))
    assert surprise > 5.0
    assert logit.learn_one(x, chosen)
    learned = -float(np.log(logit.predict_one(x)[7]))
    assert 0.2 < learned < surprise
    # It is believed that he may take another, not that nobody takes what he knows.
    assert logit.predict_one(x)[0] > 1e-3
    around = x - logit.predict_one(x) @ x
    assert logit.information == pytest.approx((around * logit.predict_one(x)[:, None]).T @ around)


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
