"""How sure a count makes us: exact upper bounds of a share (Clopper & Pearson 1934), one-sided, 95 %."""

from __future__ import annotations

from math import exp, lgamma, log


def upper_bound(failures: int, n: int, confidence: float = 0.95) -> float:
    """The share that ``failures`` of ``n`` do not exclude; about 3/n for none (the rule of three)."""
    if n == 0 or failures >= n:
        return 1.0
    low, high = failures / n, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if _at_most(failures, n, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(k: int, n: int, p: float) -> float:
    """P(X ≤ k) of a binomial."""
    if p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 0.0
    whole = lgamma(n + 1)
    return sum(
        exp(whole - lgamma(i + 1) - lgamma(n - i + 1) + i * log(p) + (n - i) * log(1 - p))
        for i in range(k + 1)
    )
