"""Counts that fade: exponential decay with a half-life, right for late events, joined exactly."""

from __future__ import annotations

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_model import Decayed

HALF_LIFE_DAY: Millis = 1 * DAY
HALF_LIFE_FORTNIGHT: Millis = 14 * DAY
HALF_LIFE_SEASON: Millis = 120 * DAY
HALF_LIFE_POPULARITY: Millis = 60 * DAY
HALF_LIFE_RECENT: Millis = 7 * DAY

MAX_WEIGHT = 1e15
"""No count leaves ±this: whatever arrives, sums of counts stay finite and exact enough."""


def bounded(amount: float) -> float:
    """``amount`` within ±`MAX_WEIGHT`; not-a-number counts nothing."""
    if -MAX_WEIGHT <= amount <= MAX_WEIGHT:
        return amount
    if amount != amount:
        return 0.0
    return MAX_WEIGHT if amount > 0 else -MAX_WEIGHT


def fading(age: Millis, half_life: Millis) -> float:
    """The factor in (0, 1] that ``age`` ms leave of a count; an age below zero leaves all of it."""
    # Trap: an age below zero must not make counts grow: a replay asks about the past of a newer model.
    return float(2.0 ** (-age / half_life)) if age > 0 else 1.0


def faded(d: Decayed, at: Millis, half_life: Millis) -> float:
    """What ``d`` weighs at ``at``; before its last change: what it weighed after it."""
    return d.weight * fading(at - d.at, half_life)


def added(d: Decayed, amount: float, at: Millis, half_life: Millis) -> Decayed:
    """``d`` after ``amount`` happened at ``at``.

    A late amount (``at`` before the last change) is faded to the time of ``d``, so that any order of the
    same events gives the same count up to rounding.
    """
    # Five times an event: `bounded` and `fading` are written out, which takes half the time.
    if not -MAX_WEIGHT <= amount <= MAX_WEIGHT:
        amount = bounded(amount)
    weight, latest = d.weight, d.at
    if at > latest:
        weight = weight * 2.0 ** ((latest - at) / half_life) + amount
        latest = at
    elif at == latest:
        weight += amount
    else:
        weight += amount * 2.0 ** ((at - latest) / half_life)
    return Decayed(weight if -MAX_WEIGHT <= weight <= MAX_WEIGHT else bounded(weight), latest)


def joined(a: Decayed, b: Decayed, half_life: Millis) -> Decayed:
    """The count of everything ``a`` and ``b`` counted, as of the later of the two."""
    if a.at >= b.at:
        return Decayed(bounded(a.weight + faded(b, a.at, half_life)), a.at)
    return Decayed(bounded(b.weight + faded(a, b.at, half_life)), b.at)
