"""Customers whose models were withdrawn: their decisions, and what memory holds of them, go too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from libs.common.bus.ports import Message
from libs.common.contracts.customer_model import PROFILE, model_key
from libs.common.contracts.identity import CustomerKey
from libs.common.view.entries import is_dropped
from services.recommender.metrics import RecommenderMetrics
from services.recommender.ports import DecisionStore


class Withdrawals(Protocol):
    """The view of customer models, as far as deletions go."""

    def gone(self) -> list[bytes]:
        """Keys that were deleted and not forgotten yet."""
        ...

    async def forget(self, keys: Sequence[bytes]) -> None:
        """Keep of ``keys``, which were deleted, nothing but a hash."""
        ...

    def was_deleted(self, key: bytes) -> bool:
        """Whether ``key`` was deleted, forgotten or not, and has not come back."""
        ...


Drop = Callable[[Sequence[CustomerKey], Sequence[str]], None]


class Forgetting:
    """Deletes the decisions of customers whose models are withdrawn.

    A withdrawal stays in the view, key and all, until this is done: so a crash in between repeats it, and
    nothing of it is left afterwards. Decisions that come out of the spool later are not stored.

    Parameters
    ----------
    view:
        The view of customer models, asked for each time.

    Attributes
    ----------
    drop:
        Clears memory of these customers and decisions; set it before it is needed.
    """

    def __init__(
        self, view: Callable[[], Withdrawals], store: DecisionStore, metrics: RecommenderMetrics
    ) -> None:
        self._view = view
        self._store = store
        self.drop: Drop = lambda customers, decision_ids: None
        self._metrics = metrics
        self._pending: set[bytes] | None = None
        self._news: set[bytes] = set()

    def on_batch(self, messages: Sequence[Message]) -> None:
        """Hear of what the view has just read."""
        self._news.update(
            message.key for message in messages if message.value is None and not is_dropped(message)
        )

    def is_gone(self, customer: CustomerKey) -> bool:
        """Whether nothing may be kept of ``customer``."""
        return self._view().was_deleted(model_key(customer, PROFILE))

    async def catch_up(self) -> None:
        """Forget whom there is to forget; raises `Transient`, and is then to be called again."""
        if self._pending is None:
            # What an earlier process has not come to.
            self._pending = set(self._view().gone())
        self._pending |= self._news
        self._news.clear()
        if not self._pending:
            return
        keys = sorted(self._pending)
        customers = sorted({key.decode("utf-8", "replace").rpartition("/")[0] for key in keys})
        self.drop(customers, await self._store.erase(customers))
        # A model that has come back meanwhile is not forgotten, see `Withdrawals.forget`.
        await self._view().forget(keys)
        self._pending.clear()
        self._metrics.forgotten.add(len(customers))
