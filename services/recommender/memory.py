"""The stores in memory: the same promises without PostgreSQL, for tests of the service in one process."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.clock import Millis
from libs.common.contracts.catalogue import CatalogueEntry, Withdrawn, decode_entry, encode_entry
from libs.common.contracts.identity import CustomerKey
from libs.common.errors import Transient
from services.recommender.ports import KeptDecision, Outgoing


class _Reachable:
    """Something that can be away: set ``away`` and every call raises `Transient`."""

    def __init__(self) -> None:
        self.away = False

    def _ask(self) -> None:
        if self.away:
            raise Transient("the store is away")


class MemoryCatalogueStore(_Reachable):
    """Implements `ports.CatalogueStore` on a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self._revision = 0
        self._bodies: dict[tuple[str, str], tuple[bytes, int]] = {}
        self._published: dict[tuple[str, str], int] = {}
        self._cluster = ""
        self._number = 0
        self._marked = False

    async def put(self, kind: str, entries: Sequence[tuple[str, CatalogueEntry]]) -> None:
        self._ask()
        for entry_id, entry in dict(entries).items():
            body = encode_entry(entry)
            held = self._bodies.get((kind, entry_id))
            if held is None or held[0] != body:
                self._revision += 1
                self._bodies[kind, entry_id] = (body, self._revision)

    async def get(self, kind: str, entry_id: str) -> CatalogueEntry | None:
        self._ask()
        held = self._bodies.get((kind, entry_id))
        entry = decode_entry(held[0]) if held is not None else None
        return None if isinstance(entry, Withdrawn) else entry

    async def withdraw(self, kind: str, entry_id: str, at: Millis) -> bool:
        if await self.get(kind, entry_id) is None:
            return False
        await self.put(kind, [(entry_id, Withdrawn(at=at))])
        return True

    async def outgoing(self, limit: int) -> list[Outgoing]:
        self._ask()
        waiting = [
            Outgoing(*key, body, revision)
            for key, (body, revision) in self._bodies.items()
            if self._published.get(key, 0) < revision
        ]
        return sorted(waiting, key=lambda entry: entry.revision)[:limit]

    async def sent(self, entries: Sequence[Outgoing], cluster: str) -> bool:
        self._ask()
        if cluster != self._cluster:
            return False
        for entry in entries:
            key = (entry.kind, entry.entry_id)
            self._published[key] = max(self._published.get(key, 0), entry.revision)
        return True

    async def version(self) -> int:
        self._ask()
        return self._revision

    async def on_cluster(self, cluster: str, lost: bool = False) -> bool:
        self._ask()
        changed = cluster != self._cluster or lost
        self._cluster = cluster
        if changed:
            self._published.clear()
            self._number += 1
            self._marked = False
        return changed

    async def unmarked(self, cluster: str) -> int | None:
        self._ask()
        return None if self._marked or cluster != self._cluster else self._number

    async def marked(self, cluster: str, number: int) -> None:
        self._ask()
        self._marked = self._marked or (cluster, number) == (self._cluster, self._number)


class MemoryDecisionStore(_Reachable):
    """Implements `ports.DecisionStore` on a dictionary; nothing grows old in it."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions: dict[str, KeptDecision] = {}

    async def keep(self, decisions: Sequence[KeptDecision]) -> None:
        self._ask()
        for decision in decisions:
            self.decisions.setdefault(decision.decision_id, decision)

    async def find(self, decision_ids: Sequence[str]) -> dict[str, KeptDecision]:
        self._ask()
        return {key: self.decisions[key] for key in decision_ids if key in self.decisions}

    async def of_customer(
        self, customers: Sequence[CustomerKey], after: tuple[Millis, str], limit: int
    ) -> list[KeptDecision]:
        self._ask()
        found = [kept for kept in self.decisions.values() if kept.customer in customers]
        places = sorted((kept.decided_at, kept.decision_id) for kept in found)
        return [self.decisions[place[1]] for place in places if place > after][:limit]

    async def erase(self, customers: Sequence[CustomerKey]) -> list[str]:
        self._ask()
        gone = [key for key, kept in self.decisions.items() if kept.customer in customers]
        for key in gone:
            del self.decisions[key]
        return gone

    async def expire(self, days: int, limit: int) -> int:
        self._ask()
        return 0
