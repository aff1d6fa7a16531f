"""κ: the share of conversions that showing causes, from ghosts (Johnson, Lewis & Nubbemeyer 2017).

A ghost is an offer that was drawn and not shown, by a throw that nothing else depends on. What is bought
after ghosts would have been bought anyway.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.catalogue import KINDS
from libs.common.scoring.response import CAUSED_BEFORE

Floats = NDArray[np.float64]

EVERYWHERE = ""
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

    Attributes
    ----------
    counts:
        By (placement, kind) an array (2, 2): the shown, then ghosts; how many, then how many were bought.
    """

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Floats] = {}

    def learn_one(self, placement: str, kind: str, ghost: bool, bought: bool) -> None:
        """One trial or ghost was judged; kinds that do not exist count nowhere."""
        if kind not in KINDS:
            return
        places = {key[0] for key in self.counts}
        names = [EVERYWHERE]
        if placement and (placement in places or len(places) <= MOST_PLACES):
            names.append(placement)
        for name in names:
            counts = self.counts.setdefault((name, kind), np.zeros((2, 2)))
            counts[int(ghost)] += (1.0, float(bought))

    def fade(self, factor: float) -> None:
        """Let all counts be ``factor`` of what they were."""
        for counts in self.counts.values():
            counts *= factor

    def shares(self) -> dict[str, dict[str, float]]:
        """κ by placement (`EVERYWHERE`: all of them) and kind, where anything was judged."""
        before: Mapping[str, float] = {str(kind): share for kind, share in CAUSED_BEFORE.items()}
        found: dict[str, dict[str, float]] = {}
        for (placement, kind), counts in sorted(self.counts.items()):
            # Trap: sorted, so that all placements together come before each of them.
            general = found.get(EVERYWHERE, {}).get(kind)
            belief, weight = (before[kind], START_WEIGHT) if general is None else (general, PLACE_WEIGHT)
            found.setdefault(placement, {})[kind] = share_of(counts, belief, weight)
        return found


def share_of(counts: Floats, belief: float, weight: float) -> float:
    """The posterior mean of κ on a grid.

    Given how many were bought in both groups together, those among ghosts are binomial with odds
    n_ghosts · (1 − κ) : n_shown, whatever the incidence is (the exact comparison of two Poisson rates,
    Przyborowski & Wilenski 1940). The belief is a Beta distribution about ``belief``.
    """
    (shown, shown_bought), (ghosts, ghosts_bought) = counts.tolist()
    height = (weight * belief - 1.0) * np.log(_SHARES) + (weight * (1.0 - belief) - 1.0) * np.log1p(-_SHARES)
    if shown > 0.0 and ghosts > 0.0:
        odds = ghosts * (1.0 - _SHARES) / shown
        height += ghosts_bought * np.log(odds) - (ghosts_bought + shown_bought) * np.log1p(odds)
    mass = np.exp(height - height.max())
    return float(mass @ _SHARES / mass.sum())
