"""Publication of what was learned: what readers put together, another bus, time without orders."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from libs.common.clock import DAY, SECOND
from libs.common.contracts.learned_model import (
    COMPLEMENTS,
    MANIFEST_KEY,
    MAX_PART_BYTES,
    POPULARITY,
    Manifest,
    decode_learned,
)
from libs.common.contracts.marker import MARKER_KEY
from libs.common.contracts.topics import LEARNED_MODELS, TOPICS
from libs.common.scoring.learned import LearnedAssembler
from services.analyzer.learner.fold import Fold, Place
from services.analyzer.learner.parts import Publications, Solved, content_of
from tests.unit.learner_world import S0, T0, Rig, folded, lesson, orders, until


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
