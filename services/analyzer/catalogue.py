"""What the catalogue tells the analyzer, for insights only: what products earn, which placements there are.

No fold reads it: models are made of events alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from libs.common.bus.ports import Bus, Message
from libs.common.contracts.catalogue import Placement, Product, decode_entry
from libs.common.contracts.topics import CATALOGUE
from libs.common.view import MemoryView
from services.analyzer.model.margins import Margins

_log = logging.getLogger(__name__)


class CatalogueFollower:
    """Reads topic ``catalogue`` from its start whenever a process starts: it is small.

    Attributes
    ----------
    margins:
        What products earn.
    placements:
        Ids of the placements that are in the catalogue.
    """

    def __init__(self, bus: Bus) -> None:
        self.margins = Margins()
        self.placements: set[str] = set()
        self._view = MemoryView(bus, CATALOGUE, self._on_batch)
        self.start = self._view.start
        self.watch = self._view.watch
        self.stop = self._view.stop

    def _on_batch(self, messages: Sequence[Message]) -> None:
        for message in messages:
            kind, _, entry_id = message.key.decode("utf-8", "replace").partition("/")
            try:
                entry = None if message.value is None else decode_entry(message.value)
            except (msgspec.DecodeError, RecursionError):
                _log.warning("an entry of the catalogue cannot be read", extra={"entry": entry_id})
                continue
            if kind == "product":
                self.margins.put(entry_id, entry if isinstance(entry, Product) else None)
            elif isinstance(entry, Placement):
                self.placements.add(entry_id)
            elif kind == "placement":
                self.placements.discard(entry_id)
