"""Positions: where in a spool, and so on the journal, something stands. Opaque to callers."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass

from libs.common.errors import Invalid

_SPOOL = re.compile(r"[0-9a-f]{8,32}\Z")


@dataclass(frozen=True)
class Position:
    """Everything of one spool up to a sequence number in each partition.

    Parameters
    ----------
    spool:
        Identity of the spool, lower-case hex.
    heads:
        Highest sequence number covered, by partition; partitions without records are left out.
        Sequence numbers of a (spool, partition) are consecutive and start at 1.
    """

    spool: str
    heads: Mapping[int, int]

    def encode(self) -> str:
        """The opaque form handed to callers: URL-safe, no padding."""
        text = self.spool + "".join(f".{p}-{s}" for p, s in sorted(self.heads.items()))
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Position:
        """Read what `encode` wrote; raises `Invalid` (``wrong_type``, field ``/after``) for anything else."""
        try:
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
            spool, *parts = raw.split(".")
            heads = {int(p): int(s) for p, s in (part.split("-") for part in parts)}
            position = cls(spool, heads)
        except (ValueError, UnicodeError):
            raise Invalid("wrong_type", "not a position this platform has given out", "/after") from None
        if not _SPOOL.match(spool) or position.encode() != text:
            raise Invalid("wrong_type", "not a position this platform has given out", "/after")
        return position

    def covered_by(self, applied: Mapping[int, int], partitions: frozenset[int] | None = None) -> bool:
        """Whether ``applied`` (sequence number by partition) reaches this position.

        ``partitions`` limits the question to those partitions.
        """
        return all(
            applied.get(p, 0) >= s for p, s in self.heads.items() if partitions is None or p in partitions
        )
