"""How honest the draws are: whether stated propensities are the true ones, and who is never drawn."""

from __future__ import annotations

from collections.abc import Sequence

from services.recommender.metrics import RecommenderMetrics
from services.recommender.model.policy import Draw

SAMPLED = 8
"""Of so many decisions one is looked at for who is starved."""

MOST_OFFERS = 20_000
RENEWED = 4_096
"""Sampled decisions after which what was counted weighs half."""

FEW = 100.0
STARVED = 0.001


class PolicyHonesty:
    """Counts draws as they were made; changes none.

    Had every slot been drawn evenly, each draw would weigh (1 / |A|) / p. Where p is what the draws really do
    the mean of these weights is 1, whatever the model believes; and (Σw)² / Σw² of the draws are worth as
    much as even ones (Kish 1965).
    """

    def __init__(self, metrics: RecommenderMetrics) -> None:
        self._metrics = metrics
        self._decisions = 0
        self._standing: dict[str, tuple[float, float]] = {}

    def note(self, decisions: Sequence[tuple[Sequence[Draw], float, Sequence[str]]]) -> list[None]:
        """Of each decision the draws, ghosts among them, its placement's exploration and the offers' ids."""
        made, total, squares, explored = 0, 0.0, 0.0, 0.0
        for draws, share, offer_ids in decisions:
            weights = [1.0 / (draw.among * draw.propensity) for draw in draws if draw.open is not None]
            if not weights:
                continue
            weight = sum(weights)
            made, total, explored = made + len(weights), total + weight, explored + share * weight
            squares += sum([weight * weight for weight in weights])
            self._decisions += 1
            if self._decisions % SAMPLED == 0:
                self._count(draws[0], offer_ids)
        self._metrics.draws.add(made)
        self._metrics.uniform_weight.add(total)
        self._metrics.uniform_weight_squares.add(squares)
        self._metrics.explored.add(explored)
        return [None] * len(decisions)

    def _count(self, first: Draw, offer_ids: Sequence[str]) -> None:
        if first.open is None or first.wins is None:
            return
        standing, of = self._standing, float(first.wins.sum())
        places = first.open[: len(offer_ids)].nonzero()[0].tolist()
        for at, wins in zip(places, first.wins[places].tolist(), strict=True):
            stood, won = standing.get(offer_ids[at], (0.0, 0.0))
            standing[offer_ids[at]] = stood + 1.0, won + wins / of
        if self._decisions % (SAMPLED * RENEWED) == 0 or len(standing) > MOST_OFFERS:
            halved = {offer: (stood / 2.0, won / 2.0) for offer, (stood, won) in standing.items()}
            self._standing = {offer: of for offer, of in halved.items() if of[0] >= 1.0}

    def show(self) -> None:
        """Bring the gauges up to date."""
        stood = [(of, won) for of, won in self._standing.values() if of >= FEW]
        self._metrics.standing.set(len(stood))
        self._metrics.starved.set(sum(won < STARVED * of for of, won in stood))
