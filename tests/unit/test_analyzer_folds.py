"""Folds of customer models: what each event does, and what no order, repetition or size may do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.clock import DAY, HOUR
from libs.common.contracts.customer_event import (
    AboutCustomer,
    ConsentGiven,
    DecidedOffer,
    Decision,
    IdentityLinked,
    Outcome,
    Touchpoint,
)
from libs.common.contracts.customer_model import (
    MAX_DECISIONS,
    MAX_ITEMS,
    MAX_LINKS,
    MAX_RECENT,
    decode_items,
    decode_profile,
    encode_model,
)
from libs.common.errors import Invalid
from libs.common.scoring.decay import HALF_LIFE_SEASON, MAX_WEIGHT, faded
from services.analyzer.model.fold import Models, Step, fold
from services.analyzer.model.lessons import (
    LessonLine,
    OrderChangeLesson,
    OrderLesson,
    decode_lesson,
    encode_lesson,
    kind_of,
)
from services.analyzer.model.panel import MAX_BEFORE, Panel
from services.analyzer.model.profile import MAX_ACTIVITY, MAX_CONSENTS, MAX_TOTALS
from services.analyzer.model.readable import readable

T0 = 1_790_000_000_000


def base(at: int = T0, id_: str = "e", customer: str = "c-7") -> dict[str, Any]:
    return {"id": id_, "source": "shop", "customer": customer, "occurred_at": at, "recorded_at": at}


def touch(type_: str, at: int = T0, channel: str = "web", **more: Any) -> Touchpoint:
    options = {key: more.pop(key) for key in ("learn", "echo") if key in more}
    return Touchpoint(**base(at), type=type_, channel=channel, properties=more, **options)


def order(at: int, *lines: tuple[str, float, float | None], **more: Any) -> Touchpoint:
    products = [{"product_id": p, "quantity": q, "price": price} for p, q, price in lines]
    return touch("order_completed", at, order_id=f"o-{at}", products=products, **more)


def decision(id_: str, at: int = T0) -> Decision:
    offer = DecidedOffer(
        offer_id="product:x",
        product_id="x",
        kind="repeat",
        rank=1,
        score=1.0,
        propensity=1.0,
        mean=1.0,
        source="habit",
    )
    return Decision(
        **base(at, id_),
        placement="home",
        channel="web",
        group="treatment",
        policy_version="p",
        model_version=1,
        catalogue_version=1,
        seed=1,
        objective="uplift",
        offers=(offer,),
    )


def outcome(decision_id: str, word: str, at: int = T0, **more: Any) -> Outcome:
    return Outcome(
        **base(at, f"{decision_id}/{word}"), decision_id=decision_id, offer_id="x", outcome=word, **more
    )


def folded(*events: AboutCustomer, models: Models | None = None) -> Models:
    models = models or Models.new("c-7")
    for event in events:
        models = fold(models, event, T0).models
    return models


def last(*events: AboutCustomer) -> Step:
    return fold(folded(*events[:-1]), events[-1], T0 + 7)


def test_touchpoint_moves_totals_activity_hours_and_recency() -> None:
    profile = folded(touch("page_viewed", T0), touch("page_viewed", T0 + DAY, "app")).profile
    assert profile.totals == {"page_viewed": 2}
    assert (profile.first_at, profile.last_at) == (T0, T0 + DAY)
    assert set(profile.activity) == {"web/page_viewed", "app/page_viewed"}
    assert profile.hours[T0 // HOUR % 24].weight == pytest.approx(1 + 2 ** (-1 / 120))
    assert [touch.channel for touch in profile.recent] == ["web", "app"]


def test_order_fills_items_purchases_and_a_lesson() -> None:
    step = last(order(T0, ("coffee", 2, 7.5), ("coffee", 1, 7.0), ("filter", 1, None)))
    coffee = step.models.items.items["coffee"]
    assert (coffee.orders, coffee.quantity, coffee.price, coffee.cycle) == (1, 3.0, 7.0, 0.0)
    assert step.models.items.items["filter"].price == 0.0
    assert step.models.profile.purchases.orders == 1
    assert step.models.profile.purchases.value == 22.0
    (lesson,) = step.lessons
    assert isinstance(lesson, OrderLesson)
    assert (lesson.at, lesson.occurred_at, lesson.order_id) == (T0 + 7, T0, f"o-{T0}")
    assert lesson.lines[2] == LessonLine("filter", 1.0, None)
    assert decode_lesson(encode_lesson(lesson)) == lesson
    assert kind_of(lesson) == "order"


def test_golden_model_has_these_bytes() -> None:
    models = folded(order(T0, ("a", 1, 2.0)), order(T0 + 10 * DAY, ("a", 3, 4.0)), touch("x", T0 + DAY))
    assert msgspec.msgpack.decode(encode_model(models.items)) == {
        "customer": "c-7",
        "items": {
            "a": [
                2,
                [1.0 + 2.0 ** (-10 / 120), T0 + 10 * DAY],
                T0 + 10 * DAY,
                10.0 * DAY,
                2.0,
                4.0,
                [0.0, 0],
                0,
                [T0 // DAY, T0 // DAY + 10],
            ]
        },
    }


def test_late_order_finds_its_place() -> None:
    times = [T0, T0 + 10 * DAY, T0 + 40 * DAY]
    straight = folded(*(order(at, ("a", 1, float(n))) for n, at in enumerate(times, 1))).items.items["a"]
    prices = dict(zip(times, (1.0, 2.0, 3.0), strict=True))
    for shuffled in ([2, 0, 1], [1, 2, 0], [2, 1, 0]):
        late = folded(*(order(times[n], ("a", 1, prices[times[n]])) for n in shuffled)).items.items["a"]
        assert (late.orders, late.last_bought_at, late.price) == (3, times[2], 3.0)
        assert late.cycle == pytest.approx(20 * DAY)
        assert late.bought.weight == pytest.approx(straight.bought.weight)
        assert late.bought.at == straight.bought.at


def test_return_undoes_the_purchase_and_teaches() -> None:
    before = folded(order(T0, ("a", 1, 5.0), ("b", 1, 3.0)), order(T0 + DAY, ("a", 1, 5.0)))
    change = touch("order_returned", T0 + 2 * DAY, order_id="o", products=[{"product_id": "a"}])
    step = fold(before, change, T0)
    assert step.models.items.items["a"].orders == 1
    assert step.models.items.items["a"].bought.weight == pytest.approx(2 ** (-1 / 120))
    assert step.models.profile.purchases.value == 8.0
    assert isinstance(step.lessons[0], OrderChangeLesson)
    assert step.lessons[0].change == "returned"
    assert kind_of(step.lessons[0]) == "order_change"
    again = fold(step.models, change, T0).models
    assert "a" not in again.items.items


def test_cancelled_order_without_lines_is_an_average_one() -> None:
    before = folded(order(T0, ("a", 1, 6.0)), order(T0 + DAY, ("b", 1, 4.0)))
    after = fold(before, touch("order_cancelled", order_id="o"), T0).models
    assert (after.profile.purchases.orders, after.profile.purchases.value) == (1, 5.0)
    assert after.items is before.items


def test_view_counts_and_fades() -> None:
    item = folded(*(touch("product_viewed", T0 + n * 14 * DAY, product_id="a") for n in range(2)))
    assert item.items.items["a"].viewed.weight == 1.5
    assert item.profile.recent[-1].product_id == "a"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (touch("survey_answered", rating=0), -1.0),
        (touch("survey_answered", rating=10), 1.0),
        (touch("review_posted", rating=4), 0.5),
        (touch("review_posted", sentiment=-0.25), -0.25),
    ],
)
def test_rating_moves_satisfaction(event: Touchpoint, expected: float) -> None:
    total, weight = folded(event).profile.satisfaction
    assert (total.weight, weight.weight) == (expected, 1.0)


@pytest.mark.parametrize("rating", ["five", None, True, 99, -1, 1e300])
def test_odd_rating_of_a_review_moves_nothing(rating: object) -> None:
    assert folded(touch("review_posted", rating=rating)).profile.satisfaction[1].weight == 0.0


def test_latest_consent_holds_and_a_refusal_wins_a_tie() -> None:
    def word(granted: bool, at: int) -> ConsentGiven:
        return ConsentGiven(**base(at), purpose="mail", granted=granted, channel="email")

    for events in ([word(True, 1), word(False, 2)], [word(False, 2), word(True, 1)]):
        assert not folded(*events).profile.consents["mail/email"].granted
    for events in ([word(True, 2), word(False, 2)], [word(False, 2), word(True, 2)]):
        assert not folded(*events).profile.consents["mail/email"].granted
    assert folded(word(False, 2), word(True, 3)).profile.consents["mail/email"].granted


def test_link_and_owner() -> None:
    link = IdentityLinked(**base(), customer_id="c-7", anonymous_id="v")
    assert folded(link, link).profile.links == ("anon:v",)
    owner = IdentityLinked(**base(customer="anon:v"), customer_id="c-7", anonymous_id="v", internal=True)
    second = IdentityLinked(**base(customer="anon:v"), customer_id="c-8", anonymous_id="v", internal=True)
    visitor = folded(owner, second, models=Models.new("anon:v")).profile
    assert (visitor.owner, visitor.frozen) == ("c-8", ("c-7",))
    assert visitor.totals == {}


def test_outcome_finds_its_decision_once_per_word() -> None:
    step = last(decision("d"), outcome("d", "shown"), outcome("d", "clicked"), outcome("d", "shown"))
    assert step.models.profile.decisions[0].outcomes == ("shown", "clicked")
    assert not step.unmatched
    assert last(decision("d"), outcome("other", "shown")).unmatched
    kept = last(decision("d"), outcome("d", "shown", learn=False))
    assert kept.models.profile.decisions[0].outcomes == ()
    assert not kept.unmatched


def test_what_is_not_learned_moves_totals_only() -> None:
    step = last(order(T0, ("a", 1, 1.0), learn=False))
    assert step.models == Models.new("c-7")._replace(
        profile=msgspec.structs.replace(Models.new("c-7").profile, totals={"order_completed": 1})
    )
    assert step.lessons == ()


def test_echo_and_answers_about_nobody_move_nothing() -> None:
    assert last(order(T0, ("a", 1, 1.0), echo=True)).models == Models.new("c-7")
    nobody = Models.new("event:1")
    assert fold(nobody, msgspec.structs.replace(decision("d"), customer="event:1"), T0).models is nobody


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"order_id": "o", "products": []},
        {"order_id": "o", "products": [{"product_id": "a", "quantity": 0}]},
        {"order_id": "o", "products": [{"product_id": "a", "price": -1}]},
        {"order_id": "o", "products": [{"product_id": "a", "price": "1"}]},
    ],
)
def test_order_of_the_wrong_shape_is_invalid(properties: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        folded(touch("order_completed", **properties))


def test_huge_numbers_stay_finite() -> None:
    models = folded(*(order(T0 + n, ("a", 1e6, 1e308)) for n in range(5)))
    assert models.profile.purchases.value == MAX_WEIGHT
    assert models.items.items["a"].price == MAX_WEIGHT
    readable(models.profile, models.items)


def test_models_stay_bounded() -> None:
    models = Models.new("c-7")
    for n in range(1_100):
        models = folded(
            touch(f"type_{n}", T0 + n, f"channel_{n}"),
            touch("x" * 300, T0 + n, "y" * 300, product_id="p" * 300),
            models=models,
        )
        models = folded(touch("product_viewed", T0 + n * 1_000, product_id=f"p-{n}"), models=models)
    for n in range(100):
        models = folded(
            decision(f"d-{n}", T0 + n),
            ConsentGiven(**base(), purpose=f"purpose {n}", granted=True),
            IdentityLinked(**base(), customer_id="c-7", anonymous_id=f"v-{n}"),
            models=models,
        )
    profile, items, _ = models
    assert len(profile.totals) <= MAX_TOTALS + 1
    assert len(profile.activity) <= MAX_ACTIVITY + 1
    assert len(profile.consents) <= MAX_CONSENTS + 1
    assert len(profile.recent) == MAX_RECENT
    assert len(profile.links) == MAX_LINKS
    assert [made.decision_id for made in profile.decisions] == [
        f"d-{n}" for n in range(100 - MAX_DECISIONS, 100)
    ]
    assert set(items.items) == {f"p-{n}" for n in range(1_100 - MAX_ITEMS, 1_100)}
    assert sum(profile.totals.values()) == 3 * 1_100 + 200 + 100
    assert len(encode_model(profile)) < 16_000


times = st.integers(T0 - 400 * DAY, T0 + DAY)
products = st.sampled_from([f"p-{n}" for n in range(6)])
amounts = st.floats(0.25, 1000.0)
touches = st.builds(
    touch, st.sampled_from(["page_viewed", "call_ended"]), times, st.sampled_from(["web", "phone"])
)
views = st.builds(lambda at, product: touch("product_viewed", at, product_id=product), times, products)
orders = st.builds(
    lambda at, lines: order(at, *lines), times, st.lists(st.tuples(products, amounts, amounts), min_size=1)
)
surveys = st.builds(lambda at, rating: touch("survey_answered", at, rating=rating), times, st.floats(0, 10))
events = touches | views | orders | surveys


@given(st.lists(events, max_size=30), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_storing_a_model_in_between_changes_no_bit(happened: list[AboutCustomer], cut: int) -> None:
    straight = folded(*happened)
    middle = folded(*happened[:cut])
    stored = Models(decode_profile(encode_model(middle.profile)), decode_items(encode_model(middle.items)))
    resumed = folded(*happened[cut:], models=stored)
    assert encode_model(resumed.profile) == encode_model(straight.profile)
    assert encode_model(resumed.items) == encode_model(straight.items)


@given(st.lists(events, max_size=20), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_arrival_changes_counts_by_rounding_only(happened: list[AboutCustomer], random: Any) -> None:
    straight = folded(*happened)
    shuffled = folded(*random.sample(happened, len(happened)))
    a, b = straight.profile, shuffled.profile
    assert (a.totals, a.first_at, a.last_at) == (b.totals, b.first_at, b.last_at)
    assert a.purchases.orders == b.purchases.orders
    assert a.purchases.value == pytest.approx(b.purchases.value)
    assert set(straight.items.items) == set(shuffled.items.items)
    for key, item in straight.items.items.items():
        other = shuffled.items.items[key]
        assert (item.orders, item.last_bought_at, item.last_viewed_at) == (
            other.orders,
            other.last_bought_at,
            other.last_viewed_at,
        )
        assert item.cycle == pytest.approx(other.cycle, abs=1.0)
        assert item.quantity == pytest.approx(other.quantity)
        assert faded(item.bought, T0 + DAY, HALF_LIFE_SEASON) == pytest.approx(
            faded(other.bought, T0 + DAY, HALF_LIFE_SEASON)
        )


def test_an_orders_lesson_says_what_was_known_before_for_the_panel_alone() -> None:
    before = folded(order(T0, ("x", 1, 2.0)), order(T0 + DAY, ("y", 1, None)))
    bought = order(T0 + 2 * DAY, ("z", 1, 1.0))
    lesson = fold(before, bought, T0).lessons[0]
    assert isinstance(lesson, OrderLesson)
    assert (lesson.before, lesson.channel) == (before.items, "web")
    assert decode_lesson(encode_lesson(lesson)) == lesson
    outside = fold(before, bought, T0, Panel(0.0)).lessons[0]
    assert isinstance(outside, OrderLesson)
    assert outside.before is None
    imported = msgspec.structs.replace(bought, flags=("imported",))
    learned = fold(before, imported, T0).lessons[0]
    assert isinstance(learned, OrderLesson)
    assert learned.before == before.items


def test_an_orders_lesson_carries_the_newest_products_only() -> None:
    many = folded(*(order(T0 + n, (f"p{n}", 1, None)) for n in range(MAX_BEFORE + 9)))
    lesson = fold(many, order(T0 + DAY, ("z", 1, 1.0)), T0).lessons[0]
    assert isinstance(lesson, OrderLesson)
    assert lesson.before is not None
    assert set(lesson.before.items) == {f"p{n}" for n in range(9, MAX_BEFORE + 9)}


def test_panel_is_a_stable_sample_of_about_its_share() -> None:
    panel, wider = Panel(0.3), Panel(0.4)
    inside = {f"c-{n}" for n in range(4_000) if f"c-{n}" in panel}
    assert 0.27 < len(inside) / 4_000 < 0.33
    assert all(key in wider for key in inside)
    assert inside == {f"c-{n}" for n in range(4_000) if f"c-{n}" in Panel(0.3)}


def test_machines_make_no_customer() -> None:
    crawled = Touchpoint(
        **base(), type="product_viewed", channel="web", learn=False, flags=("automatic:crawler",)
    )
    assert fold(Models.new("c-7"), crawled, T0).models == Models.new("c-7")
