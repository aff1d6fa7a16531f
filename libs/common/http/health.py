"""Where a service is in its life, and whether it can do its work."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Phase(StrEnum):
    """The life of a service, in this order."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Lifecycle:
    """Phase and checks of one service, shown at ``/readyz``. Requests are served from RUNNING on."""

    def __init__(self) -> None:
        self.phase = Phase.NEW

    def check(self, name: str, healthy: Callable[[], str | None]) -> None:
        """Add a check: ``healthy`` answers None, or what is wrong. Called on each ``/readyz``; must be cheap.

        Only what makes the service unable to work belongs here; a broker that is away is a ``note``.
        """

    def note(self, name: str, state: Callable[[], str]) -> None:
        """Add a line to ``/readyz`` that does not decide: e.g. how far a view has come."""

    def move(self, phase: Phase) -> None:
        """Go on to ``phase``; never back."""
