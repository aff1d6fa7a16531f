"""The client's own books: every id it posted and every answer it got. The product is judged against these."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Fate(IntEnum):
    """What the client may believe of an id; of several answers the greatest holds."""

    UNSENT = 0
    REFUSED = 1
    UNKNOWN = 2
    ACCEPTED = 3


@dataclass(frozen=True)
class Posted:
    """One event of the load, and what it must do to its customer's model.

    Parameters
    ----------
    kind:
        ``order`` and ``view`` show as an item ``product`` of their own; ``stale`` (outside the window of
        times) and ``reply`` only in the totals.
    value:
        What an order is worth, a whole number.
    type:
        The word under which totals count it.
    """

    id: str
    customer: str
    kind: str
    type: str
    product: str = ""
    value: int = 0
    bad: bool = False
    body: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


class Books:
    """Thread-safe: what was posted, and the best answer to each."""

    def __init__(self) -> None:
        self.posted: dict[str, Posted] = {}
        self.fates: dict[str, Fate] = {}
        self.posts: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.wrong: list[str] = []
        """Answers that no fault excuses: not 202, not 503 with Retry-After, not a refusal of a bad item."""
        self.accepted_at: list[float] = []
        self._lock = threading.Lock()

    def note(self, items: list[Posted], fate: Fate) -> None:
        """One answer to ``items``."""
        with self._lock:
            for item in items:
                self.posted.setdefault(item.id, item)
                self.posts[item.id] += 1
                self.fates[item.id] = max(fate, self.fates.get(item.id, Fate.UNSENT))

    def answer(self, status: str, wrong: str | None = None) -> None:
        """One answer, by its status; ``wrong`` says why it should never have come."""
        with self._lock:
            self.statuses[status] += 1
            if wrong is not None:
                self.wrong.append(wrong)

    def of(self, fate: Fate) -> list[Posted]:
        """All ids that ended with ``fate``."""
        return [self.posted[id_] for id_, known in self.fates.items() if known is fate]

    @property
    def answers(self) -> int:
        """How many answers came, refusals among them."""
        return sum(n for status, n in self.statuses.items() if status.isdigit())
