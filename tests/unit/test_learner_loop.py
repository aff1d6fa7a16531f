"""The learner's loop in memory: the order it folds in, elections, what it waits for, what it refuses."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from libs.common.bus.ports import Record
from libs.common.clock import SECOND
from libs.common.contracts.catalogue import Product, encode_entry, entry_key
from libs.common.contracts.customer_model import Decayed, Item, Items
from libs.common.contracts.topics import CATALOGUE
from libs.common.errors import Fenced
from libs.common.scoring.choice import START
from libs.common.view import MemoryView
from services.analyzer.learner import checkpoint
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.fold import Place
from services.analyzer.learner.loop import Learner
from services.analyzer.learner.memory import MemoryLearnerStore
from services.analyzer.model.lessons import encode_lesson
from tests.unit.learner_world import S0, SMALL, T0, Rig, lesson, orders, until
from tests.unit.trial_world import lesson as trial
from tests.unit.trial_world import vector


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
