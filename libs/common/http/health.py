"""Where a service is in its life, and whether it can do its work."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """The life of a service, in this order."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


_ORDER = list(Phase)


class Lifecycle:
    """Phase and checks of one service, shown at ``/readyz``. Requests are served from RUNNING on."""

    def __init__(self) -> None:
        self.phase = Phase.NEW
        self.serving = False
        self._checks: dict[str, Callable[[], str | None]] = {}
        self._notes: dict[str, Callable[[], str]] = {}

    def check(self, name: str, healthy: Callable[[], str | None]) -> None:
        """Add a check: ``healthy`` answers None, or what is wrong. Called on each ``/readyz``; must be cheap.

        Only what makes the service unable to work belongs here; a broker that is away is a ``note``.
        """
        self._checks[name] = healthy

    def note(self, name: str, state: Callable[[], str]) -> None:
        """Add a line to ``/readyz`` that does not decide: e.g. how far a view has come."""
        self._notes[name] = state

    def move(self, phase: Phase) -> None:
        """Go on to ``phase``; never back."""
        if _ORDER.index(phase) >= _ORDER.index(self.phase):
            self.phase = phase
        self.serving = self.phase in (Phase.RUNNING, Phase.STOPPING)

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether the service is ready, and what ``/readyz`` says about it."""
        checks = {name: healthy() or "ok" for name, healthy in self._checks.items()}
        ready = self.phase is Phase.RUNNING and all(state == "ok" for state in checks.values())
        notes = {name: state() for name, state in self._notes.items()}
        return ready, {"phase": self.phase.value, "checks": checks, "notes": notes}
