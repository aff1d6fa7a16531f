"""One partition of a spool on its way to the bus: what waits in memory, and where to read on from disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice

from libs.common.spool.rows import Row

MAX_BYTES = 2 << 20
"""Most bytes of rows a lane keeps in memory; the rest stays on disk until there is room."""

_ROW_BYTES = 200


class Lane:
    """Rows of one partition in order, without a gap, from the first unacknowledged one on.

    Attributes
    ----------
    next_seq:
        The only sequence number the lane takes next, so it can be offered rows from anywhere.
    shipped:
        Highest sequence number the present cluster has acknowledged (or that is applied anyway).
    highest:
        Highest sequence number that any cluster has acknowledged.
    probe:
        One row that is sent again, before anything else, on the suspicion that it was lost.
    begun:
        Where the lane last began: what it ships first says that everything up to here is applied.
    cursor:
        Number of the pack to read on from when the lane is behind what is committed.
    round:
        Counts beginnings: an acknowledgement or a reading of an earlier round says nothing any more.
    """

    __slots__ = (
        "begun",
        "cursor",
        "highest",
        "next_seq",
        "partition",
        "probe",
        "refused",
        "round",
        "rows",
        "shipped",
        "size",
        "wake",
    )

    def __init__(self, partition: int, done: int) -> None:
        self.partition = partition
        self.wake = asyncio.Event()
        self.rows: deque[Row] = deque()
        self.round = 0
        self.highest = done
        self.restart(done)

    def restart(self, done: int, cursor: int = 0) -> None:
        """Forget what waits and begin after number ``done``, reading from pack ``cursor`` (0: the oldest)."""
        self.rows.clear()
        self.size = 0
        self.next_seq = done + 1
        self.shipped = self.begun = done
        self.cursor = cursor
        self.refused = False
        self.probe: Row | None = None
        self.round += 1

    def offer(self, pack: int, row: Row) -> None:
        """Take ``row`` of ``pack`` if it is the next one and there is room."""
        if row[1] != self.next_seq:
            return
        if self.size >= MAX_BYTES:
            self.cursor, self.refused = pack, True
            return
        self.rows.append(row)
        self.size += len(row[3]) + _ROW_BYTES
        self.next_seq += 1

    def hungry(self, committed: int) -> bool:
        """Whether there is more on disk than was taken, and room for it."""
        return self.next_seq <= committed and self.size < MAX_BYTES // 2

    def batch(self, max_rows: int, max_bytes: int) -> list[Row]:
        """The probe, or the first rows that wait, at least one if there is any; they stay until `sent`."""
        if self.probe is not None:
            return [self.probe]
        rows: list[Row] = []
        size = 0
        for row in islice(self.rows, max_rows):
            size += len(row[3])
            if size > max_bytes and rows:
                break
            rows.append(row)
        return rows

    def sent(self, rows: Sequence[Row]) -> None:
        """The bus has acknowledged ``rows``, a batch of this lane."""
        last = rows[-1][1]
        if self.probe is rows[0]:
            self.probe = None
            return
        self.highest = max(self.highest, last)
        # Trap: not simply as many as were sent: the board may have said meanwhile that they are applied.
        waiting, gone = self.rows, 0
        while waiting and waiting[0][1] <= last:
            gone += len(waiting.popleft()[3]) + _ROW_BYTES
        self.size -= gone
        self.shipped = max(self.shipped, last)

    def applied(self, seq: int) -> None:
        """Everything up to ``seq`` needs no shipping any more."""
        if seq >= self.next_seq:
            self.rows.clear()
            self.size = 0
            self.next_seq = seq + 1
            self.begun = seq
        self.shipped = max(self.shipped, seq)
