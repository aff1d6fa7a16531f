"""How sure a difference of means is, where amounts are skewed and groups of unequal size.

Welch (1947), The generalization of "Student's" problem when several different population variances are
involved, Biometrika 34; stratum by stratum, the strata added up by their weights. One thing is done more
carefully: no group is believed to vary less than both together. What customers spend is so skewed that a
small group mostly lacks its big spenders; its mean is then too low and, what is worse, its variance too, and
Welch alone finds lifts where there are none (one in nine at a level of 0.95, with 50 customers of whom a
third bought).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Amounts = NDArray[np.float64]


class Stratum(NamedTuple):
    """One amount per customer of each group, at least two in each, and how much the stratum weighs."""

    weight: float
    treatment: Amounts
    control: Amounts


class Comparison(NamedTuple):
    """Weighted means, and the interval of their difference; None where nothing varies."""

    treatment: float
    control: float
    interval: tuple[float, float] | None


def compare(strata: Sequence[Stratum], level: float) -> Comparison:
    """Treatment against control with an interval of ``level``, in (0, 1); weights add up to 1."""
    treatment = sum(each.weight * float(each.treatment.mean()) for each in strata)
    control = sum(each.weight * float(each.control.mean()) for each in strata)
    errors = [error for each in strata for error in _errors(each)]
    squared = sum(of for of, _ in errors)
    if squared <= 0.0:
        return Comparison(treatment, control, None)
    # Satterthwaite's degrees of freedom. Divided first: squares of variances may not fit into a float.
    freedom = 1.0 / sum((of / squared) ** 2 / free for of, free in errors)
    reach = student(0.5 + level / 2.0, freedom) * sqrt(squared)
    difference = treatment - control
    return Comparison(treatment, control, (difference - reach, difference + reach))


def student(share: float, freedom: float) -> float:
    """Quantile of Student's t: Cornish and Fisher's expansion, off by less than 0.001 from 20 degrees on.

    Abramowitz and Stegun (1964), Handbook of mathematical functions, 26.7.5.
    """
    z = NormalDist().inv_cdf(share)
    return (
        z
        + (z**3 + z) / (4.0 * freedom)
        + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * freedom**2)
        + (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / (384.0 * freedom**3)
    )


def _errors(stratum: Stratum) -> list[tuple[float, int]]:
    """Of each group's weighted mean the squared standard error, and its degrees of freedom."""
    groups = (stratum.treatment, stratum.control)
    squares = [float(((group - group.mean()) ** 2).sum()) for group in groups]
    free = [len(group) - 1 for group in groups]
    together = sum(squares) / sum(free)
    return [
        (stratum.weight**2 * max(together, square / off) / (off + 1), off)
        for square, off in zip(squares, free, strict=True)
    ]
