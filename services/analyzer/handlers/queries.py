"""Questions over HTTP: a customer, his timeline, the ledger, what was learned. Reads only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from operator import itemgetter

from msgspec import Struct

from libs.common.contracts.customer_event import (
    AboutCustomer,
    IdentityLinked,
    SpoolReported,
    Tick,
    decode_event,
)
from libs.common.contracts.customer_model import frozen_of
from libs.common.contracts.identity import CustomerKey, account_key
from libs.common.errors import Invalid
from libs.common.scoring.merge import merge_items, merge_profiles
from services.analyzer.errors import UnknownCustomer
from services.analyzer.handlers.certificate import ErasureView, certificate
from services.analyzer.handlers.export import Held, export
from services.analyzer.handlers.folding import assemble
from services.analyzer.model.fold import Models
from services.analyzer.model.idle import is_nothing
from services.analyzer.model.ledger import Ledger, ledger
from services.analyzer.model.letters import Buried, LetterFilter
from services.analyzer.model.owners import names_owner, time_of
from services.analyzer.model.readable import ConsentView, CustomerView, readable
from services.analyzer.model.timeline import TimelineEntry, entry_of
from services.analyzer.ports import LearnedState, Place, ReadStore, StoredEvent


class LearnedView(Struct, frozen=True):
    """What the learner has published last; ``journal_time`` in ms, up to where it had learned."""

    version: int
    journal_time: int
    orders: int
    trials: int


class ModelsView(Struct, frozen=True):
    """The models that are shared by all customers."""

    learned: LearnedView


class ConsentsView(Struct, frozen=True):
    """The latest word on each purpose; of several keys of one person the strictest."""

    customer: CustomerKey
    consents: list[ConsentView]


class Queries:
    """Answers from what is committed."""

    def __init__(self, store: ReadStore) -> None:
        self._store = store

    async def customer(self, key: CustomerKey) -> CustomerView:
        """The model of ``key``, his links and his account; raises `UnknownCustomer`."""
        parts = await self._parts(key)
        profile = merge_profiles([part.profile for part in parts])
        account = None
        if profile.account is not None:
            company = account_key(profile.account)
            found = assemble(await self._store.customer([company])).get(company)
            account = None if found is None else found.profile
        return readable(profile, merge_items([part.items for part in parts]), account)

    async def _parts(self, key: CustomerKey) -> list[Models]:
        """His own models first; of his links those parts that no other customer owns."""
        own = assemble(await self._store.customer([key])).get(key)
        # What was decided for a visitor may be remembered longer than he is.
        if own is None or is_nothing(own.profile):
            raise UnknownCustomer(key)
        links = assemble(await self._store.customer(own.profile.links)) if own.profile.links else {}
        his = [part for part in links.values() if part.profile.owner in (None, key)]
        keys = [frozen for part in links.values() for frozen in frozen_of(part.profile, key)]
        his += assemble(await self._store.customer(keys)).values() if keys else ()
        return [own, *his]

    async def timeline(self, key: CustomerKey, limit: int, before: str | None) -> list[TimelineEntry]:
        """Events of ``key`` and his links, newest first, older than the one with id ``before``.

        Raises `UnknownCustomer`, or `Invalid` where there is no such event.
        """
        try:
            held, known = await self._held(key, await self._parts(key)), True
        except UnknownCustomer:
            # What machines did is kept without anything being learned of it.
            held, known = Held([key], {}), False
        place = None if before is None else await self._place(held.keys, before)
        events = await self._newest(held, place, limit)
        if not known and not events:
            raise UnknownCustomer(key)
        ids = await self._unique_ids(held.keys, events)
        entries = []
        for event, id_ in zip(events, ids, strict=True):
            body = decode_event(event.body)
            if not isinstance(body, Tick | SpoolReported):
                entries.append(entry_of(body, id_, event.kind))
        return entries

    async def _held(self, key: CustomerKey, parts: Sequence[Models]) -> Held:
        """Where the events lie of the customer whose ``parts`` these are."""
        own, shared = parts[0], []
        keys = [key]
        for link in own.profile.links:
            live = next((part.profile for part in parts[1:] if part.profile.customer == link), None)
            if live is None or live.frozen:
                shared.append(link)
            keys.append(link)
        said: dict[CustomerKey, list[tuple[int, AboutCustomer]]] = {link: [] for link in shared}
        if shared:
            async for events in self._store.all_events(shared):
                for stored in events:
                    event = decode_event(stored.body)
                    if isinstance(event, IdentityLinked) and names_owner(event):
                        said[stored.customer].append((stored.number, event))
        return Held(
            keys, {link: time_of(key, sorted(past, key=itemgetter(0))) for link, past in said.items()}
        )

    async def _newest(self, held: Held, place: Place | None, limit: int) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        while len(found) < limit:
            events = await self._store.timeline(held.keys, place, limit)
            found += filter(held.holds, events)
            if len(events) < limit:
                break
            last = events[-1]
            place = Place(last.occurred_at, last.recorded_at, last.partition, last.number)
        return found[:limit]

    async def _unique_ids(self, keys: Sequence[CustomerKey], events: Sequence[StoredEvent]) -> list[str]:
        """Ids are unique per source and key only: of several the decision or first keeps the bare id."""
        if not events:
            return []
        same = await self._store.same_ids(keys, sorted({event.id for event in events}))
        firsts = _firsts(same)
        return [
            event.id if firsts.get(event.id, _row(event)) == _row(event) else _suffixed(event)
            for event in events
        ]

    async def _place(self, keys: Sequence[CustomerKey], id_: str) -> Place:
        bare, _, _ = id_.rpartition("~")
        same = await self._store.same_ids(keys, [name for name in (id_, bare) if name])
        firsts = _firsts(same)
        for event in same:
            bare_is_his = event.id == id_ and firsts[id_] == _row(event)
            if bare_is_his or _suffixed(event) == id_:
                return Place(event.occurred_at, event.recorded_at, event.partition, event.number)
        raise Invalid("unknown_event", "there is no event with this id in the timeline", "/before")

    async def consents(self, key: CustomerKey) -> ConsentsView:
        """What ``key`` and his links allow and refuse; raises `UnknownCustomer`."""
        view = await self.customer(key)
        return ConsentsView(key, view.consents)

    async def export(self, key: CustomerKey) -> AsyncIterator[bytes]:
        """The pieces of an `Export`; raises `UnknownCustomer` where nothing at all is held."""
        view: CustomerView | None = None
        held, models = Held([key], {}), [key]
        try:
            parts = await self._parts(key)
            view, models = await self.customer(key), [part.profile.customer for part in parts]
            held = await self._held(key, parts)
        except UnknownCustomer:
            # Of a visitor who was dropped the events are kept.
            if not await self._store.dead_letters_of([key]) and not await self._store.timeline(
                [key], None, 1
            ):
                raise
        in_flight = (await self.ledger()).in_flight
        return export(self._store, key, view, models, held, in_flight)

    async def ledger(self) -> Ledger:
        """What became of every record, as of one moment."""
        rows = await self._store.ledger()
        notes: dict[str, int] = {}
        for state in rows.states:
            for name, amount in state.notes.items():
                notes[name] = notes.get(name, 0) + amount
        return ledger(
            rows.fates,
            [report.accepted for report in rows.reports],
            {(state.partition, spool): seq for state in rows.states for spool, seq in state.applied.items()},
            notes,
        )

    async def erasure(self, id_: str) -> ErasureView:
        """How far an erasure is; raises `UnknownErasure`."""
        return await certificate(self._store, id_)

    async def models(self) -> ModelsView:
        """How far the learner is; version 0 before it has published."""
        state = await self._store.learned() or LearnedState(0, 0, 0, 0)
        return ModelsView(LearnedView(*state))

    async def dead_letters(self, which: LetterFilter, before: int | None, limit: int) -> list[Buried]:
        """Dead letters, newest first, below id ``before``."""
        return await self._store.dead_letters(which, before, limit)

    async def dead_letter(self, id_: int) -> Buried | None:
        """The dead letter with an id."""
        found = await self._store.dead_letters(LetterFilter(id=id_), None, 1)
        return found[0] if found else None

    async def ask_replay(self, which: LetterFilter) -> int:
        """Have dead letters taken again by the owners of their partitions; how many. Writes only that wish,
        so asking twice is asking once."""
        return await self._store.ask_replay(which)


def _row(event: StoredEvent) -> tuple[int, int]:
    return event.partition, event.number


def _firsts(events: Sequence[StoredEvent]) -> dict[str, tuple[int, int]]:
    """By id: the row of the decision with it, else of the first event recorded under it."""
    firsts: dict[str, tuple[int, int]] = {}
    for event in sorted(
        events,
        key=lambda event: (event.kind != "decision", event.recorded_at, event.partition, event.number),
    ):
        firsts.setdefault(event.id, _row(event))
    return firsts


def _suffixed(event: StoredEvent) -> str:
    return f"{event.id}~{event.partition}-{event.number}"
