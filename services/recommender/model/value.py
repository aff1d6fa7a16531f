"""What showing an offer is worth: expected incremental margin, in the base currency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from libs.common.contracts.catalogue import KINDS, Objective

Floats = NDArray[np.float64]
Some = TypeVar("Some", NDArray[np.float64], NDArray[np.float32])

KIND_CODES: dict[str, int] = {kind: code for code, kind in enumerate(KINDS)}
"""Kinds as small integers, for arrays."""


@dataclass(frozen=True, eq=False)
class Worth:
    """What candidates bring when they are taken up.

    Attributes
    ----------
    caused:
        κ, array (m,): the share of conversions that showing causes.
    margin:
        Array (m,): per sale, of an up-sell the difference to the product it replaces.
    returned:
        Array (m,): probability that the sale comes back.
    contact_cost:
        What showing costs, whatever comes of it.
    """

    caused: Floats
    margin: Floats
    returned: Floats
    contact_cost: float

    def score(self, chance: Floats) -> Floats:
        """Expected incremental margin: q · κ · margin · (1 − return probability) − contact cost."""
        return self.ranked_by("uplift", chance)

    def ranked_by(self, objective: Objective, chance: Some) -> Some:
        """The number candidates are ranked by, for chances q (m,) or draws of them (n, m).

        ``uplift`` is the score, ``value`` the margin whoever caused it, ``acceptance`` q itself.
        """
        if objective == "acceptance":
            return chance
        factor = self._uplift if objective == "uplift" else self._value
        ranking: Some = chance * factor.astype(chance.dtype, copy=False)
        ranking -= self.contact_cost
        return ranking

    @cached_property
    def _value(self) -> Floats:
        return self.margin * (1.0 - self.returned)

    @cached_property
    def _uplift(self) -> Floats:
        return self._value * self.caused

    def columns(self, places: Sequence[int]) -> Floats:
        """Array (places, 4): of each κ, margin, return probability and contact cost."""
        columns = np.empty((len(places), 4))
        for column, numbers in enumerate((self.caused, self.margin, self.returned)):
            columns[:, column] = numbers[places]
        columns[:, 3] = self.contact_cost
        return columns

    def at(self, kept: NDArray[np.int64]) -> Worth:
        """Of the candidates at ``kept`` only."""
        return Worth(self.caused[kept], self.margin[kept], self.returned[kept], self.contact_cost)
