"""A hundred thousand redraws agree with the propensities that were stated for them."""

from __future__ import annotations

import numpy as np
import pytest

from services.recommender.model.policy import Exploration
from tests.audit import redraw, worst_deviation

VALUES = np.array([1.0, 3.0, 2.0, 2.5, 2.4])
WORLDS = VALUES + np.random.default_rng(5).normal(size=(128, 5))


@pytest.mark.parametrize("near_best", [None, 0.4])
def test_a_hundred_thousand_redraws_agree_with_what_was_stated(near_best: float | None) -> None:
    exploration = Exploration(0.02, near_best)
    draws = redraw(VALUES, WORLDS, exploration, 2, range(50_000))
    assert worst_deviation(draws, exploration.share, len(VALUES)) < 4.5
