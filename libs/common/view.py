"""A compacted topic materialised in a local LMDB, together with its offsets: read in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from libs.common.bus.ports import Bus, Message

OnBatch = Callable[[Sequence[Message]], None]
"""Called on the event loop after messages are in the view; lower revisions are left out."""


class View:
    """Materialises ``topic`` under ``path``; see `libs.common.lookup.Lookup` for what it answers.

    Values, next offsets and the cluster id change in one LMDB transaction, so a restart resumes where it
    was. A record whose header ``revision`` (decimal text or 8 bytes big endian) is lower than the stored
    one is ignored; a None value deletes. When the cluster id changes the topic is read from its start
    again while the old content is still served; revisions go on.
    """

    def __init__(self, bus: Bus, topic: str, path: Path, on_batch: OnBatch | None = None) -> None: ...

    async def start(self) -> None:
        """Open the files and begin to read in the background; serves at once what was there before."""

    async def stop(self) -> None:
        """End reading and close the files, within three seconds."""

    @property
    def caught_up(self) -> bool:
        """Whether everything that was on the topic when reading began has been read."""

    @property
    def cluster(self) -> str:
        """The cluster the offsets belong to; empty before the first contact."""

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key starts with ``prefix``, in byte order, from one snapshot."""

    def offset(self, partition: int) -> int:
        """The next offset to read: everything before it is in the view."""

    async def reached(self, partition: int, offset: int, timeout: float, cluster: str = "") -> bool:
        """As `libs.common.lookup.Lookup.reached`."""


class MemoryView:
    """The same without disk, for tests: filled by `put` or, where a bus is given, from its topic."""

    def __init__(self, bus: Bus | None = None, topic: str = "", on_batch: OnBatch | None = None) -> None: ...

    async def start(self) -> None:
        """Begin to read in the background, where there is a bus."""

    async def stop(self) -> None:
        """End reading."""

    def put(self, key: bytes, value: bytes | None, revision: int | None = None) -> None:
        """Set (None: delete) one entry; a revision lower than the stored one is ignored."""

    @property
    def caught_up(self) -> bool:
        """Whether everything that was on the topic when reading began has been read."""

    @property
    def cluster(self) -> str:
        """The cluster the offsets belong to."""

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key starts with ``prefix``, in byte order."""

    def offset(self, partition: int) -> int:
        """The next offset to read."""

    async def reached(self, partition: int, offset: int, timeout: float, cluster: str = "") -> bool:
        """As `libs.common.lookup.Lookup.reached`; without a bus always True at once."""
