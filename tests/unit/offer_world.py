"""Offers to a customer, what comes of them, and an analyzer of one partition that takes them in slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from libs.common.bus.ports import Message
from libs.common.clock import DAY, MINUTE
from libs.common.contracts.customer_event import (
    AboutCustomer,
    ConsentGiven,
    CustomerEvent,
    DecidedOffer,
    Decision,
    Outcome,
    Touchpoint,
    decode_event,
    encode_event,
)
from libs.common.contracts.topics import CUSTOMER_EVENTS
from libs.common.contracts.vectors import pack
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
from services.analyzer.model.lessons import TrialLesson
from services.analyzer.model.trials.looks import pass_time
from services.analyzer.model.trials.record import TRIALS
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


CUSTOMERS = ("c", "e")


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
