"""Records of decisions as they are stored, and who is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey


class TrialRow(NamedTuple):
    """What is remembered of a decision, under its order number; nothing any more where ``body`` is empty.

    ``due`` is the journal time after which something happens to it by itself. Read, it is a part of the
    customer's model: `record.TRIALS` + the decision's id.
    """

    partition: int
    customer: CustomerKey
    decision: str
    number: int
    due: Millis
    body: bytes


class Due(NamedTuple):
    """All customers for whom something falls due before ``before``; ``next`` is when the next thing does.

    Of visitors there may be more, should very many be due in the last millisecond before it: then that is
    ``next``. Whoever comes back meanwhile is found idle by his own event, so they may wait for a slice.

    ``visitors`` are those of them at whom to look because they may be idle, and when each look is due.
    """

    customers: Sequence[CustomerKey]
    before: Millis
    next: Millis
    visitors: Mapping[CustomerKey, Millis] = {}
