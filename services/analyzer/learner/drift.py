"""Drift: models that foresee worse than they did raise an alarm, and change nothing by themselves."""

from __future__ import annotations

from collections.abc import Iterable

from river.drift import PageHinkley

MEANT = 0.1
"""A rise of the loss below this is none (nats)."""
THRESHOLD = 50.0
"""Rises beyond `MEANT` add up to an alarm: 0.3 for 250 orders; chance alone takes a million (spread 1)."""


class DriftWatch:
    """Watches the losses of one model, each said before what it is about was learned (Page 1954)."""

    def __init__(self) -> None:
        # Trap: with forgetting the sum leans back to 0 while its minimum stays, which is an alarm by itself.
        self._detector = PageHinkley(100, delta=MEANT, threshold=THRESHOLD, alpha=1.0, mode="up")

    def alarms(self, losses: Iterable[float]) -> int:
        """How many alarms ``losses``, the next in sequence, raise; after one it begins anew."""
        raised = 0
        for loss in losses:
            self._detector.update(loss)
            raised += self._detector.drift_detected
        return raised
