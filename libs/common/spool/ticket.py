"""What `append` gives its caller."""

from __future__ import annotations

from dataclasses import dataclass, field

from libs.common.position import Position
from libs.common.spool.store import Pack


@dataclass(frozen=True)
class Ticket(Position):
    """A position that knows its transaction: numbers alone are given out anew after a failed commit."""

    pack: Pack = field(compare=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Position):
            return NotImplemented
        return self.spool == other.spool and dict(self.heads) == dict(other.heads)

    __hash__ = None  # type: ignore[assignment]
