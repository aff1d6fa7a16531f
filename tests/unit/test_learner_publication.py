"""Publication and the whole loop in memory: what readers put together, elections, another bus, ticks."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Record
from libs.common.clock import DAY, SECOND
from libs.common.contracts.catalogue import Product, encode_entry, entry_key
from libs.common.contracts.customer_model import Decayed, Item, Items
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.learned_model import (
    COMPLEMENTS,
    MANIFEST_KEY,
    MAX_PART_BYTES,
    POPULARITY,
    Manifest,
    decode_learned,
)
from libs.common.contracts.marker import MARKER_KEY, Marker, decode_marker
from libs.common.contracts.topics import CATALOGUE, LEARNED_MODELS, TOPICS
from libs.common.errors import Fenced
from libs.common.scoring.choice import START
from libs.common.scoring.learned import LearnedAssembler
from libs.common.telemetry import Metrics
from libs.common.view import MemoryView
from services.analyzer.learner import checkpoint
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.complements import ComplementParameters
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.goods import GoodsParameters
from services.analyzer.learner.loop import Learner
from services.analyzer.learner.memory import MemoryLearnerStore
from services.analyzer.learner.metrics import LearnerMetrics
from services.analyzer.learner.parts import Publications, Solved, content_of
from services.analyzer.model.lessons import LessonLine, OrderLesson, encode_lesson
from tests.unit.trial_world import lesson as trial
from tests.unit.trial_world import vector

T0 = 1_700_000_000_000
S0 = T0 // SECOND
SMALL = Parameters(
    goods=GoodsParameters(complements=ComplementParameters(ridge=2.0, support=2.0, neighbours=20))
)


def lesson(n: int, products: list[str], at: int) -> OrderLesson:
    lines = [LessonLine(product_id, 1.0, None) for product_id in products]
    return OrderLesson(customer=f"c{n}", at=at, occurred_at=at, order_id=f"o{n}", lines=lines)


def orders(count: int, products: int = 40, prefix: str = "p") -> list[OrderLesson]:
    random = np.random.default_rng(8)
    return [
        lesson(n, [f"{prefix}{p}" for p in random.choice(products, size=6, replace=False)], T0 + n * 137)
        for n in range(count)
    ]


def folded(lessons: list[OrderLesson]) -> Fold:
    fold = Fold(SMALL)
    for n, one in enumerate(lessons):
        fold.learn_one(Place(one.at // SECOND, 0, n), one)
        if (at := fold.goods.due(one.at)) is not None:
            fold.goods.accept(fold.goods.solve(at), at)
    return fold


def assembled(assembler: LearnedAssembler, publications: Publications, fold: Fold, version: int) -> int:
    """Publish ``fold`` to a reader; the number of parts that were sent."""
    records, manifest = publications.records(content_of(fold, fold.goods.last_at, Solved()), version)
    for key, value, _ in records:
        assert len(value) <= MAX_PART_BYTES
        assert not assembler.put(key, value)
    assert assembler.put(MANIFEST_KEY, manifest)
    return len(records)


def test_large_models_are_split_and_put_together_again() -> None:
    fold = folded(
        orders(1500, products=900, prefix="a rather long name of a product, so that parts fill up ")
    )
    assembler, publications = LearnedAssembler(), Publications()
    assert assembled(assembler, publications, fold, 7) > 4
    models = assembler.models
    assert (models.version, models.orders) == (7, 1500)
    assert len(models.popularity.products) == len(fold.goods.counts.products)
    solved = fold.goods.solution.rows()
    for product_id in fold.goods.solution.products:
        assert models.complements.of(product_id) == solved[product_id]
    most = models.popularity.products[0]
    assert models.popularity.orders[0] == fold.goods.counts.seen[fold.goods.counts.index[most]]
    share = fold.goods.counts.popular[fold.goods.counts.index[most]] / fold.goods.counts.total
    assert models.popularity.share[0] == pytest.approx(share)


def test_unchanged_parts_are_not_sent_again() -> None:
    lessons = orders(60)
    fold = folded(lessons)
    assembler, publications = LearnedAssembler(), Publications()
    assembled(assembler, publications, fold, 1)
    fold.learn_one(Place(10**10, 0, 0), lesson(0, ["p1"], T0 + DAY))
    assert fold.goods.loose == {}
    # One product bought alone: popularity moves, the complements stay.
    assert assembled(assembler, publications, fold, 2) == 1
    assert assembler.models.version == 2
    late = LearnedAssembler()
    publications.forget()
    assembled(late, publications, fold, 3)
    assert late.models.complements.products == assembler.models.complements.products
    assert np.array_equal(late.models.complements.weight, assembler.models.complements.weight)


def test_product_that_the_solution_lacks_has_neighbours_at_once() -> None:
    fold = folded(orders(60))
    for n in range(3):
        fold.learn_one(Place(10**10, 0, n), lesson(n, ["brand new", "p1"], T0 + DAY))
    assembler = LearnedAssembler()
    assembled(assembler, Publications(), fold, 1)
    assert assembler.models.complements.of("brand new")[0].product_id == "p1"
    content = content_of(fold, 0, Solved())
    assert [list(part) for part in content.pairs] == [["brand new"]]
    assert "p1" in content.complements[0]


def _twelve(n: int) -> int:
    return n % PARTITIONS


class Rig:
    """A learner's surroundings: store, bus, and a reader that follows the topic."""

    def __init__(self) -> None:
        self.store = MemoryLearnerStore()
        self.bus = MemoryBus()
        self.assembler = LearnedAssembler()
        self.manifests: list[Manifest] = []
        self.markers: list[Marker] = []

    @classmethod
    async def ready(cls, lessons: list[OrderLesson], partition_of: Callable[[int], int] = _twelve) -> Rig:
        rig = cls()
        await rig.bus.ensure_topics(TOPICS)
        for n, one in enumerate(lessons):
            rig.store.rows[Place(one.at // SECOND, partition_of(n), n)] = encode_lesson(one)
        return rig

    def passes(self, second: int) -> None:
        self.store.journal_times = dict.fromkeys(range(PARTITIONS), second * SECOND)

    def learner(self, **changes: Any) -> Learner:
        pauses: dict[str, Any] = {
            "poll_seconds": 0.001,
            "publish_seconds": 0.0,
            "checkpoint_seconds": 0.0,
            "watch_seconds": 0.01,
        }
        pauses |= changes
        return Learner(
            self.store, self.bus, LearnerMetrics(Metrics("learner")), Random(1), parameters=SMALL, **pauses
        )

    @asynccontextmanager
    async def running(self, learner: Learner) -> AsyncIterator[Learner]:
        task = asyncio.create_task(learner.run())
        yield learner
        await learner.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def read(self) -> None:
        for message in self.bus.records(LEARNED_MODELS):
            assert message.value is not None
            if message.key == MARKER_KEY:
                self.markers.append(decode_marker(message.value))
                continue
            self.assembler.put(message.key, message.value)
            record = decode_learned(message.value)
            if isinstance(record, Manifest):
                self.manifests.append(record)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.002)


async def test_lessons_are_folded_in_canonical_order_however_they_are_spread() -> None:
    lessons = orders(120)
    digests = set()
    for spread in (lambda n: 0, lambda n: n % 2, lambda n: n % 12):
        rig = await Rig.ready(lessons, spread)
        # Same seconds would come in another order when the partitions change: one order a second here.
        rig.store.rows = {
            Place(S0 + place.number, place.partition, place.number): body
            for place, body in rig.store.rows.items()
        }
        async with rig.running(rig.learner()) as learner:
            for second in range(S0, S0 + 122, 11):
                rig.passes(second)
                await until(lambda second=second: learner.passed >= second * SECOND)
            rig.passes(S0 + 200)
            await until(lambda store=rig.store: store.state.orders == 120)
        fold = checkpoint.restore(rig.store.body, SMALL)
        assert fold is not None
        # The place names a partition; what was learned does not.
        fold.place = Place()
        digests.add(checkpoint.digest(fold))
    assert len(digests) == 1


async def test_no_lesson_is_folded_before_every_partition_has_passed_its_second() -> None:
    rig = await Rig.ready([lesson(n, ["a", "b"], T0 + n * SECOND) for n in range(10)])
    async with rig.running(rig.learner()) as learner:
        await until(lambda: learner.elected)
        await asyncio.sleep(0.02)
        assert learner.fold is not None
        assert learner.fold.goods.counts.orders == 0
        rig.passes(S0 + 20)
        rig.store.journal_times[7] = (S0 + 4) * SECOND
        await until(lambda: learner.fold is not None and learner.fold.goods.counts.orders == 4)
        await asyncio.sleep(0.02)
        assert learner.fold.goods.counts.orders == 4
        del rig.store.journal_times[7]
        await asyncio.sleep(0.02)
        rig.passes(S0 + 20)
        await until(lambda: rig.store.state.orders == 10)


async def test_state_after_restarts_equals_that_of_an_undisturbed_learner() -> None:
    lessons = orders(200)
    rig, calm = await Rig.ready(lessons), await Rig.ready(lessons)
    calm.passes(S0 + 100)
    async with calm.running(calm.learner()):
        await until(lambda: calm.store.state.orders == 200)
    for second in (S0 + 3, S0 + 9, S0 + 17, S0 + 100):
        rig.passes(second)
        async with rig.running(rig.learner()) as learner:
            await until(lambda second=second: learner.passed >= second * SECOND)
    assert rig.store.body == calm.store.body
    assert rig.store.epoch == 4


async def test_second_learner_waits_and_takes_over_with_higher_versions() -> None:
    rig = await Rig.ready(orders(50))
    first, second = rig.learner(), rig.learner()
    async with rig.running(second), rig.running(first):
        rig.passes(S0 + 4)
        await until(lambda: rig.store.state.version > 0)
        assert sorted([first.elected, second.elected]) == [False, True]
        leader, other = (first, second) if first.elected else (second, first)
        before = rig.store.version
        await leader.stop()
        await until(lambda: other.elected)
        rig.passes(S0 + 90)
        await until(lambda: rig.store.state.orders == 50)
    assert rig.store.version > before


async def test_learner_whose_epoch_is_over_writes_nothing() -> None:
    store = MemoryLearnerStore()
    async with store.leadership() as claim:
        store.epoch += 1
        with pytest.raises(Fenced):
            await store.next_version(claim.epoch)
        with pytest.raises(Fenced):
            await store.checkpoint(claim.epoch, Place(), b"")
    assert store.body is None


async def test_time_without_orders_is_published_under_the_same_version() -> None:
    rig = await Rig.ready(orders(30))
    async with rig.running(rig.learner()):
        rig.passes(S0 + 30)
        await until(
            lambda: rig.store.state.orders == 30 and rig.store.state.journal_time == (S0 + 30) * SECOND
        )
        version = rig.store.state.version
        rig.passes(S0 + 77)
        await until(lambda: rig.store.state.journal_time == (S0 + 77) * SECOND)
        assert rig.store.state.version == version
    rig.read()
    assert rig.manifests[-1].version == version
    assert rig.manifests[-1].journal_time == (S0 + 77) * SECOND
    assert (rig.assembler.models.version, rig.assembler.models.orders) == (version, 30)


async def test_everything_is_published_again_on_another_cluster() -> None:
    rig = await Rig.ready(orders(60))
    async with rig.running(rig.learner()):
        rig.passes(S0 + 60)
        await until(lambda: rig.store.state.orders == 60)
        version = rig.store.state.version
        rig.bus.replace_cluster("memory-2")
        await rig.bus.ensure_topics(TOPICS)
        await until(lambda: rig.store.state.version > version and rig.store.cluster == "memory-2")
    rig.read()
    assert rig.assembler.models.orders == 60
    # All parts and the manifest come before it.
    assert [marker.number for marker in rig.markers] == [rig.manifests[-1].version]
    assert rig.bus.records(LEARNED_MODELS)[4].key == MARKER_KEY
    assert rig.manifests[-1].parts[POPULARITY] == 1
    assert rig.manifests[-1].parts[COMPLEMENTS] == 1


async def test_topic_made_anew_on_the_same_cluster_is_filled_again() -> None:
    rig = await Rig.ready(orders(60))
    async with rig.running(rig.learner()):
        rig.passes(S0 + 60)
        await until(lambda: rig.store.state.orders == 60)
        rig.passes(S0 + 70)
        await until(lambda: rig.store.state.journal_time == (S0 + 70) * SECOND)
        version = rig.store.state.version
        rig.bus.recreate(LEARNED_MODELS)
        rig.passes(S0 + 80)
        await until(lambda: rig.store.state.version > version)
    rig.read()
    assert rig.assembler.models.orders == 60
    assert rig.markers[-1].number > version


async def test_broker_away_costs_freshness_only() -> None:
    rig = await Rig.ready(orders(60))
    rig.bus.go_away()
    async with rig.running(rig.learner()) as learner:
        rig.passes(S0 + 60)
        await until(lambda: learner.fold is not None and learner.fold.goods.counts.orders == 60)
        rig.bus.come_back()
        await until(lambda: rig.store.state.orders == 60)


def test_records_on_the_wire_are_the_contract() -> None:
    records, manifest = Publications().records(content_of(folded(orders(30)), 5, Solved()), 3)
    for _, value, version in records:
        assert decode_learned(value).version == version == 3  # type: ignore[union-attr]
    assert msgspec.msgpack.decode(manifest, type=Manifest).part_versions(COMPLEMENTS) == [3]


async def test_learner_waits_for_the_catalogue_and_publishes_what_it_learned_of_choices() -> None:
    usual = Items(customer="c", items={"p1": Item(orders=1, bought=Decayed(1.0, T0), last_bought_at=T0)})
    rig = await Rig.ready([msgspec.structs.replace(one, before=usual) for one in orders(60)])
    rig.passes(S0 + 60)
    catalogue, started = Catalogue(), asyncio.Event()
    # What has been read of it by chance is not enough: other choices would be learned.
    catalogue.remember([Product(product_id="p0", name="-", category="c", price=1.0, currency="EUR")])
    view = MemoryView(rig.bus, CATALOGUE, catalogue.on_batch)
    learner = rig.learner(catalogue=catalogue, whole=lambda: started.is_set() and view.caught_up)
    async with rig.running(learner):
        await until(lambda: learner.fold is not None)
        await asyncio.sleep(0.03)
        assert learner.fold is not None
        assert learner.fold.goods.counts.orders == 0
        products = [
            Product(product_id=f"p{n}", name="-", category="c", price=1.0, currency="EUR") for n in range(40)
        ]
        records = [
            Record(entry_key("product", product.product_id), encode_entry(product)) for product in products
        ]
        await rig.bus.producer().send(CATALOGUE, 0, records)
        await view.start()
        started.set()
        await until(lambda: rig.store.state.orders == 60)
        await view.stop()
    rig.read()
    assert learner.fold.choice.logit.samples > 5
    learned = rig.assembler.models.choice.weights
    assert learned.tobytes() == learner.fold.choice.logit.mean.tobytes()
    assert learned.tobytes() != START.weights.tobytes()


async def test_lessons_that_teach_nothing_are_counted_by_why_and_leave_every_weight_finite() -> None:
    odd = Items(customer="c", items={"p1": Item(orders=1, bought=Decayed(math.nan, T0), last_bought_at=T0)})
    rig = await Rig.ready([msgspec.structs.replace(one, before=odd) for one in orders(40)])
    bad = {"feature_set": {"feature_set": "old"}, "features": {"vector": b""}, "window": {"window": 0}}
    bad["not_finite"] = {"vector": vector(price=1e30)[0]}
    for n, changes in enumerate(bad.values(), 40):
        told = trial(T0, step="converted", age_to=1, **changes)
        rig.store.rows[Place(S0 + 1, 0, n)] = encode_lesson(told)
    rig.passes(S0 + 60)
    catalogue = Catalogue()
    catalogue.remember(
        [Product(product_id=f"p{n}", name="-", category="c", price=1.0, currency="EUR") for n in range(40)]
    )
    learner = rig.learner(catalogue=catalogue)
    async with rig.running(learner):
        await until(lambda: rig.store.state.orders == 40)
    told_of = dict(refusals(learner))
    assert told_of.pop(("choice", "not_finite")) > 5
    assert told_of == {("response", why): 1 for why in bad}
    assert learner.fold is not None
    assert not learner.fold.choice.logit.samples
    heads = learner.fold.response.heads.values()
    assert not any(head.seen for head in heads)
    assert all(np.isfinite(head.mean).all() for head in heads)


def refusals(learner: Learner) -> Iterator[tuple[tuple[str, str], float]]:
    """What a scrape says of lessons refused, by model and reason."""
    for line in learner._metrics.registry.render().decode().splitlines():
        said = re.match(r'closedloop_learner_lessons_refused_total{model="(.*)",reason="(.*)"} (.*)', line)
        if said and float(said[3]):
            yield (said[1], said[2]), float(said[3])


async def test_shop_without_a_catalogue_has_the_rest_learned() -> None:
    rig = await Rig.ready(orders(10))
    rig.passes(S0 + 60)
    async with rig.running(rig.learner(catalogue=Catalogue(), whole=lambda: True)):
        await until(lambda: rig.store.state.orders == 10)
