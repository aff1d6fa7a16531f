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
    swapped:
        Given that these two were drawn, one right after the other, for this slot and the one above: the
        probability of the other order; 0 where there is none.
    """

    rank: int
    chosen: int
    propensity: float
    open: Mask | None = None
    wins: Counts | None = None
    ghost: bool = False
    among: int = 1
    swapped: float = 0.0


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


class Slots(NamedTuple):
    """One slate to be filled, see `fill_slots`."""

    values: Floats
    draws: Callable[[], Floats]
    limit: int
    exploration: Exploration
    seed: int
    no_offer: bool = False
    ghosts: Callable[[int], Sequence[int]] | None = None
    ties: Floats | None = None

    @property
    def drawn(self) -> bool:
        """Whether anything is drawn at all."""
        return self.exploration.share > 0.0 and len(self.values) > 0


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
        Gives an array (n, m) of the same in ``n`` posterior draws. Not asked without exploration: then the
        best mean is placed, and every propensity is 1.
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
    [drawn] = fill_all([Slots(values, draws, limit, exploration, seed, no_offer, ghosts, ties)])
    return drawn


def fill_all(slates: Sequence[Slots]) -> list[list[Draw]]:
    """Fill several slates, each as it would be by itself; all must have as many posterior draws."""
    filled = [[] if slots.drawn else _greedy(slots) for slots in slates]
    filling = [_Filling(slots, drawn) for slots, drawn in zip(slates, filled, strict=True) if slots.drawn]
    if not filling:
        return filled
    contest = _Contest([one.slots for one in filling])
    rows = [row for row, one in enumerate(filling) if not one.done]
    while rows:
        out = [
            (row, at)
            for row, standing in zip(rows, contest.stand(rows), strict=True)
            for at in filling[row].fill(standing, contest, row)
        ]
        contest.leave(out)
        rows = [row for row in rows if not filling[row].done and contest.left[row]]
    return filled


def _drawn(u: float, exploration: float, open_: Mask, best: Counts) -> int:
    """One uniform number decides: below ε any open candidate, above it the best of any posterior draw."""
    if u < exploration:
        among = open_.nonzero()[0]
        return int(among[min(int(u / exploration * len(among)), len(among) - 1)])
    return int(best[min(int((u - exploration) / (1.0 - exploration) * len(best)), len(best) - 1)])


class _Standing(NamedTuple):
    """Who may be drawn now, and how many they are; the best in each posterior draw, how often each is it."""

    open: Mask
    among: int
    best: Counts
    wins: Counts


class _Filling:
    """One slate while it is filled; ``drawn`` takes what is drawn."""

    def __init__(self, slots: Slots, drawn: list[Draw]) -> None:
        self.slots = slots
        self.done = slots.limit < 1
        self._drawn = drawn
        self._above: _Standing | None = None
        self._rank = 1
        self._uniform = random.Random(slots.seed).random

    def fill(self, standing: _Standing, contest: _Contest, row: int) -> Sequence[int]:
        """Draw for the next slot of slate ``row``; who leaves."""
        slots, rank, share = self.slots, self._rank, self.slots.exploration.share
        open_, among, best, wins = standing
        at = _drawn(self._uniform(), share, open_, best)
        propensity = (1.0 - share) * int(wins[at]) / len(best) + share / among
        if at == len(slots.values):
            self._drawn.append(Draw(rank, NOBODY, propensity, open_, wins, among=among))
            self.done = True
            return ()
        out = () if slots.ghosts is None else slots.ghosts(at)
        # What remains must fill the slate: whoever asks for so many offers gets them, if there are any.
        ghost = bool(out) and contest.left[row] - len(out) > slots.limit - rank
        swapped = 0.0 if ghost else self._swapped(at, propensity, contest, row)
        self._drawn.append(Draw(rank, at, propensity, open_, wins, ghost, among, swapped))
        self._above = None if ghost else standing
        self._rank += not ghost
        self.done = self._rank > slots.limit
        return out if ghost else (at,)

    def _swapped(self, at: int, propensity: float, contest: _Contest, row: int) -> float:
        """See `Draw`; of ``at``, drawn with ``propensity``."""
        was, share = self._above, self.slots.exploration.share
        if was is None or not was.open[at]:
            return 0.0
        upper = self._drawn[-1]
        wins, among = contest.without(row, at, upper.chosen, was)
        if not among:
            return 0.0
        first = (1.0 - share) * int(was.wins[at]) / len(was.best) + share / was.among
        other = first * ((1.0 - share) * wins / len(was.best) + share / among)
        return other / (upper.propensity * propensity + other)


class _Contest:
    """Which candidate is the best in each posterior draw, while candidates leave; of several slates at once.

    Attributes
    ----------
    left:
        How many candidates have not left, by slate.
    """

    def __init__(self, slates: Sequence[Slots]) -> None:
        drawn = [slots.draws() for slots in slates]
        self._sizes = [len(slots.values) + slots.no_offer for slots in slates]
        self.left = list(self._sizes)
        shape = len(slates), len(drawn[0]), max(self._sizes)
        # What is no candidate, or has left, is the best nowhere.
        self._worlds = np.full(shape, -np.inf, dtype=np.result_type(*drawn))
        self._open: Mask = np.zeros((len(slates), shape[2]), dtype=bool)
        self._near: dict[int, tuple[Floats, float]] = {}
        self._taken: dict[int, Floats] = {}
        for row, (slots, values) in enumerate(zip(slates, drawn, strict=True)):
            self._worlds[row, :, : len(slots.values)] = values
            self._open[row, : self._sizes[row]] = True
            if slots.no_offer:
                self._worlds[row, :, self._sizes[row] - 1] = 0.0
            if slots.exploration.near_best is not None:
                means = np.append(slots.values, 0.0) if slots.no_offer else slots.values
                self._near[row] = means, slots.exploration.near_best

    def stand(self, rows: Sequence[int]) -> list[_Standing]:
        """How the slates of ``rows`` stand."""
        every = len(rows) == len(self._worlds)
        worlds = self._worlds if every else self._worlds[rows]
        open_ = self._open.copy() if every else self._open[rows]
        best = worlds.argmax(axis=2)
        among = [self.left[row] for row in rows]
        for at, row in enumerate(rows if self._near else ()):
            if row in self._near:
                some = self._nearest(row, self._open[row])
                open_[at] = False
                open_[at, some] = True
                best[at] = some[worlds[at].take(some, axis=1).argmax(axis=1)]
                among[at] = len(some)
        first = np.arange(0, open_.size, open_.shape[1])[:, None]
        wins = np.bincount((best + first).ravel(), minlength=open_.size).reshape(open_.shape)
        sizes = [self._sizes[row] for row in rows]
        return [
            _Standing(open_[at, :size], among[at], best[at], wins[at, :size]) for at, size in enumerate(sizes)
        ]

    def leave(self, gone: Sequence[tuple[int, int]]) -> None:
        """Take candidates out, as pairs of slate and candidate."""
        for row, at in gone:
            self._open[row, at] = False
            self._taken[row] = self._worlds[row, :, at].copy()
            self._worlds[row, :, at] = -np.inf
            self.left[row] -= 1

    def without(self, row: int, lower: int, upper: int, was: _Standing) -> tuple[int, int]:
        """In how many posterior draws ``upper``, which was the last to leave, would have been the best as the
        slate stood then, had ``lower`` been out; and of how many (0: it could not have been drawn)."""
        near = self._near_without(row, lower, upper, was) if row in self._near else None
        if near is not None and upper not in near:
            return 0, 0
        # Trap: with a bound that falls more come near, with one that rises fewer: as many are the same.
        if near is not None and len(near) != was.among - 1:
            worlds, at = self._worlds[row].take(near, axis=1), int(near.searchsorted(upper))
            worlds[:, at] = self._taken[row]
            return int(np.count_nonzero(worlds.argmax(axis=1) == at)), len(near)
        wins = int(was.wins[upper])
        # Only where it was the best does anything change when it is out.
        if was.wins[lower]:
            lost = (was.best == lower).nonzero()[0]
            worlds = self._worlds[row].take(lost, axis=0)
            worlds[:, lower] = -np.inf
            worlds[:, upper] = self._taken[row][lost]
            best = worlds.argmax(axis=1) if near is None else near[worlds.take(near, axis=1).argmax(axis=1)]
            wins += int(np.count_nonzero(best == upper))
        return wins, was.among - 1

    def _near_without(self, row: int, lower: int, upper: int, was: _Standing) -> Counts:
        """Who would have been near the best as the slate stood when ``upper`` was drawn, had ``lower`` been
        out."""
        means = self._near[row][0]
        if means[lower] <= means[upper]:
            # It was not the best by itself: near is who was near.
            open_ = was.open.copy()
            open_[lower] = False
            near: Counts = open_.nonzero()[0]
            return near
        open_ = self._open[row].copy()
        open_[[upper, lower]] = True, False
        return self._nearest(row, open_)

    def _nearest(self, row: int, among: Mask) -> Counts:
        """Who is near the best of ``among``, at the mean."""
        means, share = self._near[row]
        open_ = among[: len(means)]
        top = means[open_].max()
        near: Counts = (open_ & (means >= top - share * abs(top))).nonzero()[0]
        return near


def _greedy(slots: Slots) -> list[Draw]:
    values, limit = slots.values, slots.limit
    order = np.lexsort((-values,) if slots.ties is None else (-slots.ties, -values))[:limit].tolist()
    if slots.no_offer:
        order = [at for at in order if values[at] >= 0.0]
        if len(order) < limit:
            order.append(NOBODY)
    return [Draw(rank, at, 1.0) for rank, at in enumerate(order, start=1)]
