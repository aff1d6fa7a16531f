"""Honesty of the draws: weights that average to 1 only where propensities are true, and who is starved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from libs.common.telemetry import Metrics
from services.recommender.handlers.honesty import FEW, SAMPLED, PolicyHonesty
from services.recommender.metrics import RecommenderMetrics
from services.recommender.model.policy import Draw, Exploration, fill_slots, seed_of

OFFERS = [f"product:{n}" for n in range(30)]


class Seen:
    """Draws of a policy over 30 offers, and what is shown of them."""

    def __init__(self) -> None:
        self.metrics = Metrics("recommender")
        self.honesty = PolicyHonesty(RecommenderMetrics(self.metrics))

    def draw(
        self, decisions: int, exploration: Exploration, told: Callable[[Draw], Draw] = lambda draw: draw
    ) -> None:
        random = np.random.default_rng(3)
        values = np.linspace(1.0, 0.0, len(OFFERS))
        for number in range(decisions):
            worlds = values + random.normal(0.0, 0.1, (128, len(OFFERS)))
            seed = seed_of(f"d{number}")
            draws = fill_slots(
                values, worlds.copy, 3, exploration, seed, ghosts=lambda at: [at] * (at % 7 == 3)
            )
            self.honesty.note([([told(draw) for draw in draws], exploration.share, OFFERS)])

    def shown(self, name: str) -> float:
        self.honesty.show()
        start = f"closedloop_recommender_policy_{name} "
        lines = self.metrics.render().decode().splitlines()
        return next(float(line[len(start) :]) for line in lines if line.startswith(start))

    def mean(self) -> tuple[float, float]:
        """Mean weight of the uniform policy, and its standard error."""
        draws, total = self.shown("draws_total"), self.shown("uniform_weight_total")
        squares = self.shown("uniform_weight_squares_total")
        return total / draws, float(np.sqrt(squares / draws - (total / draws) ** 2) / np.sqrt(draws))


@pytest.mark.parametrize("exploration", [Exploration(0.1), Exploration(0.3, near_best=0.5)])
def test_true_propensities_average_to_one(exploration: Exploration) -> None:
    seen = Seen()
    seen.draw(900, exploration)
    mean, error = seen.mean()
    assert error < 0.1
    assert abs(mean - 1.0) < 4.0 * error
    share = seen.shown("explored_total") / seen.shown("draws_total")
    assert share == pytest.approx(exploration.share * mean)


def test_propensities_that_forget_exploration_do_not() -> None:
    def forgetful(draw: Draw) -> Draw:
        assert draw.wins is not None
        won = int(draw.wins[draw.chosen]) / int(draw.wins.sum())
        return draw._replace(propensity=max(won, 1e-3))

    seen = Seen()
    seen.draw(900, Exploration(0.1), forgetful)
    mean, error = seen.mean()
    assert abs(mean - 1.0) > 5.0 * error


def test_nothing_is_counted_where_nothing_is_drawn() -> None:
    seen = Seen()
    seen.draw(10, Exploration(0.0))
    assert seen.shown("draws_total") == 0.0


def test_offers_that_belief_never_chooses_are_starved() -> None:
    seen = Seen()
    seen.draw(int(FEW) * SAMPLED - 1, Exploration(0.1))
    assert seen.shown("standing_rows") == 0.0
    seen.draw(SAMPLED, Exploration(0.1))
    assert seen.shown("standing_rows") == len(OFFERS)
    # Of 30 offers 0.034 apart that vary by 0.1, those lower than the tenth or so never come first.
    assert 15.0 < seen.shown("starved_rows") < 27.0


def test_what_is_remembered_of_offers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.recommender.handlers.honesty.MOST_OFFERS", 50)
    honesty = PolicyHonesty(RecommenderMetrics(Metrics("recommender")))
    for number in range(40 * SAMPLED):
        draw = Draw(1, 0, 0.5, np.ones(10, dtype=bool), np.ones(10, dtype=int))
        honesty.note([([draw], 0.1, [f"product:{number}-{n}" for n in range(10)])])
    assert len(honesty._standing) <= 50
