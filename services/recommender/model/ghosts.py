"""Ghosts: offers that are not shown though they were drawn, to see what customers do without them.

What showing causes is the difference between those who saw an offer and those who would have seen it
(ghost ads: Johnson, Lewis & Nubbemeyer 2017).
"""

from __future__ import annotations

from hashlib import blake2b

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey

_PURPOSE = b"ghost"
"""Keeps these hashes apart from those that make the holdout groups, under the same salt."""


def is_ghost(
    customer: CustomerKey, about: str, now: Millis, window: Millis, share: float, salt: bytes
) -> bool:
    """Whether ``about`` is withheld from ``customer`` in the attribution window that ``now`` lies in.

    It is a product, by the id of its own offer, so that all offers of a product are ghosts together: who is
    shown another one has been shown the product. An offer without a product stands for itself. Of all such
    pairs ``share`` are, others in each window; the same pair is all through one, whoever asks.
    """
    if share <= 0.0:
        return False
    pair = "\0".join((customer, about, str(now // window))).encode("utf-8", "surrogatepass")
    digest = blake2b(pair, key=salt[:64], person=_PURPOSE, digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64
