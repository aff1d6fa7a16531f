"""The slot policy: which offer goes into which slot, and with what probability it was drawn."""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

POLICY_VERSION = "greedy-epsilon/1"
NOBODY = -1
"""Index that stands for "no offer" in a slot and in its pool."""


class Slot(NamedTuple):
    """One slot of a slate.

    Parameters
    ----------
    chosen:
        Index of the candidate placed, or `NOBODY`.
    propensity:
        Probability with which this draw placed it, given the slots above.
    left:
        Places in the ranking that were still open before the draw, best first; with ``ranking`` they
        name the pool.
    """

    chosen: int
    propensity: float
    left: NDArray[np.intp]


def seed_of(decision_id: str) -> int:
    """The seed of a decision's draws: the same decision draws the same offers on every machine.

    Trap: 48 bits, because a larger integer would not survive readers that keep JSON numbers as doubles.
    """
    return int.from_bytes(blake2b(decision_id.encode("utf-8", "surrogatepass"), digest_size=6).digest())


def rank(scores: NDArray[np.float64], no_offer: bool) -> NDArray[np.intp]:
    """Indices of ``scores``, best first, ties in their given order; with `NOBODY` (score 0) where allowed.

    "No offer" stands behind an offer of equal score.
    """
    order = (-scores).argsort(kind="stable")
    if not no_offer:
        return order
    place = int(np.count_nonzero(scores >= 0.0))
    return np.insert(order, place, NOBODY)


def propensities(left: int, exploration: float) -> NDArray[np.float64]:
    """p_k over the ``left`` candidates still open, best first: (1 − ε) on the best, ε shared evenly."""
    shares = np.full(left, exploration / left)
    shares[0] += 1.0 - exploration
    return shares


def fill_slots(ranking: NDArray[np.intp], limit: int, exploration: float, seed: int) -> list[Slot]:
    """Fill up to ``limit`` slots from ``ranking`` (best first), each drawn from `propensities`.

    Without exploration nothing is drawn and every propensity is 1. "No offer" ends the slate.
    """
    slots: list[Slot] = []
    left = ranking
    draws = random.Random(seed) if exploration > 0.0 else None
    while len(slots) < limit and len(left):
        at = 0 if draws is None else _draw(len(left), exploration, draws)
        propensity = exploration / len(left) + (1.0 - exploration if at == 0 else 0.0)
        chosen = int(left[at])
        slots.append(Slot(chosen, propensity, left))
        if chosen == NOBODY:
            break
        left = left[1:] if at == 0 else np.delete(left, at)
    return slots


def _draw(left: int, exploration: float, draws: random.Random) -> int:
    # One uniform number decides both: below ε it is spread evenly over all, above it the best is taken.
    u = draws.random()
    return int(u / exploration * left) if u < exploration else 0
