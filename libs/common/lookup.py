"""What handlers see of a materialised topic; `libs.common.view` has the LMDB and the in-memory form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Lookup(Protocol):
    """A compacted topic as a table: the newest value of each key."""

    @property
    def caught_up(self) -> bool:
        """Whether everything that was on the topic when reading began has been read."""
        ...

    @property
    def cluster(self) -> str:
        """The cluster the offsets belong to; empty before the first contact."""
        ...

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None. Microseconds; never waits."""
        ...

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key starts with ``prefix``, in byte order, from one snapshot."""
        ...

    def offset(self, partition: int) -> int:
        """The next offset to read: everything before it is in the view."""
        ...

    def has(self, partition: int, offset: int, cluster: str = "") -> bool:
        """Whether the view holds everything of ``partition`` before ``offset``; see `reached`."""
        ...

    async def reached(self, partition: int, offset: int, timeout: float, cluster: str = "") -> bool:
        """Wait until the view holds everything of ``partition`` before ``offset``; False after ``timeout``.

        ``offset`` is as in ``Progress.models_offset``. Give the cluster it is of (`ProgressBoard.cluster`)
        where the broker may have been replaced in between: offsets of another cluster mean nothing.
        """
        ...

    def expecting(self) -> AbstractContextManager[None]:
        """While somebody waits for what is not published yet, and will ask `reached` then: reads sooner."""
        ...


class Followed(Lookup, Protocol):
    """A `Lookup` that knows how far it may be behind."""

    def lag_seconds(self) -> float:
        """How long ago it was last known to hold all of its topic."""
        ...
