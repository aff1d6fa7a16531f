"""The progress board: how far the analyzer is in each partition, as every service knows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from libs.common.bus.ports import Bus
from libs.common.clock import Millis
from libs.common.contracts.progress import Progress
from libs.common.position import Position


class ProgressBoard:
    """Keeps the newest `Progress` of each partition, read from topic ``progress``.

    Records of a lower epoch are ignored. When the broker is another one (its cluster id changed) all is
    forgotten and read anew. Tests need no bus: ``ProgressBoard()`` and `put`.

    Parameters
    ----------
    bus:
        Where to read; None for a board that only `put` fills.
    on_change:
        Called after each change, on the event loop, e.g. to move a `JournalClock`.
    """

    def __init__(self, bus: Bus | None = None, on_change: Callable[[ProgressBoard], None] | None = None) -> None: ...

    async def start(self) -> None:
        """Begin to read, in the background; returns at once, also when the broker is away."""

    async def stop(self) -> None:
        """End reading, within two seconds."""

    @property
    def caught_up(self) -> bool:
        """Whether the topic has once been read to its end."""

    @property
    def cluster(self) -> str:
        """The cluster the board was read from; empty before the first contact."""

    def put(self, progress: Progress) -> None:
        """Take in one record, as if it had been read."""

    def subscribe(self, callback: Callable[[ProgressBoard], None]) -> None:
        """Have ``callback`` called after each change."""

    def of(self, partition: int) -> Progress | None:
        """The newest progress of ``partition``, None where nothing is known."""

    def applied(self, spool: str) -> Mapping[int, int]:
        """By partition: highest sequence number of ``spool`` whose fate is decided."""

    def journal_time(self) -> Millis:
        """The greatest journal time of any partition; 0 where nothing is known."""

    def models_offset(self, partition: int) -> int:
        """Next offset of ``customer-models`` after all models of this progress; 0 where unknown."""

    async def reached(self, position: Position, partitions: Iterable[int] | None, timeout: float) -> bool:
        """Wait until ``position`` is applied in ``partitions`` (None: in all it names); False after ``timeout``."""
