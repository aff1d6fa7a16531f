"""Trials that convert: which one a purchase is credited to, and what comes back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.common.clock import DAY, HOUR, MINUTE
from services.analyzer.model.fold import fold
from services.analyzer.model.lessons import TrialLesson
from services.analyzer.model.trials.record import MAX_ORDERS, RETURNS
from tests.unit.offer_world import T0, WEEK, Person, decision, order, outcome, shown


def test_an_order_within_the_window_converts_and_its_looks_end() -> None:
    person = shown("a").live(order("o", T0 + DAY, "a", "z")).wait(T0 + 8 * DAY)
    told = person.only("converted", "a")
    assert (told.age_to, told.seen_to) == (DAY - MINUTE, WEEK // 16)
    looks = [one for one in person.told if one.step == "look"]
    assert [(one.age_from, one.age_to, one.judged) for one in looks] == [
        (0, WEEK // 64, False),
        (WEEK // 64, WEEK // 16, False),
        (WEEK, WEEK, True),
    ]
    assert looks[-1].bought
    late = shown("a").live(order("o", T0 + MINUTE + WEEK + 1, "a"))
    assert late.steps("a") == ["shown", *["look"] * 4]
    last_moment = shown("a").live(order("o", T0 + MINUTE + WEEK, "a")).wait(T0 + 9 * DAY)
    assert last_moment.steps("a") == ["shown", *["look"] * 3, "converted", "look"]


def test_an_order_from_before_the_showing_credits_nothing() -> None:
    person = shown("a").live(order("o", T0 + DAY, "a", occurred_at=T0 - DAY))
    person.live(order("i", T0 + DAY, "a", occurred_at=T0 - 300 * DAY)).wait(T0 + 8 * DAY)
    assert "converted" not in person.steps("a")
    assert not person.told[-1].bought


def test_the_latest_trial_gets_the_credit_and_each_is_judged_alone() -> None:
    person = shown("a", ghosts=[("g", 1)])
    person.live(decision("later", T0 + HOUR, ["a", "g"]), outcome("later", "a", "shown", T0 + 2 * HOUR))
    person.live(order("o", T0 + 3 * HOUR, "a", "g"), order("o2", T0 + 4 * HOUR, "a"))
    assert person.only("converted", "a").decision_id == "later"
    person.wait(T0 + 9 * DAY)
    judged = [one for one in person.told if one.judged]
    assert [(one.decision_id, one.product_id, one.ghost, one.bought) for one in judged] == [
        ("d", "a", False, True),
        ("d", "g", True, True),
        ("later", "a", False, True),
    ]
    earlier = [one for one in person.told if one.step == "look" and one.decision_id == "d" and not one.ghost]
    assert len(earlier) == 4
    assert earlier[-1].age_from == WEEK // 4
    assert person.steps("g", ghost=True) == ["look"]


def test_a_posted_conversion_joins_by_order_and_never_counts_beside_the_found_one() -> None:
    posted = outcome("d", "a", "converted", T0 + DAY + 5, order_id="o")
    found = order("o", T0 + DAY, "a")
    assert shown("a").live(found, posted).only("converted", "a").at == T0 + DAY
    early = replace(posted, recorded_at=T0 + HOUR, occurred_at=T0 + HOUR)
    assert shown("a").live(early, found).only("converted", "a").at == T0 + HOUR
    content = shown("a").live(replace(early, order_id=None))
    assert content.only("converted", "a").at == T0 + HOUR
    assert content.wait(T0 + 8 * DAY).told[-1].bought
    other = shown("a").live(decision("d2", T0 + 2 * MINUTE, ["a"]), outcome("d2", "a", "shown", T0 + HOUR))
    other.live(found, posted)
    assert other.only("converted", "a").decision_id == "d2"


def twice(*, at: int = T0 + 2 * MINUTE) -> Person:
    """The same product in two decisions, shown one after the other."""
    person = shown("a").live(decision("d2", at, ["a"]))
    return person.live(outcome("d2", "a", "shown", at + MINUTE))


def test_a_purchase_that_was_reported_without_its_order_credits_no_second_trial() -> None:
    unnamed = outcome("d", "a", "converted", T0 + HOUR)
    found = order("o", T0 + 2 * HOUR, "a")
    posted = outcome("d2", "a", "converted", T0 + 3 * HOUR, order_id="o")
    unnamed_later = outcome("d2", "a", "converted", T0 + 3 * HOUR)
    for events in (
        (unnamed, found),
        (unnamed, posted, found),
        (unnamed, unnamed_later, found),
        (unnamed, found, unnamed_later),
    ):
        assert twice().live(*events).only("converted", "a").decision_id == "d"
    assert twice().live(found, unnamed).only("converted", "a").decision_id == "d2"
    back = order("o", T0 + 4 * HOUR, kind="order_returned")
    person = twice().live(unnamed, found, back)
    assert person.only("returned", "a").decision_id == "d"
    assert not any(one.bought for one in person.wait(T0 + 9 * DAY).told if one.judged)
    again = twice().live(unnamed, found, order("o2", T0 + 5 * HOUR, "a"))
    assert [one.decision_id for one in again.told if one.step == "converted"] == ["d", "d2"]


def test_offers_without_a_product_are_taken_up_each_by_itself() -> None:
    made = decision("d", T0, ["a", "b"], assumed_shown=2)
    made = replace(made, offers=tuple(replace(one, product_id=None) for one in made.offers))
    person = Person().live(made, *(outcome("d", name, "converted", T0 + HOUR) for name in "ab"))
    told = [one.offer_id for one in person.told if one.step == "converted"]
    assert told == ["product:a", "product:b"]


def test_the_order_that_gets_the_credit_comes_back_after_many_others() -> None:
    person = shown("a").live(*(order(f"o{n}", T0 + HOUR + n, "a") for n in range(MAX_ORDERS + 1)))
    person.live(order("o0", T0 + DAY, "a", kind="order_returned"))
    assert person.steps("a")[-1] == "returned"


@pytest.mark.parametrize("kind", ["order_cancelled", "order_returned"])
@pytest.mark.parametrize("lines", [(), ("a",)])
def test_what_comes_back_is_taken_back(kind: str, lines: tuple[str, ...]) -> None:
    back = order("o", T0 + 2 * DAY, *lines, kind=kind)
    person = shown("a", ghosts=[("g", 1)]).live(order("o", T0 + DAY, "a", "g"), back)
    assert person.only("returned", "a").age_to == 2 * DAY - MINUTE
    person.wait(T0 + 8 * DAY)
    assert [one.bought for one in person.told if one.judged] == [False, lines != ()]
    again = shown("a").live(order("o", T0 + DAY, "a"), back, order("p", T0 + 3 * DAY, "a"))
    assert again.steps("a") == ["shown", "look", "look", "converted", "returned", "converted"]
    assert again.told[-1].seen_to == 0


def test_a_return_after_the_window_is_taken_back_too_for_some_time() -> None:
    person = shown("a", "b").live(order("o", T0 + DAY, "a"))
    person.wait(T0 + 30 * DAY).live(outcome("d", "a", "returned", T0 + 30 * DAY, order_id="o"))
    assert person.steps("a")[-1] == "returned"
    assert person.told[-1].features().tolist() == [1.0, 0.0, 1.0, 0.0, 2.5]
    assert person.wait(T0 + MINUTE + WEEK + RETURNS + 1).models.trials.kept == {}


def test_a_partial_return_of_something_else_takes_nothing_back() -> None:
    person = shown("a").live(order("o", T0 + DAY, "a", "b"))
    person.live(order("o", T0 + 2 * DAY, "b", kind="order_returned"))
    person.live(order("other", T0 + 2 * DAY, kind="order_cancelled"))
    assert "returned" not in person.steps("a")


def test_an_echo_credits_what_was_shown_before_the_login_and_teaches_no_order() -> None:
    person = shown("a")
    echo = replace(order("o", T0 + DAY, "a"), echo=True, internal=True)
    step = fold(person.models, echo, T0 + DAY)
    assert [lesson.step for lesson in step.lessons if isinstance(lesson, TrialLesson)] == ["converted"]
    assert len(step.lessons) == 1
    assert step.models.profile is person.models.profile
    assert step.models.items is person.models.items
