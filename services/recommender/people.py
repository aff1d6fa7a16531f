"""Customer models out of the view, decoded, the latest used kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

import msgspec

from libs.common.contracts.customer_model import (
    ITEMS,
    PROFILE,
    decode_items,
    decode_profile,
    model_key,
)
from libs.common.contracts.identity import CustomerKey
from libs.common.lookup import Followed
from services.recommender.metrics import RecommenderMetrics
from services.recommender.ports import Known

T = TypeVar("T")


class ViewPeople:
    """Implements `ports.People` on a view of ``customer-models``."""

    def __init__(self, view: Followed, metrics: RecommenderMetrics, most: int) -> None:
        self._view = view
        self._profiles = _Decoded(decode_profile, most, metrics)
        self._items = _Decoded(decode_items, most, metrics)

    def of(self, key: CustomerKey) -> Known:
        return Known(self._part(key, PROFILE, self._profiles), self._part(key, ITEMS, self._items))

    def lag_seconds(self) -> float:
        return self._view.lag_seconds()

    def has(self, partition: int, offset: int, cluster: str = "") -> bool:
        return self._view.has(partition, offset, cluster)

    async def reached(self, partition: int, offset: int, timeout: float, cluster: str = "") -> bool:
        return await self._view.reached(partition, offset, timeout, cluster)

    def expecting(self) -> AbstractContextManager[None]:
        return self._view.expecting()

    def forget(self, customers: Sequence[CustomerKey]) -> None:
        self._profiles.drop(customers)
        self._items.drop(customers)

    def _part(self, key: CustomerKey, part: str, decoded: _Decoded[T]) -> T | None:
        data = self._view.get(model_key(key, part))
        return None if data is None else decoded.of(key, data)


class _Decoded(Generic[T]):
    """Values by key, each decoded once as long as its bytes stay the same."""

    def __init__(self, decode: Callable[[bytes], T], most: int, metrics: RecommenderMetrics) -> None:
        self._decode = decode
        self._most = most
        self._metrics = metrics
        self._held: OrderedDict[str, tuple[bytes, T]] = OrderedDict()

    def drop(self, keys: Sequence[str]) -> None:
        """Forget ``keys``."""
        for key in keys:
            self._held.pop(key, None)

    def of(self, key: str, data: bytes) -> T | None:
        held = self._held.get(key)
        # The bytes themselves are compared: cheaper than decoding, and right whatever the revision.
        if held is not None and held[0] == data:
            self._held.move_to_end(key)
            return held[1]
        try:
            value = self._decode(data)
        except msgspec.DecodeError:
            # A model that cannot be read costs this customer his personal answer, not the answer.
            self._metrics.broken.add()
            return None
        self._held[key] = (data, value)
        self._held.move_to_end(key)
        if len(self._held) > self._most:
            self._held.popitem(last=False)
        return value
