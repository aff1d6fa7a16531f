"""The slot policy: true propensities, deterministic draws, no draw without exploration; ghosts and value."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.clock import DAY
from services.recommender.model.ghosts import is_ghost
from services.recommender.model.groups import group_of
from services.recommender.model.policy import NOBODY, Draw, Exploration, fill_slots, propensities, seed_of
from services.recommender.model.value import Worth
from tests.audit import redraw, worst_deviation

GREEDY = Exploration(0.0)
VALUES = np.array([1.0, 3.0, 2.0, 2.5])
WORLDS = VALUES + np.random.default_rng(5).normal(size=(128, 4))


def fill(
    values: np.ndarray,
    worlds: np.ndarray,
    limit: int,
    exploration: Exploration = Exploration(0.1),  # noqa: B008
    name: str = "d",
    **more: object,
) -> list[Draw]:
    return fill_slots(values, worlds.copy, limit, exploration, seed_of(name), **more)  # type: ignore[arg-type]


def chances(draw: Draw, exploration: float) -> np.ndarray:
    assert draw.open is not None
    assert draw.wins is not None
    return propensities(draw.wins, draw.open, exploration)


def chosen(draws: list[Draw]) -> list[int]:
    return [draw.chosen for draw in draws]


def test_without_exploration_the_best_means_are_placed_and_nothing_is_drawn() -> None:
    def never() -> np.ndarray:
        raise AssertionError("drawn")

    draws = fill_slots(np.array([1.0, 3.0, 1.0, 2.0]), never, 3, GREEDY, 1, ghosts=lambda at: [at])
    assert draws == [Draw(1, 1, 1.0), Draw(2, 3, 1.0), Draw(3, 0, 1.0)]
    assert fill_slots(np.empty(0), never, 3, Exploration(0.5), 1) == []


def test_without_exploration_ties_go_to_the_likeliest() -> None:
    values, chance = np.array([1.0, 2.0, 1.0, 2.0, 1.0]), np.array([1e-9, 1e-8, 3e-9, 1e-8, 2e-9])
    assert chosen(fill(values, WORLDS, 5, GREEDY, ties=chance)) == [1, 3, 2, 4, 0]


def test_no_offer_stands_behind_every_offer_that_is_worth_nothing_less_and_ends_the_slate() -> None:
    values = np.array([0.5, -0.1, 0.0])
    assert chosen(fill(values, WORLDS, 5, GREEDY, no_offer=True)) == [0, 2, NOBODY]
    assert chosen(fill(values[[1]], WORLDS, 5, GREEDY, no_offer=True)) == [NOBODY]
    sure = np.tile(values, (128, 1))
    endings = Counter(
        tuple(chosen(fill(values, sure, 5, Exploration(1e-9), f"d{number}", no_offer=True)))
        for number in range(5)
    )
    assert endings == {(0, 2, NOBODY): 5}
    for number in range(100):
        drawn = chosen(fill(values, sure, 5, Exploration(0.9), f"d{number}", no_offer=True))
        assert NOBODY not in drawn[:-1]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 9),
    digits=st.integers(0, 3),
    limit=st.integers(1, 12),
    exploration=st.floats(1e-6, 1.0),
    near_best=st.none() | st.floats(0.0, 1.0),
    no_offer=st.booleans(),
    ghosts=st.sets(st.integers(0, 8)),
)
def test_any_scores_give_stated_propensities_that_sum_to_one(
    seed: int,
    size: int,
    digits: int,
    limit: int,
    exploration: float,
    near_best: float | None,
    no_offer: bool,
    ghosts: set[int],
) -> None:
    # Few digits make ties.
    worlds = np.random.default_rng(seed).normal(size=(16, size)).round(digits).astype(np.float32)
    values = worlds.mean(axis=0)
    draws = fill(
        values, worlds, limit, Exploration(exploration, near_best), str(seed), no_offer=no_offer,
        ghosts=lambda at: [at] if at in ghosts else [],
    )  # fmt: skip
    placed = [draw for draw in draws if not draw.ghost]
    assert [draw.rank for draw in placed] == list(range(1, len(placed) + 1))
    if not no_offer:
        assert len(placed) == min(limit, len(values)), "ghosts must not leave a slot empty"
    assert len(set(chosen(draws))) == len(draws), "an offer was drawn twice"
    gone: set[int] = set()
    for draw in draws:
        stated = chances(draw, exploration)
        assert stated.sum() == pytest.approx(1.0, abs=1e-9)
        assert stated[draw.chosen] == pytest.approx(draw.propensity, abs=1e-12)
        assert draw.propensity > 0.0
        assert draw.ghost <= (draw.chosen in ghosts)
        assert not (gone & set(np.flatnonzero(stated > 0.0).tolist()))
        gone.add(draw.chosen)


def chance_of(
    values: np.ndarray, worlds: np.ndarray, exploration: Exploration, left: set[int], at: int
) -> float:
    """That ``at`` is drawn from ``left``, worked out anew."""
    among = sorted(left)
    if exploration.near_best is not None:
        top = values[among].max()
        among = [one for one in among if values[one] >= top - exploration.near_best * abs(top)]
    if at not in among:
        return 0.0
    best = np.array(among)[worlds[:, among].argmax(axis=1)]
    return (1.0 - exploration.share) * float((best == at).mean()) + exploration.share / len(among)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(2, 8),
    digits=st.integers(0, 3),
    limit=st.integers(2, 9),
    exploration=st.floats(1e-3, 1.0),
    near_best=st.none() | st.floats(0.0, 3.0),
    no_offer=st.booleans(),
    ghosts=st.sets(st.integers(0, 7), max_size=2),
)
def test_two_neighbours_say_how_likely_they_had_been_drawn_the_other_way_round(
    seed: int,
    size: int,
    digits: int,
    limit: int,
    exploration: float,
    near_best: float | None,
    no_offer: bool,
    ghosts: set[int],
) -> None:
    worlds = np.random.default_rng(seed).normal(size=(16, size)).round(digits).astype(np.float32)
    values, how = worlds.mean(axis=0), Exploration(exploration, near_best)
    draws = fill(
        values, worlds, limit, how, str(seed), no_offer=no_offer,
        ghosts=lambda at: [at] if at in ghosts else [],
    )  # fmt: skip
    if no_offer:
        values, worlds = np.append(values, 0.0), np.append(worlds, np.zeros((16, 1)), axis=1)
    left, above = set(range(len(values))), None
    for draw in draws:
        if above is None or above.ghost or draw.ghost or draw.chosen == NOBODY:
            # What was drawn between two has its own part in their order.
            assert draw.swapped == 0.0
        else:
            pair, upper, lower = left | {above.chosen}, above.chosen, draw.chosen
            orders = [
                chance_of(values, worlds, how, pair, first)
                * chance_of(values, worlds, how, pair - {first}, then)
                for first, then in ((upper, lower), (lower, upper))
            ]
            assert draw.swapped == pytest.approx(orders[1] / sum(orders), abs=1e-9)
        left.discard(draw.chosen)
        above = draw


def test_share_of_posterior_draws_is_counted_among_what_is_left() -> None:
    left = [0, 1, 2, 3]
    for draw in fill(VALUES, WORLDS, 4):
        assert draw.wins is not None
        best = np.array(left)[WORLDS[:, left].argmax(axis=1)]
        assert draw.wins.tolist() == [int((best == at).sum()) for at in range(4)]
        left.remove(draw.chosen)


def test_ties_go_to_the_first() -> None:
    draw = fill(np.zeros(5), np.zeros((128, 5)), 1, Exploration(1e-9))[0]
    assert (draw.chosen, draw.propensity) == (0, pytest.approx(1.0, abs=1e-8))


def test_same_decision_draws_the_same_offers() -> None:
    values = np.arange(30.0)
    worlds = values + 9 * np.random.default_rng(1).normal(size=(128, 30))
    first = chosen(fill(values, worlds, 10, name="decision-1"))
    assert first == chosen(fill(values, worlds, 10, name="decision-1"))
    assert first != chosen(fill(values, worlds, 10, name="decision-2"))


@pytest.mark.parametrize("near_best", [None, 0.4])
def test_draws_occur_as_often_as_their_propensity_says(near_best: float | None) -> None:
    exploration = Exploration(0.2, near_best)
    deviation = worst_deviation(
        redraw(VALUES, WORLDS, exploration, 2, range(1_500)), exploration.share, len(VALUES)
    )
    assert deviation < 4.5
    wrong = worst_deviation(redraw(VALUES, WORLDS, exploration, 2, range(1_500)), 0.5, len(VALUES))
    assert wrong > 4.5, "the audit is blind"


def test_near_best_draws_only_among_offers_near_the_best_of_what_is_left() -> None:
    values = np.array([10.0, 9.5, 8.9, 8.0, -1.0])
    worlds = values + 50 * np.random.default_rng(5).normal(size=(128, 5))
    seen = set()
    for number in range(200):
        draws = fill(values, worlds, 2, Exploration(0.5, 0.1), f"d{number}")
        assert draws[0].chosen in {0, 1}
        seen.add(tuple(chosen(draws)))
        if draws[0].chosen == 0:
            assert draws[1].chosen in {1, 2}
    assert len(seen) >= 3
    first = fill(values, worlds, 1, Exploration(0.5, 0.1))[0]
    assert first.wins is not None
    ahead = int((worlds[:, 0] >= worlds[:, 1]).sum())
    assert first.wins.tolist() == [ahead, 128 - ahead, 0, 0, 0]
    below = fill(np.array([-1.0, -1.05, -2.0]), worlds[:, :3], 1, Exploration(0.5, 0.1))[0]
    assert below.open is not None
    assert below.open.tolist() == [True, True, False]


def test_a_ghost_is_taken_out_and_the_slot_drawn_again_among_the_rest() -> None:
    for number in range(200):
        draws = fill(
            VALUES, WORLDS, 2, Exploration(0.3), f"d{number}", ghosts=lambda at: [at] if at == 1 else []
        )
        for at, draw in enumerate(draws):
            assert draw.ghost == (draw.chosen == 1)
            if draw.ghost:
                again = draws[at + 1]
                assert again.rank == draw.rank
                assert again.open is not None
                assert not again.open[1]
                assert again.propensity == pytest.approx(chances(again, 0.3)[again.chosen])


def test_what_is_like_a_ghost_leaves_with_it_and_no_slot_stays_empty() -> None:
    twins = {1: [1, 3], 3: [1, 3]}
    for number in range(200):
        draws = fill(VALUES, WORLDS, 2, Exploration(0.3), f"d{number}", ghosts=lambda at: twins.get(at, []))
        shown = [draw.chosen for draw in draws if not draw.ghost]
        withheld = [draw.chosen for draw in draws if draw.ghost]
        assert len(shown) == 2
        assert len(withheld) <= 1
        if withheld:
            assert set(shown) == {0, 2}
            assert all(not draw.open[[1, 3]].any() for draw in draws[-1:] if draw.open is not None)
    draws = fill(VALUES, WORLDS, 3, Exploration(0.3), ghosts=lambda at: twins.get(at, []))
    assert [draw.ghost for draw in draws] == [False] * 3, "two cannot be spared of four"


def test_ghosts_have_their_share_and_are_the_same_all_through_a_window() -> None:
    salt, week = b"s" * 32, 7 * DAY
    pairs = [(f"c{customer}", f"product:{offer}") for customer in range(100) for offer in range(60)]
    marked = [is_ghost(customer, offer, 10 * week, week, 0.02, salt) for customer, offer in pairs]
    assert np.mean(marked) == pytest.approx(0.02, abs=0.006)
    assert marked == [is_ghost(c, o, 11 * week - 1, week, 0.02, salt) for c, o in pairs]
    later = [is_ghost(c, o, 11 * week, week, 0.02, salt) for c, o in pairs]
    other = [is_ghost(c, o, 10 * week, week, 0.02, b"t" * 32) for c, o in pairs]
    for different in (later, other):
        both = np.logical_and(marked, different).mean()
        assert both == pytest.approx(0.02**2, abs=0.0012)
    assert not is_ghost("c", "o", 0, week, 0.0, salt)
    assert is_ghost("c", "o", 0, week, 1.0, salt)


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


def test_score_is_chance_times_caused_share_times_margin_that_stays_less_contact() -> None:
    worth = Worth(np.array([0.1, 0.5]), np.array([10.0, 10.0]), np.array([0.0, 0.5]), 0.25)
    assert worth.score(np.array([0.5, 0.5])).tolist() == pytest.approx([0.25, 1.0])


def test_objectives_rank_by_chance_by_margin_or_by_what_showing_causes() -> None:
    worth = Worth(np.array([0.1, 0.5]), np.array([1.0, 100.0]), np.array([0.0, 0.0]), 0.5)
    chance = np.array([0.9, 0.1])
    assert worth.ranked_by("acceptance", chance) is chance
    assert worth.ranked_by("value", chance).tolist() == pytest.approx([0.4, 9.5])
    assert worth.ranked_by("uplift", chance).tolist() == pytest.approx([-0.41, 4.5])
    worlds = np.array([chance, chance / 2], dtype=np.float32)
    ranked = worth.ranked_by("value", worlds)
    assert ranked.dtype == np.float32
    assert ranked[1].tolist() == pytest.approx([-0.05, 4.5])


@pytest.mark.parametrize("exploration", [Exploration(0.1), Exploration(0.1, near_best=0.3)])
def test_a_draw_says_among_how_many_it_was_made(exploration: Exploration) -> None:
    draws = fill(VALUES, WORLDS, 4, exploration, no_offer=True)
    assert len(draws) > 1
    assert [draw.among for draw in draws] == [np.count_nonzero(draw.open) for draw in draws]
