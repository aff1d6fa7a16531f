"""Policies to be measured against, each as its library ships it."""

from __future__ import annotations

import random
from typing import Protocol

import numpy as np
from river import bandit, stats

from tests.benchmarks.bandits.offers import CATEGORIES, Offers


class Policy(Protocol):
    """Places an offer before a customer, hears whether he responded."""

    name: str

    def choose(self, round_: int, customer: int) -> tuple[int, float]:
        """The offer, and the probability with which it was chosen (not a number where nobody can say)."""

    def learn_one(self, customer: int, offer: int, propensity: float, responded: bool) -> None: ...


class Uniform:
    """Draws evenly."""

    name = "uniform"

    def __init__(self, offers: Offers) -> None:
        self._count = len(offers)
        self._draw = np.random.default_rng([offers.seed, 21])

    def choose(self, round_: int, customer: int) -> tuple[int, float]:
        return int(self._draw.integers(self._count)), 1.0 / self._count

    def learn_one(self, customer: int, offer: int, propensity: float, responded: bool) -> None:
        pass


class EpsilonGreedy:
    """river's, a tenth at random, blind to who is asked."""

    name = "epsilon-greedy"

    def __init__(self, offers: Offers) -> None:
        self._arms = list(range(len(offers)))
        self._policy = bandit.EpsilonGreedy(0.1, reward_obj=stats.Mean(), seed=offers.seed)

    def choose(self, round_: int, customer: int) -> tuple[int, float]:
        return self._policy.pull(self._arms), np.nan

    def learn_one(self, customer: int, offer: int, propensity: float, responded: bool) -> None:
        self._policy.update(offer, float(responded))


class LinUCB:
    """river's `LinUCBDisjoint`: a regression per offer on what is known of the customer.

    river asks each offer's regression in turn (0.1 s for 200); here the very numbers that its regressions
    hold are laid side by side and asked at once. `test_bandits` compares the offers pulled.
    """

    name = "LinUCB (river)"

    def __init__(self, offers: Offers) -> None:
        self._policy = bandit.LinUCBDisjoint(seed=offers.seed)
        people = len(offers.taste)
        self._x = np.column_stack((np.ones(people), offers.taste * CATEGORIES, offers.limit))
        size = self._x.shape[1]
        self._names = [f"x{at}" for at in range(size)]
        self._mean = np.zeros((len(offers), size))
        self._covariance = np.tile(np.eye(size), (len(offers), 1, 1))
        self._rng = random.Random(offers.seed)

    def context(self, customer: int) -> dict[str, float]:
        """What is known of a customer, as river takes it."""
        return dict(zip(self._names, self._x[customer].tolist(), strict=True))

    def choose(self, round_: int, customer: int) -> tuple[int, float]:
        x = self._x[customer]
        bound = self._mean @ x + np.sqrt(1.0 + np.einsum("i,nij,j->n", x, self._covariance, x))
        best = np.flatnonzero(bound >= bound.max() - 1e-12).tolist()
        return (self._rng.choice(best) if len(best) > 1 else best[0]), np.nan

    def learn_one(self, customer: int, offer: int, propensity: float, responded: bool) -> None:
        self._policy.update(offer, self.context(customer), float(responded))
        regression = self._policy._bayes_lin_regs[offer]
        regression._ensure_m()
        size = len(self._names)
        self._mean[offer] = regression._m_arr[:size]
        self._covariance[offer] = regression._ss_inv_arr[:size, :size]


class SquareCB:
    """Vowpal Wabbit's `--cb_explore_adf --squarecb`, customers' and offers' features crossed."""

    name = "squarecb (VW)"

    def __init__(self, offers: Offers) -> None:
        import vowpalwabbit

        self._workspace = vowpalwabbit.Workspace(
            f"--cb_explore_adf --squarecb --cb_type mtr -q ca --random_seed {offers.seed} --quiet"
        )
        self._actions = [
            f"|a id={offer} category={category} tier={tier} both={category}_{tier}"
            for offer, (category, tier) in enumerate(
                zip(offers.category.tolist(), offers.tier.tolist(), strict=True)
            )
        ]
        self._shared = [
            "shared |c "
            + " ".join(f"t{at}:{share:.3f}" for at, share in enumerate(taste))
            + f" limit={limit}"
            for taste, limit in zip((offers.taste * CATEGORIES).tolist(), offers.limit.tolist(), strict=True)
        ]
        self._draw = np.random.default_rng([offers.seed, 22])

    def choose(self, round_: int, customer: int) -> tuple[int, float]:
        text = "\n".join([self._shared[customer], *self._actions])
        chances = np.maximum(self._workspace.predict(text), 0.0)
        chances /= chances.sum()
        offer = int(self._draw.choice(len(chances), p=chances))
        return offer, float(chances[offer])

    def learn_one(self, customer: int, offer: int, propensity: float, responded: bool) -> None:
        actions = self._actions.copy()
        actions[offer] = f"0:{-float(responded)}:{propensity:.9f} {actions[offer]}"
        self._workspace.learn("\n".join([self._shared[customer], *actions]))
