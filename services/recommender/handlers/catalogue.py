"""Keeps the catalogue: stores what is sent, and has it published."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from libs.common.clock import Clock
from libs.common.contracts.catalogue import CatalogueEntry
from services.recommender.model.entries import (
    EntryIn,
    OfferIn,
    ProductIn,
    offer_of,
    placement_of,
    product_of,
)
from services.recommender.ports import CatalogueStore

ID_FIELDS = {"product": "product_id", "offer": "offer_id", "placement": "placement_id"}


class CatalogueKeeper:
    """The catalogue handler.

    Writes entries into the store, whose rows are their own outbox, and calls ``changed`` so that they are
    published at once. Idempotent: an entry stored again word for word is no change.
    """

    def __init__(
        self, store: CatalogueStore, clock: Clock, currency: str, changed: Callable[[], None]
    ) -> None:
        self._store = store
        self._clock = clock
        self._currency = currency
        self._changed = changed

    def check(self, sent: EntryIn) -> CatalogueEntry:
        """What would be stored for ``sent``; raises `Invalid`."""
        if isinstance(sent, ProductIn):
            return product_of(sent, self._currency)
        return offer_of(sent) if isinstance(sent, OfferIn) else placement_of(sent)

    async def put(self, kind: str, entries: Sequence[CatalogueEntry]) -> None:
        """Store checked ``entries``; of one id the last counts."""
        await self._store.put(kind, [(getattr(entry, ID_FIELDS[kind]), entry) for entry in entries])
        self._changed()

    async def get(self, kind: str, entry_id: str) -> CatalogueEntry | None:
        return await self._store.get(kind, entry_id)

    async def delete(self, kind: str, entry_id: str) -> bool:
        """Withdraw an entry; False where there is none."""
        gone = await self._store.withdraw(kind, entry_id, self._clock.now())
        self._changed()
        return gone
