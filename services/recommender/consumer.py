"""Takes what the views read into memory: the catalogue, and the learned models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from libs.common.bus.ports import Message
from libs.common.contracts.catalogue import decode_entry
from libs.common.contracts.topics import HEADER_REVISION
from libs.common.scoring.learned import LearnedAssembler
from services.recommender.metrics import RecommenderMetrics
from services.recommender.model.assortment import Assortment
from services.recommender.model.entries import count_flags


class CatalogueReader:
    """Fills an `Assortment` from topic ``catalogue``."""

    def __init__(self, assortment: Assortment, metrics: RecommenderMetrics) -> None:
        self._assortment = assortment
        self._metrics = metrics
        self._counted = -1

    def measure(self) -> None:
        """Count what is flagged in the catalogue, where it changed since it was counted last."""
        if self._counted != self._assortment.changes:
            self._counted = self._assortment.changes
            for flag, count in count_flags(self._assortment).items():
                self._metrics.flagged.set(count, flag)

    def load(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Take what a view held when it was opened, its revisions unknown: what is read later is newer."""
        for key, value in entries:
            self._take(key, value, 0)

    def on_batch(self, messages: Sequence[Message]) -> None:
        """Take what a view has just read."""
        for message in messages:
            self._take(message.key, message.value, _revision(message))

    def _take(self, key: bytes, value: bytes | None, revision: int) -> None:
        kind, _, entry_id = key.decode("utf-8", "replace").partition("/")
        if value is None:
            self._assortment.drop(kind, entry_id)
            return
        try:
            entry = decode_entry(value)
        except (msgspec.DecodeError, RecursionError):
            self._metrics.broken.add()
            return
        self._assortment.put(kind, entry_id, entry, revision)
        self._metrics.products.set(self._assortment.size)


class LearnedReader:
    """Puts the learned models together from topic ``learned-models``."""

    def __init__(self, metrics: RecommenderMetrics) -> None:
        self.assembler = LearnedAssembler()
        self._metrics = metrics

    def load(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Take what a view held when it was opened."""
        for key, value in entries:
            self._take(key, value)

    def on_batch(self, messages: Sequence[Message]) -> None:
        """Take what a view has just read."""
        for message in messages:
            if message.value is None:
                self.assembler.drop(message.key)
            else:
                self._take(message.key, message.value)

    def _take(self, key: bytes, value: bytes) -> None:
        try:
            self.assembler.put(key, value)
        except msgspec.DecodeError:
            self._metrics.broken.add()


def _revision(message: Message) -> int:
    header = message.header(HEADER_REVISION)
    return int(header) if header is not None and header.isdigit() else 0
