"""`make bench-bandits`: the same customers and the same luck for every policy; who gains how much of it?"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tests.benchmarks.bandits.offers import Offers
from tests.benchmarks.bandits.ours import Ours
from tests.benchmarks.bandits.rivals import EpsilonGreedy, LinUCB, Policy, SquareCB, Uniform

ROUNDS = 4_000
WORLDS = 5
MAKERS: tuple[Callable[[Offers], Policy], ...] = (Uniform, EpsilonGreedy, LinUCB, SquareCB, Ours)
SETTINGS = [(count, word, rate) for count in (50, 200) for word, rate in (("common", 0.1), ("rare", 0.01))]


class Run(NamedTuple):
    """What one policy got in one world.

    Attributes
    ----------
    gain:
        Share of the possible gain over drawing evenly, by true chances.
    weights:
        Of the uniform policy, round by round; empty where the policy states no propensities.
    """

    gain: float
    late: float
    weights: list[float]
    seconds: float


def play(offers: Offers, policy: Policy, rounds: int) -> Run:
    """Let a policy choose and learn for so many rounds."""
    visitors, luck = offers.visitors(rounds), offers.luck(rounds)
    got, weights = np.empty(rounds), []
    began = time.perf_counter()
    for round_, (customer, luck_) in enumerate(zip(visitors.tolist(), luck.tolist(), strict=True)):
        offer, propensity = policy.choose(round_, customer)
        chance = offers.chance[customer, offer]
        policy.learn_one(customer, offer, propensity, bool(luck_ < chance))
        got[round_] = chance
        if propensity == propensity:
            weights.append(1.0 / (len(offers) * propensity))
    best, even = offers.chance.max(axis=1)[visitors], offers.chance.mean(axis=1)[visitors]
    late = slice(rounds * 3 // 4, None)
    return Run(
        gain=float((got.sum() - even.sum()) / (best.sum() - even.sum())),
        late=float((got[late].sum() - even[late].sum()) / (best[late].sum() - even[late].sum())),
        weights=weights,
        seconds=time.perf_counter() - began,
    )


def main() -> None:
    """Play all settings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--worlds", type=int, default=WORLDS)
    parser.add_argument("--only", help="policies whose name contains this")
    parser.add_argument("--setting", type=int, choices=range(len(SETTINGS)), help="one setting only")
    chosen = parser.parse_args()
    makers = [maker for maker in MAKERS if not chosen.only or chosen.only in maker.name]  # type: ignore[attr-defined]
    print(
        "| offers, responses | policy | share of possible gain | at the end | uniform's weight | sample | s |"
    )
    print("|---|---|---|---|---|---|---|")
    for number, (count, word, rate) in enumerate(SETTINGS):
        if chosen.setting in (None, number):
            worlds = [Offers.make(count, rate, seed) for seed in range(chosen.worlds)]
            for maker in makers:
                print(row(f"{count}, {word}", maker, worlds, chosen.rounds), flush=True)


def row(setting: str, maker: Callable[[Offers], Policy], worlds: list[Offers], rounds: int) -> str:
    """A row of the table: means over worlds."""
    try:
        policies = [maker(offers) for offers in worlds]
    except ModuleNotFoundError as missing:
        return f"| {setting} | {missing.name} is not installed | | | | | |"
    runs = [play(offers, policy, rounds) for offers, policy in zip(worlds, policies, strict=True)]
    gains, late = [run.gain for run in runs], [run.late for run in runs]
    weights = np.array([weight for run in runs for weight in run.weights])
    audit = sample = "–"
    if len(weights):
        error = weights.std() / np.sqrt(len(weights))
        audit = f"{weights.mean():.3f} ± {error:.3f}"
        sample = f"{weights.sum() ** 2 / (weights**2).sum() / len(weights):.1%}"
    spread = np.std(gains) / np.sqrt(len(gains))
    return (
        f"| {setting} | {policies[0].name} | {np.mean(gains):.3f} ± {spread:.3f} | {np.mean(late):.3f} | "
        f"{audit} | {sample} | {np.mean([run.seconds for run in runs]):.0f} |"
    )


if __name__ == "__main__":
    main()
