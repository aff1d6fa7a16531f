"""What analyzer and learner make of orders, folded in process."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from msgspec import convert

from deploy.local.demo.data import Basket
from deploy.local.demo.feed import order
from libs.common.bus.ports import Message
from libs.common.clock import SECOND, Millis
from libs.common.contracts.catalogue import Product, encode_entry, entry_key
from libs.common.contracts.customer_event import Touchpoint
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.learned_model import MANIFEST_KEY
from libs.common.contracts.topics import CATALOGUE
from libs.common.scoring.learned import LearnedAssembler, LearnedModels
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.fold import Fold, Place
from services.analyzer.learner.parts import Publications, Solved, content_of
from services.analyzer.model.fold import Models, fold
from services.analyzer.model.lessons import encode_lesson, journal_second


class Analyzer:
    """Folds orders as the slices of twelve partitions do; keeps models and numbers lessons."""

    def __init__(self) -> None:
        self.models: dict[str, Models] = {}
        self._times: list[Millis] = [0] * PARTITIONS
        self._numbers = [itertools.count(1) for _ in range(PARTITIONS)]

    def fold(self, event: Touchpoint) -> list[tuple[Place, bytes]]:
        """Fold ``event`` into its customer's models; what is to be learned from it."""
        partition = partition_of(event.customer)
        now = self._times[partition] = max(self._times[partition], event.recorded_at)
        before = self.models.get(event.customer) or Models.new(event.customer)
        step = fold(before, event, now)
        self.models[event.customer] = step.models
        number = next(self._numbers[partition])
        return [
            (Place(journal_second(now), partition, number, part), encode_lesson(lesson))
            for part, lesson in enumerate(step.lessons)
        ]


class Learner:
    """The learner's fold, and what it publishes of it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.fold = Fold(catalogue=catalogue)
        self._publications = Publications()
        self._solved = Solved()
        self._version = 0

    def learn(self, rows: list[tuple[Place, bytes]], until: Millis) -> None:
        """Fold lessons, in canonical order."""
        self.fold.learn_many(sorted(rows))
        self.fold.settle(until)

    def records(self, until: Millis) -> list[tuple[bytes, bytes, int]]:
        """Records (key, value, version) of a new version, the manifest last."""
        self._version += 1
        content = content_of(self.fold, until, self._solved)
        missing, manifest = self._publications.records(content, self._version)
        return [*missing, (MANIFEST_KEY, manifest, self._version)]


class Shadow:
    """Models of customers, and learned models, as the running services would hold them by now.

    Parameters
    ----------
    products:
        The catalogue, as it is posted.

    Attributes
    ----------
    now:
        Journal time: of a closing tick, as a collector writes it that hears nothing more.
    """

    def __init__(self, products: Sequence[dict[str, Any]]) -> None:
        self.now: Millis = 0
        self._analyzer = Analyzer()
        self._learner = Learner(_catalogue(products))
        self._assembler = LearnedAssembler()

    @property
    def learned(self) -> LearnedModels:
        """What was learned from everybody."""
        return self._assembler.models

    def of(self, customer: str) -> Models:
        """What is known about ``customer``."""
        return self._analyzer.models.get(customer) or Models.new(customer)

    def hear(self, baskets: Sequence[Basket]) -> tuple[set[str], list[tuple[bytes, bytes, int]]]:
        """Fold ``baskets``: whose models changed, and records (key, value, version) of what was learned."""
        if not baskets:
            return set(), []
        lessons = [lesson for basket in baskets for lesson in self._analyzer.fold(_event(basket))]
        self.now = baskets[-1].at + SECOND
        self._learner.learn(lessons, self.now)
        records = self._learner.records(self.now)
        for key, value, _ in records:
            self._assembler.put(key, value)
        return {basket.customer for basket in baskets}, records


def _catalogue(products: Sequence[dict[str, Any]]) -> Catalogue:
    """The catalogue as the learner reads it from its topic."""
    catalogue = Catalogue()
    messages = []
    for at, product in enumerate(products):
        key, value = entry_key("product", product["product_id"]), encode_entry(convert(product, Product))
        messages.append(Message(CATALOGUE, 0, at, key, value, (), 0))
    catalogue.on_batch(messages)
    return catalogue


def _event(basket: Basket) -> Touchpoint:
    """A basket as the collector journals it."""
    body = order(basket)
    return Touchpoint(
        id=body["id"],
        source="twin",
        customer=basket.customer,
        occurred_at=basket.at,
        recorded_at=basket.at,
        type=body["type"],
        channel=body["channel"],
        properties=body["properties"],
        customer_id=basket.customer,
    )
