"""A slice of one partition: what it makes of the journal's records, as one write.

Reads the ids seen before and the models its customers have; writes everything in the one transaction of
`SliceWrite`. Idempotent: a record's sequence number says whether it was here before (a redelivery, skipped
and not counted), an event's id whether it was posted before (a duplicate, counted and otherwise ignored).
Rooms beside this one: `draft` gathers, `fates` decides, `early` lets outcomes wait, `folding` folds,
`writing` makes the write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.bus.ports import Headers, Message
from libs.common.clock import Millis
from libs.common.contracts.customer_event import (
    AboutCustomer,
    Decision,
    Erasure,
    Outcome,
    SpoolReported,
    Tick,
)
from libs.common.contracts.identity import CustomerKey, is_nobody
from libs.common.contracts.topics import CUSTOMER_EVENTS, HEADER_SEQ, HEADER_SPOOL
from services.analyzer.handlers.draft import Draft
from services.analyzer.handlers.erasing import erase
from services.analyzer.handlers.fates import take, take_again
from services.analyzer.handlers.folding import Changed, assemble, drop_idle, fire
from services.analyzer.handlers.writing import written
from services.analyzer.model.arrival import Arrival, arrive, decision_hash
from services.analyzer.model.cache import ModelCache
from services.analyzer.model.erased import NOBODY_ERASED, KeyHasher, Suppressed
from services.analyzer.model.fold import Models
from services.analyzer.model.idle import noted
from services.analyzer.model.letters import Buried, DeadLetter
from services.analyzer.model.panel import EVERYBODY, Panel
from services.analyzer.model.trials.rows import Due
from services.analyzer.ports import PartitionState, SliceStore, SliceWrite, WaitingOutcome

DUE_AT_ONCE = 1_000
"""Records of decisions in one slice to which something happens by itself, and visitors to look at."""


@dataclass(frozen=True)
class Slice:
    """A slice ready to be written, the models to remember once it is, and when something falls due next."""

    write: SliceWrite
    customers: dict[CustomerKey, Changed]
    noted: dict[str, int]
    due: Millis

    @property
    def urgent(self) -> bool:
        """Whether somebody may be waiting for it: anything but ticks and reports of spools."""
        return any(key.source for key in self.write.fates) or bool(self.write.dead_letters)


class SliceHandler:
    """Turns messages of one partition into one write.

    Parameters
    ----------
    store:
        Where ids and models are read; nothing is written here.
    hasher:
        Hashes keys as the store remembers erased ones.
    panel:
        Whose orders say what was known before.
    """

    def __init__(self, store: SliceStore, hasher: KeyHasher, panel: Panel = EVERYBODY) -> None:
        self._store = store
        self._hasher = hasher
        self._panel = panel

    async def prepare(
        self,
        state: PartitionState,
        cache: ModelCache,
        messages: Sequence[Message],
        suppressed: Suppressed = NOBODY_ERASED,
        due: Millis = 0,
    ) -> Slice | None:
        """What ``messages`` make of ``state``; None where all of them were here before.

        Nothing falls due before ``due``. Ends before an erasure, which is a slice of its own, and where very
        much falls due: the rest of ``messages`` is for the next one. Reads the store, changes neither
        ``state`` nor ``cache`` (it may fill it with what is stored).
        """
        arrivals = _one_slice(messages, state.next_offset)
        if not arrivals:
            return None
        alarm = await self._due(state, arrivals, due, DUE_AT_ONCE)
        draft, times = await self._taken(state, cache, arrivals, suppressed, alarm)
        if draft.journal_time > alarm.before:
            few = sum(time <= alarm.before for time in times)
            draft, _ = await self._taken(state, cache, arrivals[:few], suppressed, alarm)
            if not few:
                # Journal time will pass it with the next record: that is certain, it was just tried.
                draft.journal_time = alarm.before
                # Trap: the fence must tell slices apart. Of visitors due in one millisecond some may be left.
                draft.number += alarm.before == state.journal_time
        return _finished(draft, alarm)

    async def _taken(
        self,
        state: PartitionState,
        cache: ModelCache,
        arrivals: Sequence[Arrival],
        suppressed: Suppressed,
        alarm: Due,
    ) -> tuple[Draft, list[Millis]]:
        """What ``arrivals`` make of ``state``, and the journal time after each of them."""
        draft = await self._draft(state, cache, arrivals, suppressed, alarm)
        if arrivals and isinstance(erasure := arrivals[0].event, Erasure):
            draft.past = await self._store.events_of(state.partition, erasure.customer)
        times: list[Millis] = []
        for arrival in arrivals:
            take(draft, arrival)
            times.append(draft.journal_time)
        return draft, times

    async def _due(
        self, state: PartitionState, arrivals: Sequence[Arrival], due: Millis, limit: int = 1 << 31
    ) -> Due:
        """For whom something falls due before the journal time that ``arrivals`` can reach."""
        times = [arrival.event.recorded_at for arrival in arrivals if arrival.event is not None]
        reached = max(state.journal_time, *times) if times else state.journal_time
        if reached <= due:
            return Due((), reached, due)
        return await self._store.due(state.partition, reached, limit)

    async def replay(
        self,
        state: PartitionState,
        cache: ModelCache,
        letters: Sequence[Buried],
        suppressed: Suppressed,
        due: Millis = 0,
    ) -> Slice:
        """What dead letters become that are taken again; a slice of its own, read as `prepare` reads."""
        arrivals = [arrive(_message_of(buried.letter)) for buried in letters]
        alarm = await self._due(state, arrivals, due)
        draft = await self._draft(state, cache, arrivals, suppressed, alarm)
        # Trap: the fence tells slices apart by number and offset, and a replay may store nothing.
        draft.number += 1
        for buried, arrival in zip(letters, arrivals, strict=True):
            take_again(draft, buried, arrival)
        return _finished(draft, alarm)

    async def _draft(
        self,
        state: PartitionState,
        cache: ModelCache,
        arrivals: Sequence[Arrival],
        suppressed: Suppressed,
        alarm: Due,
    ) -> Draft:
        events = [a.event for a in arrivals if a.event is not None]
        about = [event for event in events if type(event) is not Tick and type(event) is not SpoolReported]
        hashes = {arrival.hash for arrival in arrivals if arrival.hash}
        hashes |= {decision_hash(event) for event in about if type(event) is Outcome}
        known = await self._store.known_ids(state.partition, list(hashes)) if hashes else {}
        keys = [event.customer for event in about if not is_nobody(event.customer)]
        customers = await self._models(state.partition, cache, [*keys, *alarm.customers])
        return Draft(
            state=state,
            known=known,
            customers={
                key: Changed(models._replace(profile=noted(models.profile, alarm.visitors.get(key))))
                for key, models in customers.items()
            },
            number=state.number,
            next_offset=state.next_offset,
            journal_time=state.journal_time,
            applied={**state.applied, **(await self._returning(state, arrivals))},
            notes=dict(state.notes),
            hasher=self._hasher,
            suppressed=suppressed,
            panel=self._panel,
            early=await self._early(state.partition, about),
        )

    async def _early(
        self, partition: int, events: Sequence[AboutCustomer]
    ) -> dict[tuple[CustomerKey, str], list[WaitingOutcome]]:
        """Outcomes that came before the decisions among ``events``."""
        decisions = [(event.customer, event.id) for event in events if type(event) is Decision]
        found: dict[tuple[CustomerKey, str], list[WaitingOutcome]] = {}
        for row in await self._store.waiting(partition, decisions) if decisions else ():
            found.setdefault((row.customer, row.decision), []).append(row)
        return found

    async def _returning(self, state: PartitionState, arrivals: Sequence[Arrival]) -> dict[str, int]:
        """How far spools were that have left ``applied`` and send again."""
        unknown = {arrival.spool for arrival in arrivals} - state.applied.keys() - {""}
        return await self._store.decided(state.partition, sorted(unknown)) if unknown else {}

    async def erase(self, state: PartitionState, event: Erasure) -> SliceWrite:
        """An erasure that no record asks for, because it was applied before the database was restored."""
        customers = await self._models(state.partition, ModelCache(0), [event.customer])
        draft = Draft(
            state=state,
            known={},
            customers={key: Changed(models) for key, models in customers.items()},
            number=state.number,
            journal_time=state.journal_time,
            applied=dict(state.applied),
            notes=dict(state.notes),
            hasher=self._hasher,
            suppressed=NOBODY_ERASED,
            panel=self._panel,
            next_offset=state.next_offset,
            past=await self._store.events_of(state.partition, event.customer),
        )
        erase(draft, event)
        return written(draft)

    async def _models(
        self, partition: int, cache: ModelCache, keys: Sequence[CustomerKey]
    ) -> dict[CustomerKey, Models]:
        found: dict[CustomerKey, Models] = {}
        missing: list[CustomerKey] = []
        for key in dict.fromkeys(keys):
            models = cache.get(key)
            if models is None:
                missing.append(key)
            else:
                found[key] = models
        if missing:
            rows = await self._store.models(partition, missing)
            stored = assemble(rows)
            sizes: dict[CustomerKey, int] = {}
            for row in rows:
                sizes[row.customer] = sizes.get(row.customer, 0) + len(row.body)
            for key in missing:
                found[key] = stored.get(key) or Models.new(key)
                cache.put(key, found[key], sizes.get(key, 0))
        return found


def _finished(draft: Draft, alarm: Due) -> Slice:
    """The write of ``draft``, after all that has fallen due by its end."""
    draft.lessons += fire(draft.customers, draft.state.partition, draft.journal_time)
    if dropped := drop_idle(draft.customers, draft.journal_time, draft.number + 1):
        # Trap: a number of its own. Under one that is published already a crash would lose the withdrawals.
        draft.number += 1
        draft.note("idle", dropped)
    # Where the slice ends before all that was asked for, some are not due yet.
    later = {key: due for key, due in alarm.visitors.items() if due >= draft.journal_time}
    write = written(draft, alarm.visitors.keys() - later.keys())
    due = min(
        [
            alarm.next,
            *later.values(),
            *(changed.models.trials.due for changed in draft.customers.values()),
            *(timer.due for timer in write.timers if timer.due),
        ]
    )
    noted = {name: n - draft.state.notes.get(name, 0) for name, n in draft.notes.items()}
    return Slice(write, draft.customers, noted, due)


def _message_of(letter: DeadLetter) -> Message:
    """The record that became ``letter``, as it was read."""
    headers: Headers = ()
    if letter.spool:
        headers = ((HEADER_SPOOL, letter.spool.encode()), (HEADER_SEQ, b"%d" % letter.seq))
    return Message(CUSTOMER_EVENTS, letter.partition, letter.offset, letter.key, letter.value, headers, 0)


def _one_slice(messages: Sequence[Message], next_offset: int) -> list[Arrival]:
    """New records up to the first erasure, or that alone where it comes first."""
    arrivals: list[Arrival] = []
    for message in messages:
        if message.offset < next_offset:
            continue
        arrival = arrive(message)
        if type(arrival.event) is Erasure:
            return arrivals or [arrival]
        arrivals.append(arrival)
    return arrivals
