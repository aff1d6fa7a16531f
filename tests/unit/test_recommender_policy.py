"""The slot policy: true propensities, deterministic draws, no draw without exploration."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from services.recommender.model.groups import group_of
from services.recommender.model.policy import NOBODY, fill_slots, propensities, rank, seed_of
from services.recommender.model.value import KIND_CODES, incremental_margin, ranked_by

SEEDS = 20_000


def test_ranking_puts_best_first_and_keeps_the_order_of_ties() -> None:
    assert rank(np.array([1.0, 3.0, 1.0, 2.0]), no_offer=False).tolist() == [1, 3, 0, 2]


def test_no_offer_stands_behind_every_offer_that_is_worth_nothing_less() -> None:
    assert rank(np.array([0.5, -0.1, 0.0]), no_offer=True).tolist() == [0, 2, NOBODY, 1]


@pytest.mark.parametrize(("left", "exploration"), [(1, 0.02), (7, 0.02), (100, 1.0), (3, 0.0)])
def test_propensities_sum_to_one(left: int, exploration: float) -> None:
    assert propensities(left, exploration).sum() == pytest.approx(1.0)


def test_without_exploration_nothing_is_drawn() -> None:
    slots = fill_slots(rank(np.array([1.0, 3.0, 2.0]), no_offer=False), 5, 0.0, seed_of("d"))
    assert [(slot.chosen, slot.propensity) for slot in slots] == [(1, 1.0), (2, 1.0), (0, 1.0)]


def test_same_decision_draws_the_same_offers() -> None:
    ranking = rank(np.arange(30.0), no_offer=False)
    first = fill_slots(ranking, 10, 0.5, seed_of("decision-1"))
    again = fill_slots(ranking, 10, 0.5, seed_of("decision-1"))
    other = fill_slots(ranking, 10, 0.5, seed_of("decision-2"))
    assert [slot.chosen for slot in first] == [slot.chosen for slot in again]
    assert [slot.chosen for slot in first] != [slot.chosen for slot in other]


def test_each_slot_never_repeats_an_offer() -> None:
    ranking = rank(np.arange(6.0), no_offer=False)
    for number in range(200):
        chosen = [slot.chosen for slot in fill_slots(ranking, 6, 0.7, seed_of(f"d{number}"))]
        assert sorted(chosen) == [0, 1, 2, 3, 4, 5]


def test_draws_occur_as_often_as_their_propensity_says() -> None:
    exploration, candidates = 0.3, 5
    ranking = rank(np.arange(float(candidates)), no_offer=False)
    first: Counter[int] = Counter()
    second_after_best: Counter[int] = Counter()
    for number in range(SEEDS):
        slots = fill_slots(ranking, 2, exploration, seed_of(f"decision {number}"))
        first[slots[0].chosen] += 1
        if slots[0].chosen == 4:
            second_after_best[slots[1].chosen] += 1
    expected = dict(zip(ranking.tolist(), propensities(candidates, exploration), strict=True))
    for offer, chance in expected.items():
        spread = 4.5 * (chance * (1 - chance) / SEEDS) ** 0.5
        assert first[offer] / SEEDS == pytest.approx(chance, abs=spread)
    drawn = sum(second_after_best.values())
    for offer, chance in zip([3, 2, 1, 0], propensities(4, exploration), strict=True):
        spread = 4.5 * (chance * (1 - chance) / drawn) ** 0.5
        assert second_after_best[offer] / drawn == pytest.approx(chance, abs=spread)


def test_reported_propensity_is_that_of_the_pool_it_was_drawn_from() -> None:
    ranking = rank(np.arange(8.0), no_offer=False)
    for number in range(300):
        for slot in fill_slots(ranking, 8, 0.4, seed_of(f"d{number}")):
            place = slot.left.tolist().index(slot.chosen)
            assert slot.propensity == pytest.approx(propensities(len(slot.left), 0.4)[place])


def test_no_offer_ends_the_slate_when_drawn() -> None:
    ranking = rank(np.array([-1.0, -2.0]), no_offer=True)
    assert [slot.chosen for slot in fill_slots(ranking, 2, 0.0, 1)] == [NOBODY]


def test_seed_survives_readers_that_know_only_doubles() -> None:
    assert all(seed_of(f"d{number}") < 2**53 for number in range(1000))


def test_groups_are_stable_and_have_their_shares() -> None:
    salt = b"s" * 32
    groups = Counter(group_of(f"c{number}", salt, 0.05, 0.1) for number in range(20_000))
    assert groups["baseline"] / 20_000 == pytest.approx(0.05, abs=0.007)
    assert groups["none"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert group_of("c1", salt, 0.05, 0.1) == group_of("c1", salt, 0.05, 0.1)
    moved = sum(
        group_of(f"c{number}", salt, 0.2, 0.2) != group_of(f"c{number}", b"t" * 32, 0.2, 0.2)
        for number in range(1000)
    )
    assert moved > 300, "another salt must spread customers anew"


def test_nobody_and_no_holdout_are_always_treated() -> None:
    assert group_of("event:1", b"s", 0.5, 0.5) == "treatment"
    assert {group_of(f"c{number}", b"s", 0.0, 0.0) for number in range(200)} == {"treatment"}


def test_score_is_chance_times_caused_share_times_margin_less_contact() -> None:
    kinds = np.array([KIND_CODES["repeat"], KIND_CODES["cross_sell"], KIND_CODES["up_sell"]], dtype=np.int8)
    score = incremental_margin(np.array([0.5, 0.5, 0.5]), kinds, np.array([10.0, 10.0, 10.0]), 0.25)
    assert score.tolist() == pytest.approx([0.25, 2.25, 3.25])


def test_objectives_rank_by_chance_by_margin_or_by_what_showing_causes() -> None:
    chance, margin, score = np.array([0.9, 0.1]), np.array([1.0, 100.0]), np.array([0.09, 5.0])
    assert ranked_by("acceptance", chance, margin, score, 0.0).tolist() == [0.9, 0.1]
    assert ranked_by("value", chance, margin, score, 0.5).tolist() == pytest.approx([0.4, 9.5])
    assert ranked_by("uplift", chance, margin, score, 0.5) is score
