"""How long the loop takes to close: from an event's acceptance until its customer's model is in the view."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.bus.ports import Message
from libs.common.clock import Clock, Millis
from libs.common.contracts.identity import PARTITIONS
from libs.common.lookup import Lookup
from libs.common.progress import ProgressBoard
from services.recommender.metrics import RecommenderMetrics


class ClosureWatch:
    """Measures the loop in passing, at the progress records and view batches that come anyway.

    Progress says: the models of everything recorded up to ``journal_time`` lie before ``models_offset``. When
    the view has come that far, the newest event of that slice has taken ``now - journal_time``. Progress that
    tells of no model (ticks alone) says nothing about events and is left out; so is what the view read while
    it was catching up after a start.
    """

    def __init__(self, board: ProgressBoard, clock: Clock, metrics: RecommenderMetrics) -> None:
        self._board = board
        self._clock = clock
        self._metrics = metrics
        self._view: Lookup | None = None
        self._seen: dict[int, int] = {}
        self._waiting: dict[int, tuple[int, Millis]] = {}
        self._cluster = ""

    def follow(self, view: Lookup) -> None:
        """Begin, with the view of ``customer-models``."""
        self._view = view
        self._board.subscribe(lambda board: self._on_progress())

    def on_models(self, messages: Sequence[Message]) -> None:
        """The view has taken models in."""
        if self._waiting:
            self._look()

    def missing(self) -> int:
        """Records of models that are published, as progress says, and not in the view yet."""
        if self._view is None or self._view.cluster != self._board.cluster:
            return 0
        offsets = ((self._board.models_offset(p), self._view.offset(p)) for p in range(PARTITIONS))
        return sum(max(0, there - here) for there, here in offsets)

    def _on_progress(self) -> None:
        if self._board.cluster != self._cluster:
            self._cluster = self._board.cluster
            self._seen.clear()
            self._waiting.clear()
        for partition in range(PARTITIONS):
            progress = self._board.of(partition)
            if progress is None:
                continue
            before = self._seen.get(partition)
            self._seen[partition] = progress.models_offset
            # Trap: the first progress read tells of models published long ago.
            if before is not None and progress.models_offset > before:
                self._waiting.setdefault(partition, (progress.models_offset, progress.journal_time))
        self._look()

    def _look(self) -> None:
        view = self._view
        if view is None or view.cluster != self._cluster:
            return
        for partition, (offset, recorded_at) in list(self._waiting.items()):
            if view.offset(partition) >= offset:
                del self._waiting[partition]
                self._metrics.closure.observe(max(0.0, (self._clock.now() - recorded_at) / 1000))
