"""Questions that meet: each step is done for all of them, and one failure is nobody else's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from libs.common.contracts.customer_event import encode_event
from libs.common.telemetry import Metrics
from libs.common.tokens import TokenSealer
from services.recommender.handlers.decide import Decided, Decider, Holdout, Question
from services.recommender.handlers.desk import MOST, Desk
from services.recommender.metrics import RecommenderMetrics
from services.recommender.model.consent import Policy
from services.recommender.model.steps import Steps, side_by_side
from services.recommender.model.tables import TableMaker
from services.recommender.model.who import Who, who
from services.recommender.model.wire import Ask
from tests.benchmarks.decision import NOW, items_of, shop


def test_all_take_a_step_before_any_takes_the_next() -> None:
    seen: list[str] = []

    def work(name: str, steps: int) -> Steps[str]:
        for step in range(steps):
            seen.append(f"{name}{step}")
            yield
        return name

    assert side_by_side([work("a", 2), work("b", 0), work("c", 3)]) == ["a", "b", "c"]
    assert seen == ["a0", "c0", "a1", "c1", "c2"]


def test_a_failure_is_nobody_elses() -> None:
    def work(number: int) -> Steps[int]:
        yield
        return 6 // number

    first, failed, last = side_by_side(map(work, (1, 0, 2)))
    assert (first, last) == (6, 3)
    assert isinstance(failed, ZeroDivisionError)


def test_a_decision_beside_others_is_the_one_made_alone() -> None:
    assortment, learned = shop(60)
    rng = random.Random(2)
    people = [Who(f"c{n}", (f"c{n}",), None, items_of(rng, 60), {}) for n in range(6)]
    questions = [
        Question(Ask(placement="p", context={"product_id": f"p{n}"}), f"d{n}", one, NOW + n, NOW + n, True)
        for n, one in enumerate([*people, *people])
    ]
    decider = Decider(
        assortment,
        TableMaker(assortment, lambda: learned, lambda: 0.0),
        TokenSealer(b"k" * 32).seal,
        Holdout(b"s" * 32, 0.2, 0.1),
        Policy(),
        RecommenderMetrics(Metrics("recommender")),
    )
    together = decider.decide(questions)
    for asked, beside in zip(questions, together, strict=True):
        [alone] = decider.decide([asked])
        assert isinstance(alone, Decided)
        assert isinstance(beside, Decided)
        assert beside.event is not None
        assert alone.event is not None
        assert (beside.answer, beside.pool) == (alone.answer, alone.pool)
        assert encode_event(beside.event) == encode_event(alone.event)
        assert beside.answer.decision_id == asked.decision_id


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
