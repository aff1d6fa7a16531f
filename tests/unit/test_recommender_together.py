"""Questions that meet: each step is done for all of them, and one failure is nobody else's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from libs.common.contracts.catalogue import KINDS, Offer, Placement
from libs.common.contracts.customer_event import encode_event
from libs.common.contracts.learned_model import InterceptsPart
from libs.common.scoring.learned import LearnedModels
from libs.common.scoring.response import HEADS, ResponseModel, intercepts_of
from libs.common.telemetry import Metrics
from libs.common.tokens import TokenSealer
from services.recommender.handlers import decide
from services.recommender.handlers import desk as desk_module
from services.recommender.handlers.decide import Decided, Decider, Holdout, Question
from services.recommender.handlers.desk import MOST, Desk
from services.recommender.metrics import RecommenderMetrics
from services.recommender.model.assortment import Assortment
from services.recommender.model.consent import Policy
from services.recommender.model.steps import Steps, side_by_side, together
from services.recommender.model.tables import TableMaker
from services.recommender.model.who import Who, who
from services.recommender.model.wire import Ask
from tests.benchmarks.decision import NOW, items_of, shop

T = TypeVar("T")


def test_a_step_is_done_once_for_all_that_have_come_to_it() -> None:
    seen: list[list[int]] = []

    def doubled(numbers: Sequence[int]) -> list[int]:
        seen.append(list(numbers))
        return [2 * number for number in numbers]

    def negated(numbers: Sequence[int]) -> list[int]:
        seen.append(list(numbers))
        return [-number for number in numbers]

    def work(number: int, steps: int) -> Steps[int]:
        for _ in range(steps):
            number = yield from together(doubled, number)
        return (yield from together(negated, number)) if steps else number

    assert side_by_side([work(1, 2), work(2, 0), work(3, 1)]) == [-4, 2, -6]
    assert seen == [[1, 3], [2], [6], [4]]


def test_a_failure_is_nobody_elses() -> None:
    def inverted(numbers: Sequence[int]) -> list[int]:
        return [6 // number for number in numbers]

    def work(number: int) -> Steps[int]:
        if number > 9:
            raise ValueError(number)
        inverse = yield from together(inverted, number)
        return (yield from together(inverted, inverse))

    first, failed, refused, last, late = side_by_side(map(work, (1, 0, 10, 2, 9)))
    assert (first, last) == (1, 2)
    assert isinstance(failed, ZeroDivisionError)
    assert isinstance(refused, ValueError)
    assert isinstance(late, ZeroDivisionError), "in its second step"


PLACEMENTS = (
    Placement(placement_id="plain"),
    Placement(placement_id="greedy", exploration=0.0),
    Placement(placement_id="near", near_best=0.2, ghosts=0.2),
    Placement(placement_id="dear", contact_cost=0.5, ghosts=0.4, limit=12, exploration=0.5),
    Placement(placement_id="silent", fallback="none"),
    Placement(placement_id="kinds", kinds=["up_sell", "repeat"], objective="acceptance"),
    Placement(placement_id="long", limit=40, objective="value", baseline=["deal", "product:p5"]),
)


def market(products: int) -> tuple[Assortment, LearnedModels]:
    """A shop with authored offers and `PLACEMENTS`, whose response model knows some of its offers."""
    assortment, learned = shop(products)
    for revision, placement in enumerate(PLACEMENTS, start=10_000):
        assortment.put("placement", placement.placement_id, placement, revision)
    for revision, kind in enumerate(KINDS[3:], start=20_000):
        content = Offer(offer_id=f"offer-{kind}", kind=kind, value=2.0, content={"sky": kind})
        assortment.put("offer", content.offer_id, content, revision)
    deal = Offer(offer_id="deal", kind="cross_sell", product_id="p3", cost=0.1)
    assortment.put("offer", deal.offer_id, deal, 30_000)
    numbers = np.random.default_rng(3).normal(0.1, 0.2, (3, len(HEADS), 2)).astype("<f4")
    known = InterceptsPart(
        version=1, part=0, offers=["deal", "product:p1", "gone"], cells=[], numbers=np.abs(numbers).tobytes()
    )
    weights = ResponseModel().heads
    response = ResponseModel(version=7, intercepts=intercepts_of([known], weights))
    return assortment, replace(learned, response=response)


def asked(products: int, count: int) -> list[Question]:
    """Questions of all kinds, none like another."""
    rng, found = random.Random(2), []
    for n in range(count):
        items = items_of(rng, products) if n % 7 else None
        person = Who(f"c{n}", (f"c{n}",) if n % 5 else (), None, items, {})
        context: dict[str, object] = {"basket": [f"p{rng.randrange(products)}" for _ in range(n % 4)]}
        if n % 2:
            context["product_id"] = f"p{rng.randrange(products)}"
        if n % 3 == 0:
            context["weather"] = f"rain {n}"
        ask = Ask(
            placement=PLACEMENTS[n % len(PLACEMENTS)].placement_id,
            context=context,
            limit=[None, 1, 10, 25][n % 4],
            exclude=[f"p{k}" for k in range(n % 6)],
            dry_run=n % 11 == 0,
        )
        at = NOW + n * 3_600_000
        found.append(Question(ask, f"d{n}", person, at, at, True, stale=n % 13 == 0))
    return found


def decider_of(assortment: Assortment, learned: LearnedModels) -> Decider:
    return Decider(
        assortment,
        TableMaker(assortment, lambda: learned, lambda: 0.0),
        TokenSealer(b"k" * 32).seal,
        Holdout(b"s" * 32, 0.2, 0.1),
        Policy(),
        RecommenderMetrics(Metrics("recommender")),
    )


def test_a_large_catalogue_leaves_room_for_fewer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[int] = []

    def counted(works: Iterable[Steps[T]]) -> list[T | Exception]:
        some = list(works)
        met.append(len(some))
        return side_by_side(some)

    monkeypatch.setattr(decide, "side_by_side", counted)
    monkeypatch.setattr(decide, "ROOM", 60 * 8)
    decider = decider_of(*market(60))
    assert len(decider.decide(asked(60, MOST))) == MOST
    assert met == [8, 8, 4]
    monkeypatch.setattr(decide, "ROOM", 1)
    assert len(decider.decide(asked(60, 2))) == 2, "one at a time, however large"


@pytest.mark.parametrize("products", [0, 1, 60, 300])
def test_decisions_beside_others_are_those_made_alone_bit_for_bit(products: int) -> None:
    decider = decider_of(*market(products))
    questions = asked(max(products, 1), 60)
    beside_all = [
        one for start in range(0, 60, MOST) for one in decider.decide(questions[start : start + MOST])
    ]
    for question_, beside in zip(questions, beside_all, strict=True):
        [alone] = decider.decide([question_])
        assert isinstance(alone, Decided)
        assert isinstance(beside, Decided)
        assert (beside.answer, beside.pool) == (alone.answer, alone.pool)
        assert beside.answer.decision_id == question_.decision_id
        assert (beside.event is None) == (alone.event is None) == question_.ask.dry_run
        if beside.event is not None and alone.event is not None:
            assert encode_event(beside.event) == encode_event(alone.event)


def question(name: str) -> Question:
    ask = Ask(placement="p", decision_id=name)
    return Question(ask, name, who(None, None, name, lambda key: (None, None)), 0, 0, True)


class Kitchen:
    """Answers with the name of each question; notes which came together."""

    def __init__(self) -> None:
        self.rounds: list[int] = []

    async def serve(self, questions: Sequence[Question]) -> list[bytes | Exception]:
        self.rounds.append(len(questions))
        await asyncio.sleep(0)
        if any(one.decision_id == "all" for one in questions):
            raise RuntimeError("all")
        return [
            ValueError(one.decision_id) if one.decision_id == "bad" else one.decision_id.encode()
            for one in questions
        ]


async def test_who_asks_in_one_round_is_answered_together_up_to_a_bound() -> None:
    kitchen = Kitchen()
    desk = Desk(kitchen.serve)
    names = [f"q{n}" for n in range(2 * MOST + 5)]
    answers = await asyncio.gather(*(desk.answer(question(name)) for name in names))
    assert answers == [name.encode() for name in names]
    assert kitchen.rounds == [MOST, MOST, 5]
    assert await desk.answer(question("alone")) == b"alone"
    assert kitchen.rounds[-1] == 1


class SlowKitchen(Kitchen):
    """Answers nobody until it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    async def serve(self, questions: Sequence[Question]) -> list[bytes | Exception]:
        self.rounds.append(len(questions))
        await self.open.wait()
        return [one.decision_id.encode() for one in questions]


async def asked_one_by_one(desk: Desk, names: Sequence[str]) -> list[asyncio.Task[bytes]]:
    """Each in a round of the event loop of its own."""
    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(desk.answer(question(name))))
        for _ in range(4):
            await asyncio.sleep(0)
    return tasks


async def test_who_comes_while_others_are_served_gathers_for_the_next_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(desk_module, "PATIENCE", 3_600)
    kitchen = SlowKitchen()
    desk = Desk(kitchen.serve)
    tasks = await asked_one_by_one(desk, ["first", "a", "b", "c"])
    assert kitchen.rounds == [1]
    kitchen.open.set()
    assert await asyncio.gather(*tasks) == [b"first", b"a", b"b", b"c"]
    assert kitchen.rounds == [1, 3]


async def test_a_full_round_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "PATIENCE", 3_600)
    kitchen = SlowKitchen()
    desk = Desk(kitchen.serve)
    tasks = await asked_one_by_one(desk, [f"q{n}" for n in range(MOST + 4)])
    assert kitchen.rounds == [1, MOST]
    kitchen.open.set()
    await asyncio.gather(*tasks)
    assert kitchen.rounds == [1, MOST, 3]


async def test_a_round_that_takes_long_holds_up_the_next_one_for_a_moment_only() -> None:
    kitchen = SlowKitchen()
    desk = Desk(kitchen.serve)
    tasks = await asked_one_by_one(desk, ["first", "second"])
    async with asyncio.timeout(30):
        while kitchen.rounds != [1, 1]:
            await asyncio.sleep(0.01)
    kitchen.open.set()
    await asyncio.gather(*tasks)


async def test_who_gave_up_in_line_is_not_decided_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "PATIENCE", 3_600)
    kitchen = SlowKitchen()
    desk = Desk(kitchen.serve)
    first, gone, stays = await asked_one_by_one(desk, ["first", "gone", "stays"])
    gone.cancel()
    kitchen.open.set()
    assert await asyncio.gather(first, stays) == [b"first", b"stays"]
    assert kitchen.rounds == [1, 1]


async def test_at_the_desk_too_a_failure_is_nobody_elses() -> None:
    desk = Desk(Kitchen().serve)
    good, bad = await asyncio.gather(
        desk.answer(question("good")), desk.answer(question("bad")), return_exceptions=True
    )
    assert good == b"good"
    assert isinstance(bad, ValueError)
    with pytest.raises(RuntimeError, match="all"):
        await desk.answer(question("all"))


async def test_who_gives_up_waiting_does_not_disturb_the_others() -> None:
    desk = Desk(Kitchen().serve)
    gone = asyncio.create_task(desk.answer(question("gone")))
    stays = asyncio.create_task(desk.answer(question("stays")))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == b"stays"
