"""Slots that are looked at less: are their odds found, and what is it worth to know them?

`python -m tests.benchmarks.bandits.slots`. Every slot counts as shown, as where impressions are assumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deploy.local.market.world import EXAMINED
from services.analyzer.learner.response_parts import ResponseContents
from tests.benchmarks.bandits.offers import Floats, Offers
from tests.benchmarks.bandits.ours import PLACEMENT, Ours

ROUNDS, WORLDS, OFFERS, RATE = 4_000, 5, 50, 0.1
SLOTS = len(EXAMINED)


class Played(NamedTuple):
    """What came of one world.

    Attributes
    ----------
    gain:
        Share of the possible gain over slates drawn evenly, by true chances; ``late`` in the last quarter.
    learned, true:
        Odds of each slot beside the first (slots,): learned, and of what stood in it.
    """

    gain: float
    late: float
    learned: Floats
    true: Floats


def play(offers: Offers, rounds: int, *, corrected: bool, clicked: bool = True) -> Played:
    """Slates for so many visitors; where it is not ``corrected``, all slots are told as the first, and where
    not ``clicked``, all is bought without a click."""
    ours, draw = Ours(offers), np.random.default_rng([offers.seed, 41])
    visitors = offers.visitors(rounds)
    got, stood = np.zeros(rounds), np.zeros((rounds, SLOTS))
    for round_, customer in enumerate(visitors.tolist()):
        slate = ours.slate(round_, customer, SLOTS)
        chances = offers.chance[customer, [one.chosen for one in slate]]
        bought = draw.random(SLOTS) < chances * EXAMINED
        got[round_], stood[round_] = chances @ EXAMINED, chances
        swapped = [one.swapped for one in slate] + [0.0]
        for slot, one in enumerate(slate):
            ours.learn_slot(
                slot + 1 if corrected else 1,
                one.chosen,
                one.propensity,
                bool(bought[slot]),
                (swapped[slot], swapped[slot + 1]) if corrected else (0.0, 0.0),
                clicked=clicked and bool(bought[slot]),
            )
    best = np.sort(offers.chance, axis=1)[:, -SLOTS:][:, ::-1][visitors] @ EXAMINED
    even = offers.chance.mean(axis=1)[visitors] * EXAMINED.sum()
    late = slice(rounds * 3 // 4, None)
    found = ResponseContents().of(ours.learner).caused[0].slots.get(PLACEMENT, [1.0] * SLOTS)
    seen = stood * EXAMINED
    return Played(
        gain=float((got - even).sum() / (best - even).sum()),
        late=float((got - even)[late].sum() / (best - even)[late].sum()),
        learned=np.array(found[:SLOTS]),
        true=_odds(seen) / np.array([_odds(stood[:, [slot]])[0] for slot in range(SLOTS)]),
    )


def _odds(chances: Floats) -> Floats:
    """Odds of the mean of the log odds (slots,) of chances (rounds, slots)."""
    return np.asarray(np.exp(np.log(chances / (1.0 - chances)).mean(axis=0)))


def main() -> None:
    """Print the gain with and without the correction, and the odds of slots beside the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--worlds", type=int, default=WORLDS)
    parser.add_argument("--unclicked", action="store_true", help="all is bought without a click")
    chosen = parser.parse_args()
    print(
        "| slots | share of possible gain | at the end | odds of lower slots, learned / true | of the truth |"
    )
    print("|---|---|---|---|---|")
    worlds = [Offers.make(OFFERS, RATE, seed) for seed in range(chosen.worlds)]
    gains = {}
    for corrected in (True, False):
        runs = [
            play(offers, chosen.rounds, corrected=corrected, clicked=not chosen.unclicked)
            for offers in worlds
        ]
        gains[corrected] = np.array([run.gain for run in runs])
        learned = np.exp(np.mean([np.log(run.learned) for run in runs], axis=0))
        true = np.exp(np.mean([np.log(run.true) for run in runs], axis=0))
        odds = ", ".join(
            f"{found:.2f} / {real:.2f}" for found, real in zip(learned[1:], true[1:], strict=True)
        )
        print(
            f"| {'corrected' if corrected else 'all as the first'} | {_mean(gains[corrected])} |"
            f" {np.mean([run.late for run in runs]):.3f} | {odds} | {_ratios(runs)} |",
            flush=True,
        )
    print(f"\nGain by the correction, world by world: {_mean(gains[True] - gains[False])}")


def _ratios(runs: Sequence[Played]) -> str:
    """Odds of lower slots as multiples of the true ones, with what two standard errors over worlds span."""
    off = np.array([np.log(run.learned / run.true)[1:] for run in runs])
    middle, error = off.mean(axis=0), off.std(axis=0, ddof=1) / np.sqrt(len(off))
    spans = np.exp([middle, middle - 2 * error, middle + 2 * error]).T
    return ", ".join(f"{found:.2f} ({low:.2f} to {high:.2f})" for found, low, high in spans.tolist())


def _mean(values: Floats) -> str:
    return f"{values.mean():.3f} ± {values.std() / np.sqrt(len(values)):.3f}"


if __name__ == "__main__":
    main()
