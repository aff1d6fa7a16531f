"""The slot policy: which offer goes into which slot, and with what probability it was drawn.

Thompson sampling with propensities that can be stated (Thompson 1933): the share of posterior draws in
which an offer is the best is counted, not estimated, and so is what the draw really does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64] | NDArray[np.float32]
Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]

POLICY_VERSION = "posterior-draws/2"
NOBODY = -1
"""Index that stands for "no offer" in a slot; in a pool it is the one behind the last candidate."""


class Exploration(NamedTuple):
    """How a placement draws.

    Parameters
    ----------
    share:
        ε: so much of the probability is spread evenly over all candidates; with 0 nothing is drawn.
    near_best:
        Where given, only candidates within this share of the best one's posterior mean are drawn from.
    """

    share: float
    near_best: float | None = None


class Draw(NamedTuple):
    """One draw for one slot.

    Parameters
    ----------
    rank:
        The slot, from 1.
    chosen:
        Index of the candidate drawn, or `NOBODY`.
    propensity:
        Probability with which this draw chose it, given what was drawn before.
    open, wins:
        Arrays (candidates and, where it may be drawn, "no offer"): what could be drawn, and in how many
        posterior draws each was the best of them. None where nothing was drawn: the chosen one had to be.
    ghost:
        Whether it was taken out and the slot drawn again.
    among:
        How many could be drawn.
    """

    rank: int
    chosen: int
    propensity: float
    open: Mask | None = None
    wins: Counts | None = None
    ghost: bool = False
    among: int = 1


def seed_of(decision_id: str) -> int:
    """The seed of a decision's draws: the same decision draws the same offers on every machine.

    Trap: 48 bits, because a larger integer would not survive readers that keep JSON numbers as doubles.
    """
    return int.from_bytes(blake2b(decision_id.encode("utf-8", "surrogatepass"), digest_size=6).digest())


def propensities(wins: Counts, open_: Mask, exploration: float) -> NDArray[np.float64]:
    """p_k of all candidates: (1 − ε) × the share of posterior draws won, and ε shared evenly by the open."""
    chances: NDArray[np.float64] = (1.0 - exploration) * wins / wins.sum()
    chances[open_] += exploration / np.count_nonzero(open_)
    return chances


def fill_slots(
    values: Floats,
    draws: Callable[[], Floats],
    limit: int,
    exploration: Exploration,
    seed: int,
    *,
    no_offer: bool = False,
    ghosts: Callable[[int], Sequence[int]] | None = None,
    ties: Floats | None = None,
) -> list[Draw]:
    """Fill up to ``limit`` slots, one draw after the other, ghosts among them.

    Parameters
    ----------
    values:
        Array (m,): posterior mean of what candidates are ranked by.
    draws:
        Gives an array (n, m) of the same in ``n`` posterior draws, to be written to. Not asked without
        exploration: then the best mean is placed, and every propensity is 1.
    no_offer:
        Whether "no offer" (worth 0) is a candidate; placed, it ends the slate. It stands behind an offer
        that is worth as much.
    ghosts:
        What leaves with a drawn candidate that is a ghost, itself among it; nothing where it is none. Not
        asked without exploration.
    ties:
        Array (m,): without exploration ties go to the greatest of these.

    Other ties go to the candidate named first.
    """
    if exploration.share <= 0.0 or not len(values):
        return _greedy(values, limit, no_offer, ties)
    size = len(values)
    worlds = draws()
    if no_offer:
        values = np.append(values, 0.0)
        worlds = np.concatenate((worlds, np.zeros((len(worlds), 1), worlds.dtype)), axis=1)
    contest = _Contest(values, worlds, exploration.near_best)
    uniform = random.Random(seed).random
    drawn: list[Draw] = []
    rank = 1
    while rank <= limit and contest.left:
        open_, best = contest.open()
        at = _drawn(uniform(), exploration.share, open_, best)
        wins = np.bincount(best, minlength=len(values))
        left = int(np.count_nonzero(open_))
        propensity = (1.0 - exploration.share) * int(wins[at]) / len(best) + exploration.share / left
        if at == size:
            drawn.append(Draw(rank, NOBODY, propensity, open_, wins, among=left))
            break
        out = () if ghosts is None else ghosts(at)
        # What remains must fill the slate: whoever asks for so many offers gets them, if there are any.
        ghost = bool(out) and contest.left - len(out) > limit - rank
        drawn.append(Draw(rank, at, propensity, open_, wins, ghost, left))
        for one in out if ghost else (at,):
            contest.leave(one)
        rank += not ghost
    return drawn


def _drawn(u: float, exploration: float, open_: Mask, best: Counts) -> int:
    """One uniform number decides: below ε any open candidate, above it the best of any posterior draw."""
    if u < exploration:
        among = open_.nonzero()[0]
        return int(among[min(int(u / exploration * len(among)), len(among) - 1)])
    return int(best[min(int((u - exploration) / (1.0 - exploration) * len(best)), len(best) - 1)])


class _Contest:
    """Which candidate is the best in each posterior draw, while candidates leave."""

    def __init__(self, values: Floats, worlds: Floats, near_best: float | None) -> None:
        self._values = values
        self._worlds = worlds
        self._near_best = near_best
        self._open: Mask = np.ones(len(values), dtype=bool)
        self._best: Counts = worlds.argmax(axis=1) if near_best is None and len(values) else np.empty(0, int)
        self.left = len(values)

    def open(self) -> tuple[Mask, Counts]:
        """Who may be drawn now, and the best of them in each posterior draw."""
        if self._near_best is None:
            return self._open.copy(), self._best
        top = self._values[self._open].max()
        near = self._open & (self._values >= top - self._near_best * abs(top))
        among = near.nonzero()[0]
        return near, among[self._worlds[:, among].argmax(axis=1)]

    def leave(self, at: int) -> None:
        self._open[at] = False
        self.left -= 1
        if self._near_best is None and self.left:
            self._worlds[:, at] = -np.inf
            # Only where it was the best somebody else is now.
            lost = (self._best == at).nonzero()[0]
            self._best[lost] = self._worlds.take(lost, axis=0).argmax(axis=1)


def _greedy(values: Floats, limit: int, no_offer: bool, ties: Floats | None) -> list[Draw]:
    order = np.lexsort((-values,) if ties is None else (-ties, -values))[:limit].tolist()
    if no_offer:
        order = [at for at in order if values[at] >= 0.0]
        if len(order) < limit:
            order.append(NOBODY)
    return [Draw(rank, at, 1.0) for rank, at in enumerate(order, start=1)]
