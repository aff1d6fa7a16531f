"""What handlers need from the world, as protocols; `store`, `people` and the common floor fill them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import msgspec

from libs.common.clock import Millis
from libs.common.contracts.catalogue import CatalogueEntry
from libs.common.contracts.customer_model import Items, Profile
from libs.common.contracts.identity import CustomerKey
from libs.common.contracts.progress import Progress
from libs.common.position import Position


class Outgoing(NamedTuple):
    """A catalogue entry that waits to be published."""

    kind: str
    entry_id: str
    body: bytes
    revision: int


class KeptDecision(NamedTuple):
    """A decision as it is kept: the first answer, and the packed pool."""

    decision_id: str
    customer: CustomerKey
    decided_at: Millis
    answer: bytes
    pool: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(KeptDecision)


def encode_kept(decision: KeptDecision) -> bytes:
    """A decision as a row of the spool's local lane."""
    return _encoder.encode(decision)


def decode_kept(body: bytes) -> KeptDecision:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(body)


class CatalogueStore(Protocol):
    """The catalogue at rest; each entry is its own outbox. All calls raise `Transient` without the store."""

    async def put(self, kind: str, entries: Sequence[tuple[str, CatalogueEntry]]) -> None:
        """Store entries under new revisions; unchanged ones stay as they are. The last of an id counts."""
        ...

    async def get(self, kind: str, entry_id: str) -> CatalogueEntry | None: ...

    async def withdraw(self, kind: str, entry_id: str, at: Millis) -> bool:
        """Leave a withdrawal in an entry's place; False where there is none."""
        ...

    async def outgoing(self, limit: int) -> list[Outgoing]:
        """Entries not published yet, oldest change first."""
        ...

    async def sent(self, entries: Sequence[Outgoing], cluster: str) -> bool:
        """Note what ``cluster`` acknowledged; a newer revision stays in the outbox.

        False, and nothing is noted, where the catalogue is being published to another one by now.
        """
        ...

    async def version(self) -> int:
        """The greatest revision of any entry; 0 of an empty catalogue."""
        ...

    async def on_cluster(self, cluster: str, lost: bool = False) -> bool:
        """Put everything into the outbox again where ``cluster`` is not the one last published to, or has
        ``lost`` what it had; whether that was so. The republication gets a number of its own."""
        ...

    async def unmarked(self, cluster: str) -> int | None:
        """The number of the republication to ``cluster`` where its marker is still to be sent."""
        ...

    async def marked(self, cluster: str, number: int) -> None:
        """Note that the marker of republication ``number`` was acknowledged."""
        ...


class DecisionStore(Protocol):
    """Decisions at rest. All calls raise `Transient` without the store."""

    async def keep(self, decisions: Sequence[KeptDecision]) -> None:
        """Store decisions; one that is there stays as it is."""
        ...

    async def find(self, decision_ids: Sequence[str]) -> dict[str, KeptDecision]: ...

    async def of_customer(
        self, customers: Sequence[CustomerKey], after: tuple[Millis, str], limit: int
    ) -> list[KeptDecision]:
        """Decisions for ``customers`` that follow ``after``, in order of (time, id)."""
        ...

    async def erase(self, customers: Sequence[CustomerKey]) -> list[str]:
        """Delete all decisions for ``customers``; answers their ids."""
        ...

    async def expire(self, days: int, limit: int) -> int:
        """Drop some of what was stored more than ``days`` ago, at most ``limit``; answers how many."""
        ...


class Known(NamedTuple):
    """What is known of one customer: the two records of his model, either of which may be missing."""

    profile: Profile | None
    items: Items | None


class People(Protocol):
    """Customer models, decoded: the newest this process has."""

    def of(self, key: CustomerKey) -> Known:
        """The model of one key alone, not merged with anything."""
        ...

    def forget(self, customers: Sequence[CustomerKey]) -> None:
        """Drop ``customers`` from memory; what the view holds of them is the view's business."""
        ...

    def lag_seconds(self) -> float:
        """How long ago these were last known to be all models there are."""
        ...

    def has(self, partition: int, offset: int, cluster: str = "") -> bool:
        """Whether the models of ``partition`` before ``offset`` are here."""
        ...

    async def reached(self, partition: int, offset: int, timeout: float, cluster: str = "") -> bool:
        """Wait until the models of ``partition`` before ``offset`` are here; False after ``timeout`` s."""
        ...

    def expecting(self) -> AbstractContextManager[None]:
        """While somebody waits for models that are not published yet: they are read sooner."""
        ...


class Board(Protocol):
    """How far the analyzer is; `libs.common.progress.ProgressBoard` is one."""

    @property
    def cluster(self) -> str: ...

    def of(self, partition: int) -> Progress | None: ...

    def journal_time(self) -> Millis: ...

    def models_offset(self, partition: int) -> int: ...

    def known_until(self, partition: int) -> Millis: ...

    def offset_since(self, partition: int, since: Millis) -> int | None: ...

    async def reached(self, position: Position, partitions: Iterable[int] | None, timeout: float) -> bool: ...
