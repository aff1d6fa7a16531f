"""What the learner needs from outside, as protocols, and the values that pass through them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from libs.common.clock import Millis
from services.analyzer.learner.fold import Place


class LessonRow(NamedTuple):
    """A row of ``analyzer.lessons``."""

    place: Place
    body: bytes


@dataclass(frozen=True)
class Claim:
    """What the learner finds when it is elected.

    Parameters
    ----------
    epoch:
        Which election this is; only the newest may write.
    version:
        Highest version ever given out.
    checkpoint:
        The last checkpoint, or None.
    cluster:
        What models were published to last; empty where nothing of that is there any more.
    """

    epoch: int
    version: int
    checkpoint: bytes | None
    cluster: str = ""


@dataclass(frozen=True)
class Published:
    """What the newest complete version on the bus says: served as ``GET /v1/models``."""

    version: int
    journal_time: Millis
    orders: int
    trials: int


class LearnerStore(Protocol):
    """Where lessons come from and checkpoints go. Writes raise `Fenced` once another was elected."""

    async def prepare(self) -> None:
        """Make everything ready; raises `Misconfigured` where that can never work."""
        ...

    def leadership(self) -> AbstractAsyncContextManager[Claim]:
        """Wait to be elected; another learner is, once the block is left or this process is gone."""
        ...

    async def watermark(self) -> int | None:
        """The journal second that every partition has reached: no lesson of an earlier one can follow.

        None while a partition has never been heard of.
        """
        ...

    async def lessons(self, after: Place, before: int, limit: int) -> Sequence[LessonRow]:
        """Lessons after a place and before a second, in canonical order, at most ``limit``."""
        ...

    async def checkpoint(self, epoch: int, place: Place, body: bytes) -> None:
        """Keep the state at ``place``, both in one transaction."""
        ...

    async def next_version(self, epoch: int) -> int:
        """Give out a version number that nobody had before."""
        ...

    async def published(self, epoch: int, cluster: str, published: Published) -> None:
        """Note what the bus has now."""
        ...
