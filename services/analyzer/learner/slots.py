"""Slot effects: how much less is responded to in a slot than in the one above it.

Told from the order in which two neighbours happened to be drawn (intervention harvesting, Agarwal et al.
2019, Estimating Position Bias without Intrusive Interventions): a trial counts by the probability that the
two had been drawn the other way round (overlap weights, Li, Morgan & Zaslavsky 2018). So weighed, each offer
stands as often in the upper slot as in the lower one, whatever the policy takes it for and whatever it is.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LAST_RANK = 10
"""Slots below it count as one."""
STEP_VARIANCE = 1.0
"""Before anything is known, the log odds of a slot to the one above have this variance."""
MOST_PLACES = 64
LEAST_TRIALS = 1e-6
"""A placement of which less is left gives its place to another."""


class SlotEffects:
    """Learns the odds of slots by placement.

    Parameters
    ----------
    fall:
        Before anything is known, slot k has odds of 1 / k to this power (0: slots do not matter; 1: as is
        usual in lists, Joachims, Swaminathan & Schnabel 2017).

    Attributes
    ----------
    counts:
        By placement, of the first `MOST_PLACES`, an array (`LAST_RANK` - 1, 2, 2): by the upper of two
        neighbouring slots, in it and in the lower one, the weighed successes and trials.
    """

    def __init__(self, fall: float) -> None:
        self.fall = fall
        self.counts: dict[str, Floats] = {}

    def learn_one(
        self, placement: str, rank: int, swapped: tuple[float, float], successes: float, trials: float
    ) -> None:
        """What came of a trial in slot ``rank``, or a part of it.

        Parameters
        ----------
        swapped:
            Probabilities of the other order: with the offer above it, and with the one below.
        """
        if not any(swapped) or (placement not in self.counts and len(self.counts) >= MOST_PLACES):
            return
        counts = self.counts.setdefault(placement, np.zeros((LAST_RANK - 1, 2, 2)))
        above, below = swapped
        if 2 <= rank <= LAST_RANK:
            counts[rank - 2, 1] += (above * successes, above * trials)
        if 1 <= rank < LAST_RANK:
            counts[rank - 1, 0] += (below * successes, below * trials)

    def fade(self, factor: float) -> None:
        """Let all counts be ``factor`` of what they were; what is next to nothing is forgotten."""
        for counts in self.counts.values():
            counts *= factor
        self.counts = {
            placement: counts for placement, counts in self.counts.items() if counts.max() >= LEAST_TRIALS
        }

    def of(self, placement: str, rank: int) -> float:
        """Log odds of slot ``rank`` beside the first."""
        last = max(min(rank, LAST_RANK), 1)
        counts = self.counts.get(placement)
        if counts is None:
            return -self.fall * math.log(last)
        steps = counts[: last - 1].reshape(-1, 4).tolist()
        return sum(
            _step(-self.fall * math.log((upper + 1) / upper), *step)
            for upper, step in enumerate(steps, start=1)
        )

    def odds(self) -> dict[str, list[float]]:
        """Of the slots of each placement, those of the first being 1."""
        return {
            placement: [math.exp(self.of(placement, rank)) for rank in range(1, LAST_RANK + 1)]
            for placement in sorted(self.counts)
        }


def _step(
    before: float, upper_successes: float, upper_trials: float, lower_successes: float, lower_trials: float
) -> float:
    """The posterior mean of the log odds ratio of two binomials, each with one trial more, and those say
    ``before``: so rates of 0 and 1 have odds, too, and what is not told moves nothing."""
    # Trap: successes come before their trials are told to the end.
    upper_fails = max(upper_trials - upper_successes, 0.0)
    lower_fails = max(lower_trials - lower_successes, 0.0)
    odds = (upper_successes + lower_successes + 0.5) / (upper_fails + lower_fails + 0.5)
    below = odds * math.exp(before)
    upper, upper_rest = upper_successes + odds / (1.0 + odds), upper_fails + 1.0 / (1.0 + odds)
    lower, lower_rest = lower_successes + below / (1.0 + below), lower_fails + 1.0 / (1.0 + below)
    # Weights are 1 at most: what is weighed says no less than as many trials would.
    variance = 1.0 / upper + 1.0 / upper_rest + 1.0 / lower + 1.0 / lower_rest
    said = math.log(lower * upper_rest / (lower_rest * upper))
    return before + (said - before) * STEP_VARIANCE / (STEP_VARIANCE + variance)
