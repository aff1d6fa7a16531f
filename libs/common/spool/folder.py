"""The spools of one service on this disk: which there are, and which of them nobody else holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from secrets import token_hex

from libs.common.clock import Millis
from libs.common.errors import Misconfigured
from libs.common.spool.metrics import SpoolMetrics
from libs.common.spool.room import Room, RoomLimits
from libs.common.spool.store import SpoolStore

_log = logging.getLogger(__name__)


class SpoolFolder:
    """Opens the spools under ``path``; raises `Misconfigured` where it cannot hold any.

    Parameters
    ----------
    now:
        The platform's clock.
    """

    def __init__(
        self, path: Path, now: Callable[[], Millis], limits: RoomLimits, metrics: SpoolMetrics
    ) -> None:
        self._path = path
        self._now = now
        self._limits = limits
        self._metrics = metrics
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.room = Room(path, limits)
        except OSError as error:
            raise _unfit(path, error) from error

    def open(self) -> list[SpoolStore]:
        """All spools that no other process holds, a new one where there is none; the first is our own."""
        try:
            found = [store for path in self._paths() if (store := self._adopt(path)) is not None]
            found.sort(key=lambda store: store.ended)
            if not found or found[0].ended:
                found.insert(0, self.make())
        except OSError as error:
            raise _unfit(self._path, error) from error
        return found

    def make(self) -> SpoolStore:
        """A new spool. Blocking; raises OSError or `Misconfigured`."""
        path = self._path / f"spool-{token_hex(8)}.sqlite"
        return SpoolStore(path, self._now, self._limits.hard, metrics=self._metrics)

    def orphans(self, known: Collection[str]) -> list[SpoolStore]:
        """Spools besides ``known`` that nobody holds any more. Blocking, for a thread of its own."""
        found = []
        for path in self._paths():
            if path.stem.removeprefix("spool-") in known:
                continue
            try:
                store = self._adopt(path)
            except (OSError, Misconfigured) as error:
                # What another process left unusable must not end this one.
                _log.error("%s cannot be adopted: %s", path, error)
                continue
            if store is not None:
                found.append(store)
        return found

    def _paths(self) -> list[Path]:
        return sorted(self._path.glob("spool-*.sqlite"))

    def _adopt(self, path: Path) -> SpoolStore | None:
        try:
            return SpoolStore(path, self._now, self._limits.hard, metrics=self._metrics, create=False)
        except BlockingIOError:
            _log.debug("%s is held by another process", path)
        except FileNotFoundError:
            _log.debug("%s has ended", path)
        return None


def _unfit(path: Path, error: OSError) -> Misconfigured:
    return Misconfigured(f"{path} cannot hold a spool: {error.strerror or error}")
