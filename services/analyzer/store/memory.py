"""Everything the analyzer stores, in memory: the twin of the PostgreSQL stores, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey
from libs.common.errors import Fenced, Transient
from services.analyzer.model.digest import partition_digest
from services.analyzer.model.erasures import Erased, ErasedRow, ErasureRows, Notice, SuppressedRow
from services.analyzer.model.facts import KINDS, OWNED, FactRow
from services.analyzer.model.letters import Buried, DeadLetter, LetterFilter, Replayed
from services.analyzer.model.trials.rows import Due
from services.analyzer.ports import (
    FateKey,
    LearnedState,
    LedgerRow,
    LedgerRows,
    LessonRow,
    ModelRow,
    PartitionState,
    Place,
    Seen,
    SliceWrite,
    SpoolReport,
    StoredEvent,
    WaitingOutcome,
)
from services.analyzer.store.memory_trials import MemoryTrials


class MemoryErasedKeys:
    """Implements `ErasedKeys`."""

    def __init__(self) -> None:
        self.rows: set[SuppressedRow] = set()

    def read(self) -> set[SuppressedRow]:
        return set(self.rows)

    def add(self, rows: Iterable[SuppressedRow]) -> int:
        before = len(self.rows)
        self.rows.update(rows)
        return len(self.rows) - before


class MemoryAnalyzerStore:
    """Implements `SliceStore` and `ReadStore`; ``away`` plays a database that is away.

    ``fail_after_commit`` plays a connection that breaks while the next commit is acknowledged, ``silent``
    owners that have not written for long.
    """

    def __init__(self) -> None:
        self.away = False
        self.fail_after_commit = False
        self.silent = False
        self.states: dict[int, PartitionState] = {}
        self.generations: dict[int, int] = {}
        self.stored: list[StoredEvent] = []
        self.ids: dict[tuple[int, bytes], Seen] = {}
        self.rows: dict[tuple[CustomerKey, str], ModelRow] = {}
        self.lessons: dict[tuple[int, int, int], LessonRow] = {}
        self.told_facts: dict[tuple[int, int], FactRow] = {}
        self.letters: list[Buried] = []
        self.buried = 0
        self.sent: set[int] = set()
        self.early: list[WaitingOutcome] = []
        self.reports: dict[tuple[int, str], SpoolReport] = {}
        self.fates: dict[tuple[int, FateKey], int] = {}
        self.trials = MemoryTrials()
        self.learned_state: LearnedState | None = None
        self.erased: dict[tuple[int, bytes], str] = {}
        self.erasures: dict[tuple[int, str, bytes], ErasedRow] = {}
        self.told: dict[tuple[int, str, bytes], Notice] = {}

    def _reach(self) -> None:
        if self.away:
            raise Transient("the database is away")

    async def claim(self, partition: int, generation: int, cluster: str) -> PartitionState:
        self._reach()
        state = self.states.get(partition) or PartitionState(partition, 0, cluster)
        if state.cluster == cluster:
            if generation < self.generations.get(partition, -1) and not self.silent:
                raise Fenced(f"partition {partition} was claimed by a newer generation")
        else:
            state = replace(state, cluster=cluster, next_offset=0, losses=state.losses + 1)
            state = replace(state, models_offset=0, published=0)
        self.generations[partition] = generation
        self.states[partition] = replace(state, epoch=state.epoch + 1)
        return self.states[partition]

    async def load(self, partition: int, epoch: int) -> PartitionState:
        self._reach()
        state = self.states.get(partition)
        if state is None or state.epoch != epoch:
            raise Fenced(f"partition {partition} has another owner")
        return state

    async def known_ids(self, partition: int, hashes: Sequence[bytes]) -> dict[bytes, Seen]:
        self._reach()
        return {h: self.ids[partition, h] for h in hashes if (partition, h) in self.ids}

    async def waiting(
        self, partition: int, decisions: Sequence[tuple[CustomerKey, str]]
    ) -> list[WaitingOutcome]:
        self._reach()
        return [row for row in self.early if (row.customer, row.decision) in decisions]

    async def asked(self, partition: int, limit: int) -> list[Buried]:
        self._reach()
        return [row for row in self.letters if row.asked and row.letter.partition == partition][:limit]

    async def decided(self, partition: int, spools: Sequence[str]) -> dict[str, int]:
        self._reach()
        found: dict[str, int] = {}
        for (place, key), amount in self.fates.items():
            if place == partition and key.spool in spools:
                found[key.spool] = found.get(key.spool, 0) + amount
        return found

    async def models(self, partition: int, customers: Sequence[CustomerKey]) -> list[ModelRow]:
        self._reach()
        wanted = set(customers)
        rows = [row for row in self.rows.values() if row.body and row.customer in wanted]
        return rows + self.trials.parts(wanted)

    async def due(self, partition: int, before: Millis, limit: int) -> Due:
        self._reach()
        return self.trials.due(partition, before, limit)

    async def suppressed(self, partition: int) -> dict[bytes, str]:
        self._reach()
        return {key: erasure for (where, key), erasure in self.erased.items() if where == partition}

    async def events_of(self, partition: int, customer: CustomerKey) -> list[StoredEvent]:
        self._reach()
        return sorted(e for e in self.stored if (e.partition, e.customer) == (partition, customer))

    async def notices(self, partitions: Sequence[int]) -> list[Notice]:
        self._reach()
        done = {(erasure, mark) for _, erasure, mark in self.erasures}
        self.told = {key: notice for key, notice in self.told.items() if key[1:] not in done}
        return [notice for notice in self.told.values() if notice.partition in partitions]

    async def purge(self, partition: int, published: int, long_ago: int) -> bool:
        self._reach()
        gone = [row for row in self.rows.values() if not row.body and row.partition == partition]
        for row in gone:
            if row.revision <= (long_ago if row.dropped else published):
                del self.rows[row.customer, row.part]
        return any(row.revision > published for row in gone if not row.dropped)

    def restoring(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def seize(self, partition: int) -> PartitionState:
        self._reach()
        state = self.states.get(partition) or PartitionState(partition, 0, "")
        self.states[partition] = state = replace(state, epoch=state.epoch + 1)
        return state

    async def suppress(self, rows: Iterable[SuppressedRow]) -> None:
        self._reach()
        for row in rows:
            self.erased.setdefault((row.partition, row.hash), row.erasure)

    async def keys_in(self, partition: int) -> list[CustomerKey]:
        self._reach()
        letters = (row.letter for row in self.letters if row.letter.partition == partition)
        return sorted(
            {event.customer for event in self.stored if event.partition == partition}
            | {row.customer for row in self.rows.values() if row.partition == partition}
            | {letter.key.decode("utf-8", "replace") for letter in letters}
        )

    def _erase(self, partition: int, erased: Erased) -> None:
        numbers = {event.number for event in erased.events}
        anew = {event.number: event.body for event in erased.rewritten}
        key = erased.customer.encode("utf-8", "surrogatepass")
        stored, lessons, letters = len(self.stored), len(self.lessons), len(self.letters)
        self.stored = [
            event._replace(body=anew.get(event.number, event.body)) if event.partition == partition else event
            for event in self.stored
            if event.partition != partition or event.number not in numbers
        ]
        gone, owners = ({(partition, number) for number in some} for some in (numbers, anew))
        self.lessons = {place: row for place, row in self.lessons.items() if place[:2] not in gone}
        self.told_facts = {
            place: row
            for place, row in self.told_facts.items()
            if place not in gone and not (place in owners and row.kind == OWNED)
        }
        for hashed in erased.ids:
            self.ids.pop((partition, hashed), None)
        self.letters = [
            row
            for row in self.letters
            if (row.letter.partition, row.letter.key) != (partition, key)
            or erased.naming not in (row.letter.value or b"")
        ]
        if erased.whole:
            self.trials.erase(erased.customer)
        for since, until in erased.times:
            past = {row for row in self.early if since <= row.journal_time <= until}
            self.early = [row for row in self.early if row not in past or row.customer != erased.customer]
        self.erased[partition, erased.suppressed] = erased.erasure
        row = ErasedRow(
            partition,
            erased.erasure,
            erased.mark,
            erased.whole,
            erased.recorded_at,
            erased.journal_time,
            stored - len(self.stored),
            lessons - len(self.lessons),
            letters - len(self.letters),
        )
        self.erasures.setdefault((partition, erased.erasure, erased.mark), row)

    async def unpublish(self, partition: int, epoch: int) -> None:
        state = await self.load(partition, epoch)
        state = replace(state, epoch=epoch + 1, losses=state.losses + 1)
        self.states[partition] = replace(state, models_offset=0, published=0)

    async def rewind(self, partition: int, epoch: int, offset: int) -> None:
        self.states[partition] = replace(await self.load(partition, epoch), next_offset=offset)

    async def unpublished(
        self, partition: int, above: int, after: tuple[CustomerKey, str], limit: int
    ) -> list[ModelRow]:
        self._reach()
        rows = [
            self.rows[key]
            for key in sorted(self.rows)
            if key > after and self.rows[key].partition == partition and self.rows[key].revision > above
        ]
        return rows[:limit]

    async def write(self, slice_: SliceWrite) -> None:
        self._reach()
        partition = slice_.state.partition
        owner = self.states.get(partition)
        if owner is None or owner.epoch != slice_.state.epoch:
            raise Fenced(f"partition {partition} has another owner")
        if _stand(owner) != _stand(slice_.before):
            raise Transient(f"partition {partition} went on: by a write given up for lost, or a rebuild")
        self.states[partition] = slice_.state
        if slice_.erased is not None:
            self._erase(partition, slice_.erased)
        for notice in slice_.notices:
            self.told.setdefault((partition, notice.erasure, notice.mark), notice)
        self.stored += slice_.events
        self.ids.update({(partition, h): at for h, at in slice_.ids.items()})
        self.rows.update({(row.customer, row.part): row for row in slice_.models})
        self.trials.put(slice_.trials, slice_.timers)
        self.lessons.update({(row.partition, row.number, row.part): row for row in slice_.lessons})
        self.told_facts.update({(row.partition, row.number): row for row in slice_.facts})
        for letter in slice_.dead_letters:
            self.buried += 1
            self.letters.append(Buried(self.buried, letter))
        outcomes = {outcome.id: outcome for outcome in slice_.replays}
        self.letters = [
            _replayed(row, outcomes[row.id], slice_.state.journal_time) if row.id in outcomes else row
            for row in self.letters
        ]
        self.early = [row for row in self.early if row not in slice_.met] + list(slice_.waiting)
        self.reports.update({(partition, report.spool): report for report in slice_.reports})
        for key, amount in slice_.fates.items():
            self.fates[partition, key] = self.fates.get((partition, key), 0) + amount
        if slice_.forget_before is not None:
            limit = slice_.forget_before
            self.ids = {k: at for k, at in self.ids.items() if k[0] != partition or at.at >= limit}
            self.letters = [
                row
                for row in self.letters
                if row.letter.partition != partition
                or row.letter.journal_time >= limit
                or row.id not in self.sent
            ]
        if self.fail_after_commit:
            self.fail_after_commit = False
            raise Transient("the connection broke while the commit was acknowledged")

    async def customer(self, keys: Sequence[CustomerKey]) -> list[ModelRow]:
        self._reach()
        rows = [row for row in self.rows.values() if row.customer in keys and row.body]
        return rows + self.trials.parts(keys)

    def _listed(self, keys: Sequence[CustomerKey]) -> list[StoredEvent]:
        return [event for event in self.stored if event.customer in keys and event.kind != "internal"]

    async def timeline(
        self, keys: Sequence[CustomerKey], before: Place | None, limit: int
    ) -> list[StoredEvent]:
        self._reach()

        def place(event: StoredEvent) -> Place:
            return Place(event.occurred_at, event.recorded_at, event.partition, event.number)

        found = [event for event in self._listed(keys) if before is None or place(event) < before]
        return sorted(found, key=place, reverse=True)[:limit]

    async def same_ids(self, keys: Sequence[CustomerKey], ids: Sequence[str]) -> list[StoredEvent]:
        self._reach()
        return [event._replace(body=b"") for event in self._listed(keys) if event.id in ids]

    async def ledger(self) -> LedgerRows:
        self._reach()
        return LedgerRows(
            fates=[LedgerRow(partition, *key, amount) for (partition, key), amount in self.fates.items()],
            reports=list(self.reports.values()),
            states=list(self.states.values()),
        )

    async def learned(self) -> LearnedState | None:
        self._reach()
        return self.learned_state

    async def dead_letters(self, which: LetterFilter, before: int | None, limit: int) -> list[Buried]:
        self._reach()
        found = [row for row in self.letters if which.holds(row) and row.id < (before or 1 << 62)]
        if which.id is None:
            found = [row._replace(letter=row.letter._replace(key=b"", value=None)) for row in found]
        return found[::-1][:limit]

    async def ask_replay(self, which: LetterFilter) -> int:
        self._reach()
        asked = [row for row in self.letters if which.holds(row) and row.replayed_at is None]
        self.letters = [row._replace(asked=True) if row in asked else row for row in self.letters]
        return len(asked)

    async def unsent(self, partitions: Sequence[int], limit: int) -> list[Buried]:
        self._reach()
        rows = [row for row in self.letters if row.id not in self.sent and row.letter.partition in partitions]
        return rows[:limit]

    async def mark_sent(self, ids: Sequence[int]) -> None:
        self._reach()
        self.sent |= set(ids)

    async def dead_letters_of(self, keys: Sequence[CustomerKey]) -> list[DeadLetter]:
        self._reach()
        wanted = {key.encode("utf-8", "surrogatepass") for key in keys}
        return [row.letter for row in self.letters if row.letter.key in wanted]

    async def all_events(self, keys: Sequence[CustomerKey]) -> AsyncIterator[Sequence[StoredEvent]]:
        self._reach()
        yield sorted(
            (event for event in self.stored if event.customer in keys),
            key=lambda event: (event.recorded_at, event.partition, event.number),
        )

    async def lessons_of(self, events: Sequence[StoredEvent]) -> list[LessonRow]:
        self._reach()
        places = {(event.partition, event.number) for event in events}
        return [row for place, row in sorted(self.lessons.items()) if place[:2] in places]

    async def erasure(self, id_: str) -> ErasureRows:
        self._reach()
        return ErasureRows(
            [row for row in self.erasures.values() if row.erasure == id_],
            sum(1 for notice in self.told.values() if notice.erasure == id_),
            sum(1 for row in self.rows.values() if not row.body and not row.dropped),
        )

    async def facts(self) -> AsyncIterator[Sequence[FactRow]]:
        self._reach()
        yield sorted(self.told_facts.values(), key=lambda row: (KINDS.index(row.kind), row))

    async def digest(self, partition: int) -> bytes:
        self._reach()
        rows = [row for row in self.rows.values() if row.partition == partition and row.body]
        rows += self.trials.in_partition(partition)
        return partition_digest((row.customer, row.part, row.body) for row in rows)


def _stand(state: PartitionState) -> tuple[int, int, Millis]:
    return state.next_offset, state.number, state.journal_time


def _replayed(row: Buried, outcome: Replayed, at: Millis) -> Buried:
    row = row._replace(asked=False, attempts=row.attempts + 1)
    if not outcome.code:
        return row._replace(replayed_at=at)
    return row._replace(letter=row.letter._replace(code=outcome.code, reason=outcome.reason))
