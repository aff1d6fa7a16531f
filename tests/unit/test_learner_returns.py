"""What comes back of what was sold: learned by offer and by cell, served, forgotten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from libs.common.scoring.response import RETURNED_BEFORE, ResponseModel
from services.analyzer.learner.fold import Fold, Place
from services.analyzer.learner.returned import MOST_PAIRS, Returned
from services.analyzer.model.lessons import TrialLesson
from tests.unit.response_world import PARAMETERS, learner, published
from tests.unit.trial_world import DAY, T0, WINDOW, ghost, lesson, life


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
