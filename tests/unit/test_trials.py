"""Trials: what opens, judges and converts them, and that no cut of the journal changes what they teach."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.common.bus.ports import Message
from libs.common.clock import DAY, HOUR, MINUTE
from libs.common.contracts.customer_event import (
    AboutCustomer,
    ConsentGiven,
    CustomerEvent,
    DecidedOffer,
    Decision,
    Outcome,
    Tick,
    Touchpoint,
    decode_event,
    encode_event,
)
from libs.common.contracts.topics import CUSTOMER_EVENTS
from libs.common.contracts.vectors import pack
from services.analyzer.handlers import slices
from services.analyzer.handlers.folding import (
    Changed,
    drop_idle,
    fire,
    fold_into,
    lesson_rows,
    model_rows,
    trial_rows,
)
from services.analyzer.handlers.slices import SliceHandler
from services.analyzer.model.cache import ModelCache
from services.analyzer.model.digest import partition_digest
from services.analyzer.model.erased import NOBODY_ERASED, KeyHasher
from services.analyzer.model.fold import Models, fold
from services.analyzer.model.lessons import TrialLesson, decode_lesson
from services.analyzer.model.trials.folds import MAX_DECISIONS
from services.analyzer.model.trials.looks import pass_time
from services.analyzer.model.trials.record import MAX_ORDERS, RETURNS, TRIALS, encode_record, kept_of
from services.analyzer.ports import LessonRow
from services.analyzer.store.memory import MemoryAnalyzerStore

T0 = 1_790_000_000_000
WEEK = 7 * DAY
SHARED = pack(np.array([[0.0, 2.5]]))[0]


def base(id_: str, at: int, customer: str = "c", **more: Any) -> dict[str, Any]:
    said = more.pop("occurred_at", at)
    return {
        "id": id_,
        "source": "s",
        "customer": customer,
        "occurred_at": said,
        "recorded_at": at,
        **more,
    }


def offer(product: str, rank: int) -> DecidedOffer:
    return DecidedOffer(
        offer_id=f"product:{product}",
        product_id=product,
        kind="cross_sell",
        rank=rank,
        score=1.0,
        propensity=0.25,
        mean=0.1,
        source="popular",
        chance=0.05,
        cell=rank,
        vector=pack(np.array([[float(rank), 0.0, 1.0]]))[0],
    )


def decision(
    id_: str, at: int, products: Sequence[str], ghosts: Sequence[tuple[str, int]] = (), **more: Any
) -> Decision:
    options: dict[str, Any] = {"window": WEEK, "shared": SHARED, "feature_set": "f1", **more}
    customer = options.pop("customer", "c")
    return Decision(
        **base(id_, at, customer),
        placement="home",
        channel="web",
        group="treatment",
        policy_version="p",
        model_version=1,
        catalogue_version=1,
        seed=1,
        objective="uplift",
        offers=tuple(offer(product, rank) for rank, product in enumerate(products, 1)),
        ghosts=tuple(offer(product, rank) for product, rank in ghosts),
        **options,
    )


def outcome(decision_id: str, product: str, word: str, at: int, **more: Any) -> Outcome:
    customer = more.pop("customer", "c")
    options = {"order_id": more.pop("order_id", None)}
    id_ = f"{decision_id}/product:{product}/{word}"
    return Outcome(
        **base(id_, at, customer, **more),
        decision_id=decision_id,
        offer_id=f"product:{product}",
        outcome=word,
        **options,
    )


def order(
    id_: str, at: int, *products: str, kind: str = "order_completed", customer: str = "c", **more: Any
) -> Touchpoint:
    lines = [{"product_id": product, "quantity": 1, "price": 2.0} for product in products]
    return Touchpoint(
        **base(f"{kind}/{id_}", at, customer, **more),
        type=kind,
        channel="web",
        properties={"order_id": id_, "products": lines},
    )


def analytics(id_: str, at: int, granted: bool, customer: str = "c") -> ConsentGiven:
    return ConsentGiven(**base(id_, at, customer), purpose="analytics", granted=granted)


class Person:
    """A customer to whom things happen, and what that teaches of trials."""

    def __init__(self) -> None:
        self.models = Models.new("c")
        self.told: list[TrialLesson] = []
        self.dropped = 0
        self.number = 0

    def live(self, *events: AboutCustomer) -> Person:
        for event in events:
            self.number += 1
            step = fold(self.models, event, event.recorded_at, number=self.number)
            self.models = step.models
            self.told += [look.lesson for look in step.looks]
            self.told += [lesson for lesson in step.lessons if isinstance(lesson, TrialLesson)]
            self.dropped += step.dropped
        return self

    def wait(self, until: int) -> Person:
        trials, looks = pass_time("c", self.models.trials, until)
        self.models = self.models._replace(trials=trials)
        self.told += [look.lesson for look in looks]
        return self

    def steps(self, product: str, *, ghost: bool = False) -> list[str]:
        return [lesson.step for lesson in self.told if lesson.product_id == product and lesson.ghost is ghost]

    def only(self, step: str, product: str) -> TrialLesson:
        (lesson,) = [one for one in self.told if one.step == step and one.product_id == product]
        return lesson


def shown(*products: str, at: int = T0, ghosts: Sequence[tuple[str, int]] = (), **more: Any) -> Person:
    """Someone to whom all of ``products`` were shown, one minute after the decision."""
    person = Person().live(decision("d", at, products, ghosts, **more))
    return person.live(*(outcome("d", product, "shown", at + MINUTE) for product in products))


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


# --- slices

CUSTOMERS = ("c", "e")
PRODUCTS = ("a", "b", "g")


@st.composite
def journals(draw: st.DrawFn) -> list[AboutCustomer]:
    """A journal of two customers, with steps of time of all sizes; some events are late."""
    at, events, made = T0, [], []
    for n in range(draw(st.integers(1, 22))):
        at += draw(st.sampled_from([0, 0, 1, MINUTE, HOUR, WEEK // 16, 2 * DAY, 9 * DAY]))
        customer, product = draw(st.sampled_from(CUSTOMERS)), draw(st.sampled_from(PRODUCTS))
        kinds = ["decision", "decision", "outcome", "outcome", "outcome", "order", "back", "word"]
        what = draw(st.sampled_from(kinds))
        if what == "decision" or (what == "outcome" and not made):
            products = draw(st.permutations(PRODUCTS))[: draw(st.integers(1, 2))]
            ghosts = [("g", 1)] if "g" not in products and draw(st.booleans()) else []
            seen, window = draw(st.integers(0, 2)), draw(st.sampled_from([WEEK, 90, 2 * DAY]))
            one = decision(
                f"d{n}", at, products, ghosts, assumed_shown=seen, window=window, customer=customer
            )
            made.append(one)
            events.append(one)
        elif what == "outcome":
            one = draw(st.sampled_from(made))
            word = draw(st.sampled_from(["shown", "shown", "clicked", "declined", "converted", "returned"]))
            said = outcome(one.id, product, word, at, customer=one.customer)
            events.append(replace(said, id=f"{said.id}/{n}", order_id=draw(st.sampled_from([None, "o1"]))))
        elif what == "word":
            events.append(analytics(f"w{n}", at, draw(st.booleans()), customer))
        else:
            kind = "order_completed" if what == "order" else "order_returned"
            bought = order(f"o{draw(st.integers(0, 2))}", at, product, kind=kind, customer=customer)
            echo = draw(st.booleans())
            late = at - draw(st.sampled_from([0, 0, DAY]))
            events.append(replace(bought, id=f"{n}", echo=echo, internal=echo, occurred_at=late))
    return events


class Shop:
    """Slices of one partition on a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryAnalyzerStore()
        self.handler = SliceHandler(self.store, KeyHasher(b"k" * 32))
        self.cache, self.due, self.offset, self.slices = ModelCache(1 << 20), 0, 0, 0

    async def take(self, events: Sequence[CustomerEvent]) -> None:
        messages = []
        for event in events:
            messages.append(Message(CUSTOMER_EVENTS, 0, self.offset, b"k", encode_event(event), (), 0))
            self.offset += 1
        while True:
            state = self.store.states.get(0) or await self.store.claim(0, 1, "x")
            made = await self.handler.prepare(state, self.cache, messages, NOBODY_ERASED, self.due)
            if made is None:
                return
            await self.store.write(made.write)
            self.due = made.due
            self.slices += 1
            for key, changed in made.customers.items():
                self.cache.put(key, changed.models, 0)

    def restart(self) -> None:
        self.cache, self.due = ModelCache(1 << 20), 0

    async def all(self) -> tuple[list[LessonRow], bytes]:
        """Everything taught, and the digest of the models."""
        rows = sorted(self.store.lessons.values(), key=lambda row: (row.second, row.number, row.part))
        return rows, await self.store.digest(0)


@pytest.fixture(autouse=True)
def one_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both customers live in partition 0, whatever their hashes say."""
    monkeypatch.setattr("services.analyzer.model.arrival.partition_of", lambda key: 0)


def anew(
    store: MemoryAnalyzerStore, journal_time: int, keys: Sequence[str] = CUSTOMERS
) -> tuple[list[LessonRow], bytes]:
    """What a rebuild makes of the events stored."""
    customers = {key: Changed(Models.new(key)) for key in keys}
    rows: list[LessonRow] = []
    for stored in store.stored:
        event: Any = decode_event(stored.body)
        step = fold_into(customers, event, stored.journal_time, stored.number)
        assert step is not None
        rows += lesson_rows(0, stored.number, stored.journal_time, step)
    rows += fire(customers, 0, journal_time)
    drop_idle(customers, journal_time, 1)
    parts = [(row.customer, row.part, row.body) for row in model_rows(0, customers) if row.body]
    parts += [(row.customer, TRIALS + row.decision, row.body) for row in trial_rows(0, customers)]
    return sorted(rows, key=lambda row: (row.second, row.number, row.part)), partition_digest(parts)


@settings(max_examples=120, deadline=None)
@given(journals(), st.data())
def test_no_cut_no_tick_and_no_restart_changes_a_bit(
    journal: list[AboutCustomer], data: st.DataObject
) -> None:
    end = Tick(partition=0, recorded_at=journal[-1].recorded_at + data.draw(st.sampled_from([1, 90 * DAY])))

    async def run() -> None:
        whole = Shop()
        await whole.take([*journal, end])
        cut = Shop()
        rest: list[CustomerEvent] = [*journal, end]
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            part, rest = rest[:size], rest[size:]
            at = part[-1].recorded_at
            if rest and data.draw(st.booleans()):
                at = data.draw(st.integers(at, rest[0].recorded_at))
                part.append(Tick(partition=0, recorded_at=at))
            await cut.take(part)
            if data.draw(st.booleans()):
                cut.restart()
        assert await cut.all() == await whole.all()
        assert anew(whole.store, end.recorded_at) == await whole.all()
        for row in whole.store.trials.rows.values():
            kept = kept_of(row.number, row.body)
            assert (kept.due, encode_record(kept.record)) == (row.due, row.body)
            assert kept.due >= end.recorded_at

    asyncio.run(run())


@pytest.mark.parametrize("words", [(False,), (False, True)])
async def test_looks_are_taught_by_what_was_said_when_they_fell_due(words: tuple[bool, ...]) -> None:
    journal: list[CustomerEvent] = [decision("d", T0, ["a"], assumed_shown=1)]
    # Half of the looks fall due before the first word, the judging one between it and the second.
    for n, granted in enumerate(words):
        journal.append(analytics(f"w{n}", T0 + WEEK // 8 + n * 20 * DAY, granted))
    journal.append(Tick(partition=0, recorded_at=T0 + 100 * DAY))
    whole, alone = Shop(), Shop()
    await whole.take(journal)
    for event in journal:
        await alone.take([event])
    rows, _ = await whole.all()
    assert [decode_lesson(row.body).step for row in rows] == ["shown", "look", "look"]
    assert await alone.all() == await whole.all()
    assert anew(whole.store, T0 + 100 * DAY) == await whole.all()


async def test_looks_of_who_never_comes_back_come_with_ticks_and_a_quiet_store_is_not_asked() -> None:
    shop, asked = Shop(), []
    ask = shop.store.due

    async def due(*args: Any) -> Any:
        asked.append(args)
        return await ask(*args)

    shop.store.due = due  # type: ignore[method-assign]
    await shop.take([decision("d", T0, ["a"], assumed_shown=1)])
    for minute in range(1, 200):
        await shop.take([Tick(partition=0, recorded_at=T0 + minute * MINUTE)])
    rows, _ = await shop.all()
    assert [decode_lesson(row.body).at for row in rows] == [T0, T0 + WEEK // 64]
    assert rows[1].second == (T0 + WEEK // 64) // 1000
    # The first slice asks, as every claim does, and the one that passes the look.
    assert len(asked) == 2


async def test_very_much_that_falls_due_at_once_comes_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    journal: list[CustomerEvent] = [
        decision(f"d{n}", T0 + n, ["a"], assumed_shown=1, customer=f"u{n % 40}") for n in range(120)
    ]
    journal += [order("o", T0 + 2 * HOUR, "a", customer="u3"), Tick(partition=0, recorded_at=T0 + 99 * DAY)]
    whole = Shop()
    await whole.take(journal)
    monkeypatch.setattr(slices, "DUE_AT_ONCE", 7)
    portions = Shop()
    await portions.take(journal[:50])
    await portions.take(journal[50:])
    assert await portions.all() == await whole.all()
    assert portions.slices > 20 * whole.slices
    assert portions.store.states[0].number == whole.store.states[0].number == 121
