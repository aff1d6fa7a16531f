"""Trials: what opens them, how they are looked at and judged, and what is forgotten."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from msgspec.structs import replace

from libs.common.clock import DAY, HOUR, MINUTE
from services.analyzer.model.trials.folds import MAX_DECISIONS
from tests.unit.offer_world import T0, WEEK, Person, decision, order, outcome, shown


def test_an_offer_that_was_shown_is_looked_at_four_times_and_judged() -> None:
    person = shown("a", "b").wait(T0 + 8 * DAY)
    mine = [lesson for lesson in person.told if lesson.product_id == "b"]
    assert [lesson.step for lesson in mine] == ["shown", *["look"] * 4]
    ages = [0, WEEK // 64, WEEK // 16, WEEK // 4, WEEK]
    looks = mine[1:]
    assert [(look.age_from, look.age_to) for look in looks] == list(pairwise(ages))
    assert [look.at for look in looks] == [T0 + MINUTE + age for age in ages[1:]]
    assert [look.judged for look in looks] == [False, False, False, True]
    assert not any(look.bought or look.engaged for look in looks)
    told = mine[0]
    assert (told.rank, told.propensity, told.chance, told.window) == (2, 0.25, 0.05, WEEK)
    assert (told.placement, told.channel, told.group, told.objective) == (
        "home",
        "web",
        "treatment",
        "uplift",
    )
    assert told.features().tolist() == [2.0, 0.0, 1.0, 0.0, 2.5]
    assert all(look.features().tolist() == told.features().tolist() for look in looks)
    assert person.models.trials.kept == {}


def test_lessons_say_how_likely_an_offer_had_stood_above_or_below() -> None:
    event = decision("d", T0, ["a", "b", "c", "d"], [("e", 3)], assumed_shown=4)
    swapped = dict(zip("abcd", (0.0, 0.25, 7.0, math.nan), strict=True))
    offers = tuple(replace(one, swapped=swapped[str(one.product_id)]) for one in event.offers)
    person = Person().live(replace(event, offers=offers)).wait(T0 + 8 * DAY)
    said = {lesson.product_id: lesson.swapped for lesson in person.told if not lesson.ghost}
    assert said == {"a": (0.0, 0.25), "b": (0.25, 1.0), "c": (1.0, 0.0), "d": (0.0, 0.0)}


def test_what_was_not_reported_shown_is_unknown_and_forgotten() -> None:
    person = Person().live(decision("d", T0, ["a"]))
    assert person.wait(T0 + WEEK).models.trials.kept
    assert person.wait(T0 + WEEK + 1).models.trials.kept == {}
    assert person.live(outcome("d", "a", "shown", T0 + WEEK + 2)).told == []


def test_the_first_places_are_assumed_shown_where_that_is_declared() -> None:
    person = Person().live(decision("d", T0, ["a", "b", "c"], [("g", 2), ("h", 3)], assumed_shown=2))
    assert [lesson.product_id for lesson in person.told] == ["a", "b"]
    person.live(outcome("d", "a", "shown", T0 + 5)).wait(T0 + 8 * DAY)
    assert person.steps("a") == ["shown", *["look"] * 4]
    assert person.steps("c") == []
    assert person.steps("g", ghost=True) == ["look"]
    assert person.steps("h", ghost=True) == []


def test_more_assumed_shown_than_was_offered_ends_at_the_last_place() -> None:
    person = Person().live(decision("d", T0, ["a", "b"], assumed_shown=10**15))
    assert [lesson.product_id for lesson in person.told] == ["a", "b"]


def test_replays_teach_nothing_nor_does_what_is_not_to_be_learned() -> None:
    person = Person().live(decision("d", T0, ["a"], replay=True), outcome("d", "a", "shown", T0 + 1))
    assert person.told == []
    person = Person().live(decision("d", T0, ["a"]))
    person.live(replace(outcome("d", "a", "shown", T0 + 1), learn=False))
    assert person.told == []
    person = shown("a").live(replace(order("o", T0 + HOUR, "a"), learn=False))
    assert "converted" not in person.steps("a")


def test_what_is_said_before_the_showing_counts_once_it_was_shown() -> None:
    person = Person().live(decision("d", T0, ["a", "b"]), outcome("d", "a", "clicked", T0 + 1))
    person.live(outcome("d", "a", "converted", T0 + 2), outcome("d", "b", "accepted", T0 + 2))
    assert person.told == []
    person.live(outcome("d", "a", "shown", T0 + 3))
    assert person.steps("a") == ["shown", "engaged", "converted"]
    person.wait(T0 + 8 * DAY)
    assert person.steps("b") == []


def test_engagement_is_told_once_and_known_to_later_looks() -> None:
    person = shown("a").live(
        outcome("d", "a", "opened", T0 + HOUR),
        outcome("d", "a", "clicked", T0 + DAY),
        outcome("d", "a", "declined", T0 + DAY + 1),
        outcome("d", "nothing", "clicked", T0 + DAY),
        outcome("never made", "a", "clicked", T0 + DAY),
    )
    person.wait(T0 + 8 * DAY)
    assert person.steps("a") == ["shown", "engaged", "look", "look", "declined", "look", "look"]
    assert person.only("engaged", "a").seen_to == 0
    assert all(look.engaged for look in person.told if look.step == "look")


def test_oldest_decisions_leave_first_with_the_look_they_have_reached() -> None:
    person = shown("a")
    for n in range(MAX_DECISIONS):
        person.live(decision(f"n{n}", T0 + HOUR + n, ["b"]))
    assert person.dropped == 1
    assert len(person.models.trials.kept) == MAX_DECISIONS
    assert "d" not in person.models.trials.kept
    look = person.told[-1]
    assert (look.step, look.age_from, look.judged) == ("look", 0, False)
    assert look.age_to == look.at - T0 - MINUTE


@pytest.mark.parametrize("vector", [b"\xff", b"\x01\x01\x00\x00\xc0\x7f", b"\x01\x01"])
def test_a_vector_that_is_none_teaches_no_numbers(vector: bytes) -> None:
    made = decision("d", T0, ["a"])
    broken = replace(made, offers=(replace(made.offers[0], vector=vector, propensity=1e308),))
    person = Person().live(broken, outcome("d", "a", "shown", T0 + 1))
    told = person.only("shown", "a")
    assert told.features().size == 0
    assert told.propensity == 1.0


@pytest.mark.parametrize("window", [-5, 0, 1, 1 << 62])
def test_windows_are_bounded(window: int) -> None:
    person = shown("a", at=T0, window=window).wait(T0 + 800 * DAY)
    assert person.models.trials.kept == {}
