"""Customers who buy much anyway: what each objective causes, and whether ghosts tell how much it is.

`python -m tests.benchmarks.bandits.buys_anyway`
"""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

import numpy as np

from libs.common.clock import MINUTE
from libs.common.contracts.catalogue import KINDS, Objective
from libs.common.scoring.choice import FEATURES, ChoiceModel
from libs.common.scoring.response import ResponseModel
from libs.common.scoring.trial import (
    SKETCH,
    Told,
    category_codes,
    cells_of,
    own_features,
    shared_features,
    source_groups,
)
from services.analyzer.learner.responses import ResponseLearner
from services.recommender.model.ghosts import is_ghost
from services.recommender.model.policy import Exploration, fill_slots, seed_of
from services.recommender.model.value import Worth
from tests.benchmarks.bandits.offers import Floats, Ints
from tests.benchmarks.bandits.ours import BEGIN, PLACEMENT, PUBLISHED_EVERY, WINDOW, Publisher, trial_lessons

KINDS_HERE = ("repeat", "cross_sell", "up_sell")
EACH = 20
PEOPLE = 400
GHOSTS = 0.2
OBJECTIVES: tuple[Objective, ...] = ("uplift", "value", "acceptance")
ANYWAY = {"repeat": 0.30, "cross_sell": 0.05, "up_sell": 0.03}
CAUSED = {"repeat": 0.03, "cross_sell": 0.06, "up_sell": 0.07}
"""Mean chance within the window: that he buys anyway, and that being shown it makes him buy."""


class Regulars(NamedTuple):
    """The truth: of each customer and offer P(bought anyway) and P(bought because shown); margins."""

    kinds: Ints
    margin: Floats
    anyway: Floats
    caused: Floats

    @classmethod
    def make(cls, seed: int) -> Regulars:
        draw = np.random.default_rng([seed, 31])
        names = np.repeat(KINDS_HERE, EACH)
        count = len(names)
        liking = draw.lognormal(0.0, 0.4, (PEOPLE, count))
        return cls(
            kinds=np.array([KINDS.index(name) for name in names]),
            margin=4.0 * draw.lognormal(0.0, 0.4, count),
            anyway=np.minimum(np.array([ANYWAY[name] for name in names]) * liking, 0.8),
            caused=np.minimum(
                np.array([CAUSED[name] for name in names]) * draw.lognormal(0.0, 0.4, count) * liking, 0.5
            ),
        )


class Played(NamedTuple):
    """What came of one objective.

    Attributes
    ----------
    margin:
        Caused by a decision, on average, in the second half.
    learned, true:
        κ by kind, and of what was shown P(not bought without it | bought).
    ghosts:
        How many there were, by kind.
    """

    margin: float
    learned: dict[str, float]
    true: dict[str, float]
    ghosts: dict[str, int]


def play(truth: Regulars, objective: Objective, rounds: int, seed: int) -> Played:
    """One slot, one customer a minute, ghosts taken out, everything judged at once."""
    draw = np.random.default_rng([seed, 32])
    learner, publisher, model = ResponseLearner(), Publisher(), ResponseModel()
    ids = [f"product:p{at}" for at in range(len(truth.margin))]
    kinds = truth.kinds.astype(np.int8)
    cells = cells_of(kinds, category_codes(["shop/all"] * len(ids), np.zeros(len(ids))))
    gained, sums = [], np.zeros((len(KINDS), 2))
    ghosts = dict.fromkeys(KINDS_HERE, 0)
    for round_ in range(rounds):
        if round_ and round_ % PUBLISHED_EVERY == 0:
            model = publisher.model(learner)
        customer, at = int(draw.integers(PEOPLE)), BEGIN + round_ * MINUTE
        own, shared = _features(truth, customer, at)
        worth = Worth(model.caused(kinds, PLACEMENT), truth.margin, np.zeros(len(ids)), 0.0)
        drawn = fill_slots(
            np.zeros(len(ids)),
            lambda own=own, shared=shared, worth=worth, model=model: worth.ranked_by(  # type: ignore[misc]
                objective, model.draws(own, shared, ids, cells)
            ),
            1,
            Exploration(0.05),
            seed_of(f"{seed}-{round_}"),
            ghosts=lambda offer, customer=customer, at=at: (
                [offer]  # type: ignore[misc]
                * is_ghost(f"c{customer}", ids[offer], at, WINDOW, GHOSTS, b"salt")
            ),
        )
        for one in drawn:
            anyway, caused = truth.anyway[customer, one.chosen], truth.caused[customer, one.chosen]
            bought = draw.random() < anyway
            ghosts[KINDS[kinds[one.chosen]]] += one.ghost
            if not one.ghost:
                bought = bought or draw.random() < caused
                # Who buys anyway brings nothing more.
                gained.append((1.0 - anyway) * caused * truth.margin[one.chosen])
                sums[kinds[one.chosen]] += ((1.0 - anyway) * caused, anyway + (1.0 - anyway) * caused)
            for lesson in trial_lessons(
                at=at,
                offer_id=ids[one.chosen],
                kind=KINDS[kinds[one.chosen]],
                propensity=one.propensity,
                own=own[one.chosen],
                shared=shared,
                cell=int(cells[one.chosen]),
                bought=bought,
                ghost=one.ghost,
            ):
                learner.learn_one(lesson)
    shares = learner.caused.shares().get(PLACEMENT, {})
    true = {KINDS[at]: caused / bought for at, (caused, bought) in enumerate(sums.tolist()) if bought > 0}
    return Played(float(np.mean(gained[len(gained) // 2 :])), shares, true, ghosts)


def _features(truth: Regulars, customer: int, at: int) -> tuple[Floats, Floats]:
    """As the recommender knows them: who buys something often has a habit of it."""
    anyway = truth.anyway[customer]
    matrix = np.zeros((len(anyway), len(FEATURES)))
    matrix[:, FEATURES.index("habit")] = np.log(5.0 * anyway + 0.3)
    own = own_features(
        matrix,
        FEATURES,
        chance=ChoiceModel().probabilities(matrix),
        kinds=truth.kinds.astype(np.int8),
        groups=np.broadcast_to(source_groups(["popular"]), len(anyway)),
        price=2.5 * truth.margin,
        margin=truth.margin,
        tier_step=np.zeros(len(anyway)),
        seen=np.full(len(anyway), 100.0),
        offers=np.zeros((len(anyway), SKETCH)),
    )
    told = Told("web", PLACEMENT, at, np.zeros(SKETCH), orders=5.0, on_page=False, basket=0)
    [shared] = shared_features([told])
    return own, shared


def main() -> None:
    """Print what each objective caused, and κ beside the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6_000)
    parser.add_argument("--worlds", type=int, default=4)
    chosen = parser.parse_args()
    print("| objective | margin caused a decision | κ learned / true, by kind |")
    print("|---|---|---|")
    for objective in OBJECTIVES:
        played = [play(Regulars.make(seed), objective, chosen.rounds, seed) for seed in range(chosen.worlds)]
        margins = [one.margin for one in played]
        shares = "; ".join(_share(kind, played) for kind in KINDS_HERE)
        print(f"| {objective} | {np.mean(margins):.3f} ± {_error(margins):.3f} | {shares} |", flush=True)


def _share(kind: str, played: list[Played]) -> str:
    learned = [one.learned.get(kind, math.nan) for one in played]
    true = np.mean([one.true.get(kind, math.nan) for one in played])
    ghosts = np.mean([one.ghosts[kind] for one in played])
    return f"{kind} {np.mean(learned):.2f} ± {_error(learned):.2f} / {true:.2f} ({ghosts:,.0f} ghosts)"


def _error(found: list[float]) -> float:
    return float(np.std(found, ddof=1) / math.sqrt(len(found)))


if __name__ == "__main__":
    main()
