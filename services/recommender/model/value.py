"""What showing an offer is worth: expected incremental margin, in the base currency."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.catalogue import KINDS, Kind, Objective

KIND_CODES: dict[str, int] = {kind: code for code, kind in enumerate(KINDS)}
"""Kinds as small integers, for arrays."""

_CAUSED: dict[Kind, float] = {
    "repeat": 0.1,
    "cross_sell": 0.5,
    "up_sell": 0.7,
    "retrofit": 0.9,
    "service": 0.9,
    "retention": 0.5,
    "content": 0.5,
}

CAUSED_BY_KIND: tuple[float, ...] = tuple(_CAUSED[kind] for kind in KINDS)
"""κ by kind code: the share of conversions that showing causes, before anything is learned about it.

A regular buys his coffee whether he is shown it or not; nobody finds the retrofit kit by himself.
"""


def incremental_margin(
    chance: NDArray[np.float64],
    kinds: NDArray[np.int8],
    margin: NDArray[np.float64],
    contact_cost: float,
) -> NDArray[np.float64]:
    """P(choice) × κ × margin − contact cost, for each candidate.

    ``margin`` is per sale; of an up-sell it is the difference to the product it replaces.
    """
    caused = np.array(CAUSED_BY_KIND)[kinds]
    worth: NDArray[np.float64] = chance * caused * margin - contact_cost
    return worth


def ranked_by(
    objective: Objective,
    chance: NDArray[np.float64],
    margin: NDArray[np.float64],
    score: NDArray[np.float64],
    contact_cost: float,
) -> NDArray[np.float64]:
    """The number candidates are ranked by: uplift, value (whoever caused it) or acceptance."""
    if objective == "acceptance":
        return chance
    if objective == "value":
        expected: NDArray[np.float64] = chance * margin - contact_cost
        return expected
    return score
