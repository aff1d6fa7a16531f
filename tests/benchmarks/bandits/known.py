"""What the response model says of offers it knows well or not at all, beside the truth.

`python -m tests.benchmarks.bandits.known`
"""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

import numpy as np

from libs.common.scoring.response import start_deviation, start_mean
from libs.common.scoring.trial import RESPONSE_FEATURES, TRIAL_FEATURES
from services.analyzer.learner.logit import BayesianLogit, Seen, Told
from services.analyzer.learner.responses import LOT, ResponseLearner
from tests.benchmarks.bandits.offers import Floats
from tests.benchmarks.bandits.ours import BEGIN, KIND, Publisher, trial_lessons

OFFERS, IMPRESSIONS = 100, 500
LEVEL_90 = 1.645
UNWANTED = 1_000
RATE = 0.05
INTERCEPT = TRIAL_FEATURES.index("intercept")
CELL = 8


def plain(chance: float = 0.1) -> Floats:
    """Features (`TRIAL_FEATURES`,) of an offer of which nothing is known but P(choice)."""
    x = np.zeros(len(TRIAL_FEATURES))
    x[0], x[INTERCEPT] = math.log(chance / (1.0 - chance)), 1.0
    return x


class Coverage(NamedTuple):
    """How many of the true rates 90 % intervals hold, and how wide they are beside what offers differ by."""

    covered: int
    width: float


def coverage(seed: int) -> Coverage:
    """`OFFERS` new offers, each shown `IMPRESSIONS` times in a random sequence."""
    draw = np.random.default_rng(seed)
    rates = -3.6 + 0.7 * draw.standard_normal(OFFERS)
    chances = 1.0 / (1.0 + np.exp(-rates))
    model = BayesianLogit(start_mean("converted_alone"), start_deviation(), intercept=INTERCEPT)
    x = plain()
    shown = draw.permutation(np.repeat(np.arange(OFFERS), IMPRESSIONS))
    responded = (draw.random(len(shown)) < chances[shown]).astype(np.float64)
    told = [
        Told(Seen(x, f"o{offer}", CELL), success, 1.0)
        for offer, success in zip(shown.tolist(), responded.tolist(), strict=True)
    ]
    for first in range(0, len(told), LOT):
        model.learn_many(told[first : first + LOT])
    mean, variance = model.offers.arrays()
    cell, unsure = (float(one[0]) for one in model.cells.arrays())
    common = float(x @ model.covariance @ x) + unsure
    odds = float(x @ model.mean) + cell + mean
    true = rates[[int(key[1:]) for key in model.offers.keys]]
    covered = int((np.abs(odds - true) < LEVEL_90 * np.sqrt(variance + common)).sum())
    return Coverage(covered, float(np.sqrt(variance).mean() / true.std()))


def unwanted(seed: int) -> float:
    """How often an offer is drawn, of ten, that had `UNWANTED` impressions and no response."""
    draw = np.random.default_rng(seed)
    learner, x = ResponseLearner(), plain()
    own, shared = x[: len(RESPONSE_FEATURES)], x[len(RESPONSE_FEATURES) :]
    for _ in range(UNWANTED):
        for offer in (0, int(draw.integers(1, 10))):
            bought = offer > 0 and bool(draw.random() < RATE)
            for lesson in trial_lessons(
                at=BEGIN,
                offer_id=f"o{offer}",
                kind=KIND,
                propensity=0.5,
                own=own,
                shared=shared,
                cell=CELL,
                bought=bought,
            ):
                learner.learn_one(lesson)
    model = Publisher().model(learner)
    ids, cells = [f"o{offer}" for offer in range(10)], np.full(10, CELL)
    draws = model.draws(np.repeat(own[None, :], 10, axis=0), shared, ids, cells)
    return float((draws.argmax(axis=1) == 0).mean())


def main() -> None:
    """Print both for some seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(1, parser.parse_args().seeds + 1)
    found = [coverage(seed) for seed in seeds]
    shares = [unwanted(seed) for seed in seeds]
    print(f"90 % intervals of {OFFERS} new offers, {IMPRESSIONS} impressions each, that hold the true rate:")
    print("  " + ", ".join(str(one.covered) for one in found) + " (wanted: at least 85)")
    width = np.mean([one.width for one in found])
    print(f"  their standard deviation is {width:.2f} of that of the true log odds")
    print(f"an offer without any response in {UNWANTED} impressions is drawn, of ten:")
    print("  " + ", ".join(f"{share:.1%}" for share in shares) + " (wanted: under 2 %)")


if __name__ == "__main__":
    main()
