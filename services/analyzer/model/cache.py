"""Models kept in memory between slices, bounded by their encoded size; the least recently used leave."""

from __future__ import annotations

from collections import OrderedDict

from libs.common.contracts.identity import CustomerKey
from services.analyzer.model.fold import Models


class ModelCache:
    """The models of one claim of one partition. Dropped with the claim, and whenever a write may have failed.

    Parameters
    ----------
    limit:
        Bytes of encoded models to keep; as objects they take some ten times that.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._models: OrderedDict[CustomerKey, tuple[Models, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._models)

    def get(self, customer: CustomerKey) -> Models | None:
        """The models of ``customer``, if they are here."""
        found = self._models.get(customer)
        if found is None:
            return None
        self._models.move_to_end(customer)
        return found[0]

    def put(self, customer: CustomerKey, models: Models, size: int) -> None:
        """Keep ``models``; ``size`` is the encoded size of the parts just written, 0 where unknown."""
        _, before = self._models.pop(customer, (None, 0))
        size = max(size, before, 256)
        self._models[customer] = (models, size)
        self._bytes += size - before
        while self._bytes > self._limit and len(self._models) > 1:
            _, (_, gone) = self._models.popitem(last=False)
            self._bytes -= gone

    def drop(self, customer: CustomerKey) -> None:
        """Forget one customer."""
        _, size = self._models.pop(customer, (None, 0))
        self._bytes -= size

    def clear(self) -> None:
        """Forget everything."""
        self._models.clear()
        self._bytes = 0
