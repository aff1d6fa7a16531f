"""What the learner makes of trials: heads, delays, κ; the same state wherever it is cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from libs.common.contracts.learned_model import MAX_PART_BYTES
from libs.common.contracts.vectors import pack
from libs.common.scoring import choice, trial
from libs.common.scoring.learned import LearnedAssembler
from libs.common.scoring.response import HEADS, RETURNED_BEFORE, ResponseModel, start_head
from libs.common.scoring.trial import RESPONSE_FEATURES, SHARED_FEATURES, TRIAL_FEATURES
from services.analyzer.learner import checkpoint
from services.analyzer.learner.caused import MOST_PLACES, START_WEIGHT, Caused, share_of
from services.analyzer.learner.delays import AGES, START, Delays
from services.analyzer.learner.fold import Fold, Parameters, Place
from services.analyzer.learner.logit import LogitParameters
from services.analyzer.learner.parts import Publications, Solved, content_of
from services.analyzer.learner.responses import ResponseLearner, ResponseParameters
from services.analyzer.learner.returned import MOST_PAIRS, Returned
from services.analyzer.model.lessons import TrialLesson, encode_lesson

from .trial_world import DAY, HOUR, T0, WINDOW, ghost, in_order, lesson, life, vector

PARAMETERS = Parameters(
    response=ResponseParameters(half_life_days=30.0, logit=LogitParameters(revise_every=25))
)


def world(trials: int, seed: int = 1) -> list[TrialLesson]:
    """A mix of everything that happens to trials, over some weeks."""
    random = np.random.default_rng(seed)
    lives = []
    for n in range(trials):
        own, shared = vector(float(random.uniform(0.01, 0.4)), price=float(random.random()), orders=0.5)
        engaged = float(random.uniform(0, 0.5)) if random.random() < 0.2 else None
        converted = float(random.uniform(0, 1)) if random.random() < 0.1 else None
        facts: dict[str, Any] = {
            "offer_id": f"product:{random.integers(12)}",
            "offer_kind": str(random.choice(["cross_sell", "repeat", "up_sell"])),
            "placement": str(random.choice(["home", "mail"])),
            "rank": int(random.integers(1, 5)),
            "swapped": (n % 7 / 10, n % 5 / 10),
            "cell": int(random.integers(4)),
            "vector": own,
            "shared": shared,
        }
        shown = T0 + n * HOUR
        if random.random() < 0.15:
            lives.append(ghost(shown, bool(random.random() < 0.05), **facts))
        else:
            lives.append(life(shown, engaged=engaged, converted=converted, **facts))
    return in_order(lives)


def test_what_it_begins_with_is_what_readers_believe_before_any_trial() -> None:
    learner = ResponseLearner()
    for name in HEADS:
        head, model = start_head(name), learner.heads[name]
        assert (model.offers.variance, model.cells.variance) == (head.offer_variance, head.cell_variance)
        np.testing.assert_array_equal(model.mean, head.mean)
        np.testing.assert_allclose(model.root(), head.root, rtol=1e-12)


def rows(lessons: Sequence[TrialLesson]) -> list[tuple[Place, bytes]]:
    return [(Place(one.at // 1000, 0, n), encode_lesson(one)) for n, one in enumerate(lessons)]


def folded(lessons: Sequence[TrialLesson]) -> Fold:
    fold = Fold(PARAMETERS)
    fold.learn_many(rows(lessons))
    return fold


def test_state_is_the_same_to_the_bit_wherever_it_is_cut_and_restored() -> None:
    lessons = rows(world(80))
    whole = checkpoint.digest(folded(world(80)))
    for cuts in ([1, 2, 3, 200], [77], list(range(40, 340, 60))):
        fold = Fold(PARAMETERS)
        for begin, end in zip([0, *cuts], [*cuts, len(lessons)], strict=True):
            fold.learn_many(lessons[begin:end])
            restored = checkpoint.restore(checkpoint.save(fold), PARAMETERS)
            assert restored is not None
            assert checkpoint.digest(restored) == checkpoint.digest(fold)
            fold = restored
        assert checkpoint.digest(fold) == whole
    assert checkpoint.digest(folded(world(80, seed=2))) != whole


def test_a_checkpoint_says_what_it_was_learned_with() -> None:
    saved = checkpoint.save(Fold(PARAMETERS))
    assert checkpoint.parameters_of(saved) == PARAMETERS != Parameters()
    assert checkpoint.restore(saved, Parameters()) is None
    assert checkpoint.parameters_of(checkpoint.save(Fold(Parameters(version=1)))) is None
    assert checkpoint.parameters_of(b"nothing") is None


def test_a_checkpoint_of_other_features_begins_anew() -> None:
    assert Parameters().features.split() == [choice.FEATURE_SET, trial.FEATURE_SET]
    assert choice.FEATURE_SET != trial.FEATURE_SET
    saved = checkpoint.save(Fold(replace(PARAMETERS, features="1234 5678")))
    assert checkpoint.restore(saved, PARAMETERS) is None
    assert checkpoint.parameters_of(saved) is None


def published(fold: Fold, version: int = 7) -> ResponseModel:
    assembler = LearnedAssembler()
    records, manifest = Publications().records(content_of(fold, T0, Solved()), version)
    for key, value, _ in records:
        assert len(value) <= MAX_PART_BYTES
        assembler.put(key, value)
    assembler.put(b"manifest", manifest)
    assert assembler.models.version == version
    assert assembler.models.trials == fold.trials
    return assembler.models.response


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


def learner(lessons: Sequence[TrialLesson]) -> ResponseLearner:
    made = ResponseLearner()
    for one in lessons:
        made.learn_one(one)
    return made


def test_each_trial_is_one_trial_of_its_heads_in_the_end() -> None:
    """Sums of successes and of trials, by head, whatever way a trial took."""
    ways: list[tuple[dict[str, float], dict[str, tuple[float, float]]]] = [
        ({}, {"engaged": (0, 1), "converted_alone": (0, 1)}),
        ({"engaged": 0.1}, {"engaged": (1, 1), "converted_alone": (0, 1), "converted_engaged": (0, 1)}),
        ({"converted": 0.3}, {"engaged": (0, 1), "converted_alone": (1, 1)}),
        (
            {"engaged": 0.01, "converted": 0.5},
            {"engaged": (1, 1), "converted_alone": (0, 1), "converted_engaged": (1, 1)},
        ),
        (
            {"engaged": 0.2, "converted": 0.9},
            {"engaged": (1, 1), "converted_alone": (0, 1), "converted_engaged": (1, 1)},
        ),
    ]
    for facts, expected in ways:
        heads = learner(list(life(T0, **facts))).heads
        for name in HEADS:
            offers = heads[name].offers
            found = (sum(offers.successes), sum(offers.trials))
            # F moves a little while a trial runs, so the parts of one add up to about one.
            assert found == pytest.approx(expected.get(name, (0, 0)), abs=0.06), (facts, name)


def test_a_return_and_a_refusal_speak_against_it() -> None:
    bought = list(life(T0, converted=0.1))
    kept = learner(bought).heads["converted_alone"]
    back = learner([*bought, lesson(T0 + DAY * 8, step="returned", age_to=WINDOW)]).heads["converted_alone"]
    assert sum(back.offers.trials) == pytest.approx(sum(kept.offers.trials) + 1, abs=0.02)
    assert back.mean[_INTERCEPT] < kept.mean[_INTERCEPT]
    refused = learner([lesson(), lesson(T0 + 1, step="declined", age_to=1)]).heads["engaged"]
    assert refused.mean[_INTERCEPT] < learner([lesson()]).heads["engaged"].mean[_INTERCEPT]


_INTERCEPT = TRIAL_FEATURES.index("intercept")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"feature_set": "old"}, "feature_set"),
        ({"vector": b"", "shared": b""}, "features"),
        ({"vector": b"\x05", "shared": b""}, "features"),
        ({"vector": pack(np.ones((1, 3)))[0]}, "features"),
        ({"vector": vector(price=1e30)[0]}, "not_finite"),
        ({"window": 0}, "window"),
    ],
)
def test_what_cannot_be_learned_from_is_counted_and_moves_nothing(changes: dict[str, Any], why: str) -> None:
    made = learner([lesson(step="look", age_to=WINDOW, **changes)])
    assert made.refused == {why: 1}
    assert not any(head.seen for head in made.heads.values())


def test_numbers_that_are_none_reach_no_weight() -> None:
    class Broken(TrialLesson, frozen=True):
        def features(self) -> np.ndarray:
            x = np.zeros(len(TRIAL_FEATURES))
            x[3] = math.nan
            return x

    fields = {name: getattr(lesson(), name) for name in TrialLesson.__struct_fields__}
    made = learner([Broken(**{**fields, "step": "converted"})])
    assert made.refused == {"not_finite": 1}
    assert all(np.isfinite(head.mean).all() for head in made.heads.values())


def test_outcomes_of_trials_never_shown_and_in_any_order_stay_finite() -> None:
    random = np.random.default_rng(0)
    steps = ["engaged", "converted", "returned", "declined", "look", "shown"]
    lessons = [
        lesson(
            T0 + int(random.integers(0, 10**9)),
            step=str(random.choice(steps)),
            age_from=int(random.integers(-5, 10**12)),
            age_to=int(random.integers(-5, 10**12)),
            seen_to=int(random.integers(-5, 10**12)),
            rank=int(random.integers(-3, 10**6)),
            engaged=bool(random.integers(2)),
            offer_kind=str(random.choice(["cross_sell", "no_such_kind"])),
            judged=True,
        )
        for _ in range(400)
    ]
    made = learner(lessons)
    for head in made.heads.values():
        assert np.isfinite(head.mean).all()
        assert np.abs(head.mean).max() < 50
        assert np.isfinite(head.root()).all()
    assert "no_such_kind" not in made.caused.shares()[""]


def test_ghosts_move_no_weight() -> None:
    lessons = [one for n in range(5) for one in ghost(T0 + n, bought=True)]
    made = learner(in_order([iter(lessons)]))
    assert not any(head.seen for head in made.heads.values())
    assert made.caused.counts[("home", "cross_sell")].tolist() == [[0, 0], [5, 5]]


def test_only_drawn_slots_are_compared_with_ghosts() -> None:
    made = learner(
        [
            *life(T0, bought=True, propensity=1.0),
            *life(T0, bought=True, group="baseline"),
            *life(T0, bought=True),
        ]
    )
    assert made.caused.counts[("home", "cross_sell")].tolist() == [[1, 1], [0, 0]]


def test_share_caused_is_the_belief_without_ghosts_and_one_minus_the_ratio_with_many() -> None:
    nothing = np.zeros((2, 2))
    assert share_of([nothing], 0.1, START_WEIGHT) == pytest.approx(0.1, abs=0.02)
    assert share_of([nothing], 0.9, START_WEIGHT) == pytest.approx(0.9, abs=0.02)
    shown = np.array([[50_000.0, 2_000.0], [0.0, 0.0]])
    assert share_of([shown], 0.5, START_WEIGHT) == pytest.approx(0.5, abs=0.02)
    many = np.array([[50_000.0, 2_000.0], [20_000.0, 560.0]])
    assert share_of([many], 0.5, START_WEIGHT) == pytest.approx(0.3, abs=0.05)
    # Bought more often when not shown: showing causes nothing, and not less.
    worse = np.array([[50_000.0, 2_000.0], [20_000.0, 1_200.0]])
    assert 0.0 <= share_of([worse], 0.5, START_WEIGHT) < 0.05


def test_placements_are_compared_with_ghosts_of_their_own() -> None:
    """One where much is bought anyway has no ghosts; at the other showing causes half."""
    caused = Caused()
    caused.counts = {
        ("basket", "cross_sell"): np.array([[50_000.0, 20_000.0], [0.0, 0.0]]),
        ("home", "cross_sell"): np.array([[50_000.0, 2_000.0], [40_000.0, 800.0]]),
    }
    shares = caused.shares()
    assert shares[""]["cross_sell"] == pytest.approx(0.5, abs=0.05)
    assert shares["home"]["cross_sell"] == pytest.approx(0.5, abs=0.05)
    assert shares["basket"]["cross_sell"] == pytest.approx(shares[""]["cross_sell"], abs=0.02)
    caused.counts["basket", "cross_sell"] = np.array([[50_000.0, 20_000.0], [40_000.0, 8_000.0]])
    assert caused.shares()[""]["cross_sell"] == pytest.approx(0.5, abs=0.02)


def test_placements_beyond_the_first_count_nowhere() -> None:
    caused = Caused()
    for n in range(100):
        caused.learn_one(f"place {n}", "repeat", n % 2 == 0, True)
    assert len(caused.counts) == MOST_PLACES
    assert caused.shares()[""]["repeat"] == pytest.approx(0.1, abs=0.1)


def test_delays_are_those_of_all_trials_though_most_are_young() -> None:
    """The share seen by an age, from trials most of which are younger than that."""
    random = np.random.default_rng(6)
    true = np.array([0.1, 0.2, 0.5, 1.0])
    delays = Delays()
    for _ in range(12_000):
        old = float(random.choice([1 / 64, 1 / 16, 1 / 4, 1.0], p=[0.4, 0.3, 0.2, 0.1]))
        converts = random.random() < 0.1
        age = float(AGES[int(np.searchsorted(true, random.random()))]) if converts else math.inf
        since = 0.0
        for look in AGES:
            if look > old:
                break
            if age <= look:
                delays.event("home", age)
                break
            delays.passed("home", since, look)
            since = look
    assert delays.shares("home") == pytest.approx(true, abs=0.06)
    assert delays.shares("unheard of") == delays.shares("")
    ages = np.linspace(0, 1.2, 200)
    seen = [delays.seen("home", float(age)) for age in ages]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)


def test_delays_begin_with_a_belief_and_go_back_to_it_as_data_grow_old() -> None:
    assert Delays().shares("home") == pytest.approx(START, abs=0.02)
    delays = Delays()
    for _ in range(400):
        delays.passed("home", 0.0, 0.25)
        delays.event("home", 0.9)
        for _ in range(20):
            delays.passed("home", 0.0, 1.0)
    assert delays.shares("home")[2] < 0.2
    kept = [delays.shares("home")]
    for _ in range(12):
        delays.fade(0.5)
        kept.append(delays.shares("home"))
    assert kept == sorted(kept)
    assert delays.shares("home") == pytest.approx(START, abs=0.05)


@pytest.mark.parametrize("half_life_days", [0.0, 30.0])
def test_what_waits_is_learned_by_the_end_of_the_day_whether_data_grow_old_or_not(
    half_life_days: float,
) -> None:
    learner = ResponseLearner(ResponseParameters(half_life_days=half_life_days))
    for one in world(200):
        learner.learn_one(one)
    day = learner.day + 1
    assert any(learner.waiting.values())
    # A ghost teaches no head, and yet it is a new day.
    learner.learn_one(replace(next(one for one in world(200) if one.ghost), at=day * DAY, judged=True))
    assert not any(learner.waiting.values())


def test_lower_slots_have_effects_of_their_own_and_what_is_served_is_the_first() -> None:
    random = np.random.default_rng(7)
    lives = [
        life(
            T0 + n * HOUR,
            engaged=0.001 if random.random() < (0.4, 0.4, 0.1)[n % 3] else None,
            rank=n % 3 + 1,
            swapped=((0.0, 0.5), (0.5, 0.5), (0.5, 0.0))[n % 3],
        )
        for n in range(600)
    ]
    fold = folded(in_order(lives))
    content = content_of(fold, T0, Solved()).response.caused[0]
    first, second, third = content.slots["home"][:3]
    assert first == 1.0
    assert third < 0.5 < second < 2.0
    assert set(fold.response.slots) == {"engaged", "converted_alone"}
    own, shared = np.split(lesson().features(), [len(RESPONSE_FEATURES)])
    engaged = published(fold).head_means(own[None, :], shared, ["product:a"], np.array([0]))[0, 0]
    assert engaged == pytest.approx(0.4, abs=0.08)


def sales(sold: int, back: int, *, late: bool = False, **facts: Any) -> list[TrialLesson]:
    """So many trials that were bought, of which ``back`` came back, within the window or after it."""
    found: list[TrialLesson] = []
    for n in range(sold):
        shown = T0 + n
        trial = list(life(shown, converted=0.1, bought=late or n >= back, **facts))
        if n < back:
            age = 2 * WINDOW if late else WINDOW // 2
            trial.append(lesson(shown + age, step="returned", age_to=age, **facts))
        found += sorted(trial, key=lambda one: one.at)
    return found


@pytest.mark.parametrize("late", [False, True])
def test_what_comes_back_is_learned_by_offer_and_by_cell(late: bool) -> None:
    made = learner(
        [
            *sales(200, 60, late=late, offer_id="poor", cell=8),
            *sales(200, 2, late=late, offer_id="good", cell=16),
            *life(T0, offer_id="unsold", cell=8),
            *ghost(T0, bought=True, offer_id="unsold", cell=8),
        ]
    )
    assert list(made.returned.counts) == [("poor", 8), ("good", 16)]
    assert made.returned.counts["poor", 8] == pytest.approx((200, 60), rel=0.01)
    assert made.returned.counts["good", 16] == pytest.approx((200, 2), rel=0.01)
    everywhere, cells, offers = made.returned.shares()
    assert everywhere == pytest.approx(62 / 400, abs=0.02)
    assert cells[8] * offers["poor"] == pytest.approx(0.3, abs=0.02)
    assert cells[16] * offers["good"] == pytest.approx(0.01, abs=0.01)


def test_the_share_that_comes_back_is_served_as_it_was_learned() -> None:
    fold = Fold(PARAMETERS)
    for number, one in enumerate(
        [*sales(200, 60, offer_id="poor", cell=8), *sales(9, 0, offer_id="x", cell=8)]
    ):
        fold.learn_one(Place(0, 0, number), one)
    model = published(fold)
    everywhere, cells, offers = fold.response.returned.shares()
    said = model.returned(["poor", "x", "new", "new"], np.array([8, 8, 8, 3]))
    expected = [cells[8] * offers["poor"], cells[8] * offers["x"], cells[8], everywhere]
    assert said == pytest.approx(expected, rel=1e-5)
    assert said[0] > said[1] > 0.0
    assert ResponseModel().returned(["new"], np.array([8])) == pytest.approx(RETURNED_BEFORE)


def test_what_comes_back_is_forgotten_and_bounded() -> None:
    made = learner(sales(100, 50))
    made.learn_one(lesson(T0 + 720 * DAY, step="shown"))
    sold, back = made.returned.counts["product:a", 0]
    assert (sold, back) == pytest.approx((100 / 16, 50 / 16), rel=0.05)
    returned = Returned()
    for n in range(MOST_PAIRS + 5):
        returned.learn_one(lesson(step="returned", offer_id=f"o{n}", age_to=WINDOW // 2))
    assert len(returned.counts) <= MOST_PAIRS
    # Sales that were never counted: not more than all of them come back.
    lost = Returned()
    for _ in range(50):
        lost.learn_one(lesson(step="returned", age_to=WINDOW * 2))
    assert all(0.0 < cell < 1.0 for cell in lost.shares().cells.values())


def test_what_was_never_shown_is_not_judged_by_what_all_trials_had_in_common() -> None:
    """Which kind, source or place an offer is of is as constant as the intercept, where few of them occur."""
    random = np.random.default_rng(3)
    lives = []
    for n in range(3000):
        source = "source_crowd" if random.random() < 0.9 else "source_person"
        common = {source: 1.0, "known": 1.0, "channel_5": 1.0}
        own, shared = vector(float(random.uniform(0.01, 0.3)), **common)
        converted = 0.5 if random.random() < 0.9 else None
        lives.append(life(T0 + n * HOUR // 10, converted=converted, vector=own, shared=shared))
    head = learner(in_order(lives)).heads["converted_alone"]
    weights = dict(zip(TRIAL_FEATURES, head.mean.tolist(), strict=False))
    assert weights["intercept"] > 1.0
    assert all(abs(weights[name]) < 0.3 for name in ("known", "channel_5", "source_crowd", "source_person"))
