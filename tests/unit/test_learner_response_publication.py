"""Responses as they are published: what was learned, what still waits, parts that fit a record."""

from __future__ import annotations

import math

import numpy as np
import pytest

from libs.common.scoring.response import HEADS, ResponseModel
from libs.common.scoring.trial import RESPONSE_FEATURES, SHARED_FEATURES
from services.analyzer.learner import checkpoint
from services.analyzer.learner.caused import MOST_PLACES
from services.analyzer.learner.fold import Place
from services.analyzer.learner.parts import Publications, Solved, content_of
from tests.unit.response_world import folded, published, world
from tests.unit.trial_world import DAY, T0, WINDOW, lesson


def test_what_is_published_is_what_was_learned() -> None:
    fold = folded(world(300))
    model = published(fold)
    x = world(1)[0].features()
    own, shared = x[: len(RESPONSE_FEATURES)][None, :], x[len(RESPONSE_FEATURES) :]
    for number, name in enumerate(HEADS):
        head = fold.response.settled()[name]
        offers, cells = head.offers.arrays()[0], head.cells.arrays()[0]
        row, cell = head.offers.index["product:3"], head.cells.index[2]
        odds = x @ head.mean + offers[row] + cells[cell]
        said = model.head_means(own, shared, ["product:3"], np.array([2]))[0, number]
        assert said == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-5)
        assert model.heads[number].root @ model.heads[number].root.T == pytest.approx(
            head.covariance, abs=1e-6
        )
        assert model.heads[number].offer_variance == head.offers.variance
    assert 0.0 <= model.shares[""]["repeat"] <= 1.0
    assert set(model.shares) == {"", "home", "mail"}


def test_what_waits_is_published_and_does_not_outlive_its_day() -> None:
    fold = folded(world(200))
    assert fold.response.heads["engaged"].seen > 8 * 20
    fold.response.learn_one(lesson(fold.response.day * DAY, step="declined", offer_id="product:3"))
    before, state = published(fold), checkpoint.digest(fold)
    assert fold.response.waiting["engaged"]
    fold.response.learn_one(lesson(fold.response.day * DAY, step="declined", offer_id="product:3"))
    assert fold.response.waiting["engaged"]
    after, number = published(fold), HEADS.index("engaged")
    assert not np.array_equal(after.heads[number].mean, before.heads[number].mean)
    assert checkpoint.digest(fold) != state
    fold.response.learn_one(lesson((fold.response.day + 1) * DAY, step="shown"))
    assert not any(fold.response.waiting.values())


def test_parts_fit_a_record_whatever_ids_are_made_of() -> None:
    fold = folded(world(20))
    ids = [f"{n:04}" + "\U0001f381" * 252 for n in range(600)]
    for n, offer_id in enumerate(ids):
        fold.response.learn_one(lesson(T0 + 90 * DAY, step="declined", offer_id=offer_id, cell=n))
    places = [f"{n:04}" + "\U0001f6d2" * 252 for n in range(MOST_PLACES)]
    for place in places:
        fold.response.caused.learn_one(place, "repeat", ghost=False, bought=True)
        fold.response.converting.event(place, 0.5)
        fold.response.learn_one(lesson(T0 + 90 * DAY, step="declined", placement=place, rank=2))
    content = content_of(fold, T0, Solved()).response
    assert len(content.intercepts) > 5
    assert len(content.caused) > 1
    model = published(fold)
    assert model.intercepts is not None
    assert set(ids) < set(model.intercepts.offers)
    assert {"", *places[:-2]} <= set(model.shares)
    for name in (ids[0], ids[299], ids[-1]):
        row, head = model.intercepts.offers[name], fold.response.heads["engaged"]
        said = head.offers.arrays()[0][head.offers.index[name]]
        assert model.intercepts.mean[row, 0] == pytest.approx(said, rel=1e-5)


def test_before_the_first_trial_nothing_is_published_and_readers_believe_the_same() -> None:
    fold = folded([])
    content = content_of(fold, T0, Solved())
    assert (content.response.heads, content.response.intercepts, content.response.caused) == ((), (), ())
    own, shared = np.zeros((2, len(RESPONSE_FEATURES))), np.zeros(len(SHARED_FEATURES))
    own[:, 0], shared[0] = (-3.0, -1.0), 1.0
    assert published(fold).means(own, shared, ["a", "b"]).tolist() == (
        ResponseModel().means(own, shared, ["a", "b"]).tolist()
    )


def test_orders_alone_publish_no_response_again() -> None:
    fold = folded(world(40))
    solved, publications = Solved(), Publications()
    publications.records(content_of(fold, T0, solved), 1)
    missing, _ = publications.records(content_of(fold, T0 + 1, solved), 2)
    assert missing == []
    fold.learn_one(Place(2**40, 0, 0), lesson(T0 + 90 * DAY, step="look", age_to=WINDOW // 64))
    missing, _ = publications.records(content_of(fold, T0 + 2, solved), 3)
    assert {key.split(b"/")[0] for key, _, _ in missing} == {b"response", b"intercepts", b"caused"}
