"""The panel: the customers whose orders say what was known of them before, for the learner of choice."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from libs.common.contracts.customer_model import Items
from libs.common.contracts.identity import CustomerKey
from libs.common.scoring.merge import keep_recent

MAX_BEFORE = 350
"""Products of a customer that a lesson carries, the newest; 50 would cost the choice model a tenth."""


@dataclass(frozen=True)
class Panel:
    """A sample of customers by a hash of their keys: the same in every process, and after every restart.

    Parameters
    ----------
    share:
        Of all customers, from 0 to 1.
    """

    share: float = 1.0

    def __contains__(self, customer: CustomerKey) -> bool:
        if self.share >= 1.0:
            return True
        text = f"panel\x00{customer}".encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=6).digest()) < self.share * (1 << 48)

    def before(self, items: Items) -> Items | None:
        """What an order's lesson says of ``items``, as they were before it; None outside the panel."""
        if items.customer not in self:
            return None
        kept = keep_recent(items.items, MAX_BEFORE)
        return items if kept is items.items else Items(customer=items.customer, items=kept)


EVERYBODY = Panel()
