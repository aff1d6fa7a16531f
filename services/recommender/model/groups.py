"""Holdout groups: who sees what the model chose, who a plain baseline, who nothing."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal, get_args

from libs.common.contracts.identity import CustomerKey, is_nobody

Group = Literal["treatment", "baseline", "none"]
GROUPS: tuple[Group, ...] = get_args(Group)


def group_of(customer: CustomerKey, salt: bytes, baseline: float, none: float) -> Group:
    """The group of ``customer``, the same for ever while salt and shares stay.

    ``baseline`` and ``none`` are shares of all customers. Answers about nobody are always treated: a
    holdout compares people.
    """
    if is_nobody(customer) or baseline + none <= 0.0:
        return "treatment"
    digest = blake2b(customer.encode("utf-8", "surrogatepass"), key=salt[:64], digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    if place < none:
        return "none"
    return "baseline" if place < none + baseline else "treatment"
