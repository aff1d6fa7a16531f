"""How well choices were foreseen: running means, part of what the learner knows."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

HONEST_HALF_LIFE = 1_000
"""Orders after which a figure of honesty has half forgotten one."""


class Honest(Struct, frozen=True, kw_only=True):
    """Running means of what was said before each order was learned from, and the weight in them.

    Of orders that were asked for as a whole: ``loss`` is −log of the chance given to what was bought, among
    the alternatives, ``prior`` the same of the weights that were there before any order; ``ndcg`` that of
    the ten best.
    """

    loss: float = 0.0
    prior: float = 0.0
    losses: float = 0.0
    ndcg: float = 0.0
    rankings: float = 0.0

    def lost(self, loss: float, prior: float) -> Honest:
        mean, losses = _running(self.loss, self.losses, loss)
        return replace(self, loss=mean, prior=_running(self.prior, self.losses, prior)[0], losses=losses)

    def ranked(self, ndcg: float) -> Honest:
        ndcg, rankings = _running(self.ndcg, self.rankings, ndcg)
        return replace(self, ndcg=ndcg, rankings=rankings)


def _running(mean: float, weight: float, value: float) -> tuple[float, float]:
    kept = 0.5 ** (1.0 / HONEST_HALF_LIFE)
    weight = kept * weight + 1.0
    return mean + (value - mean) / weight, weight
