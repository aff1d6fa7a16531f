"""κ: the share of conversions that showing causes, from ghosts (Johnson, Lewis & Nubbemeyer 2017).

A ghost is an offer that was drawn and not shown, by a throw that nothing else depends on. What is bought
after ghosts would have been bought anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.catalogue import KINDS
from libs.common.scoring.response import CAUSED_BEFORE, EVERYWHERE

Floats = NDArray[np.float64]

START_WEIGHT = 4.0
"""Strength of the beliefs before: they weigh like a Beta distribution of so many observations …"""
PLACE_WEIGHT = 12.0
"""… and what holds for a kind everywhere, for one placement."""
MOST_PLACES = 64
_SHARES = (np.arange(200) + 0.5) / 200


class Caused:
    """Learns κ by kind and placement.

    Every trial and every ghost is judged alone: was the product bought within the window, whoever took the
    credit? κ is then 1 − incidence among ghosts / incidence among the shown.

    Trap: compared within a placement only. At a placement without ghosts more or less is bought than
    elsewhere, whatever showing causes.

    Attributes
    ----------
    counts:
        By (placement, kind), of the first `MOST_PLACES` placements, an array (2, 2): the shown, then ghosts;
        how many, then how many were bought.
    """

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Floats] = {}

    def learn_one(self, placement: str, kind: str, ghost: bool, bought: bool) -> None:
        """One trial or ghost was judged; kinds that do not exist count nowhere."""
        if kind not in KINDS or not placement:
            return
        places = {key[0] for key in self.counts}
        if placement in places or len(places) < MOST_PLACES:
            counts = self.counts.setdefault((placement, kind), np.zeros((2, 2)))
            counts[int(ghost)] += (1.0, float(bought))

    def fade(self, factor: float) -> None:
        """Let all counts be ``factor`` of what they were."""
        for counts in self.counts.values():
            counts *= factor

    def shares(self) -> dict[str, dict[str, float]]:
        """κ by placement (`EVERYWHERE`: all of them) and kind, where anything was judged."""
        before: Mapping[str, float] = {str(kind): share for kind, share in CAUSED_BEFORE.items()}
        by_kind: dict[str, list[Floats]] = {}
        # Trap: sorted, because sums of floats depend on their order.
        for (_, kind), counts in sorted(self.counts.items()):
            by_kind.setdefault(kind, []).append(counts)
        general = {kind: share_of(strata, before[kind], START_WEIGHT) for kind, strata in by_kind.items()}
        found = {EVERYWHERE: general} if general else {}
        for (placement, kind), counts in sorted(self.counts.items()):
            found.setdefault(placement, {})[kind] = share_of([counts], general[kind], PLACE_WEIGHT)
        return found


def share_of(strata: Sequence[Floats], belief: float, weight: float) -> float:
    """The posterior mean of κ on a grid, from counts (2, 2) of placements, each compared within itself.

    Given how many were bought in both groups together, those among ghosts are binomial with odds
    n_ghosts · (1 − κ) : n_shown, whatever the incidence is (the exact comparison of two Poisson rates,
    Przyborowski & Wilenski 1940). One without ghosts, or with nothing else, says nothing. The belief is a
    Beta distribution about ``belief``.
    """
    height = (weight * belief - 1.0) * np.log(_SHARES) + (weight * (1.0 - belief) - 1.0) * np.log1p(-_SHARES)
    for counts in strata:
        (shown, shown_bought), (ghosts, ghosts_bought) = counts.tolist()
        if shown > 0.0 and ghosts > 0.0:
            odds = ghosts * (1.0 - _SHARES) / shown
            height += ghosts_bought * np.log(odds) - (ghosts_bought + shown_bought) * np.log1p(odds)
    mass = np.exp(height - height.max())
    return float(mass @ _SHARES / mass.sum())
