"""One partition of a rebuild: fold its events from nothing, catch up with live slices, compare or switch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from libs.common.clock import MINUTE, Millis
from libs.common.contracts.customer_event import AboutCustomer, SpoolReported, Tick, decode_event
from libs.common.contracts.identity import CustomerKey, is_nobody
from libs.common.errors import Invalid
from services.analyzer.handlers.folding import (
    Changed,
    assemble,
    drop_idle,
    fire,
    fold_into,
    idle_timers,
    lesson_rows,
    model_rows,
    trial_rows,
)
from services.analyzer.model.arrival import UNREADABLE
from services.analyzer.model.facts import FactRow, fact_row
from services.analyzer.model.fold import Models
from services.analyzer.model.panel import EVERYBODY, Panel
from services.analyzer.ports import LessonRow
from services.analyzer.store.rebuilding import (
    Anew,
    Difference,
    PastEvent,
    PostgresRebuildStore,
    Reached,
    ScratchLost,
)

HELD = 10_000
"""Customers whose models are held in memory before they are put away."""

HELD_ROWS = 50_000
"""Lessons and facts that are held before they are put away: few customers may have many."""

DUE_AT_ONCE = 100
"""Customers for whom what is due is done before it is seen how much that was."""

NEAR = 2_000
"""Events that may be left to fold while live slices wait."""

LATE: Millis = MINUTE
"""How far journal time may have gone on meanwhile: what falls due is done while live slices wait."""

ROUNDS = 100
"""How often a partition is caught up with before the rebuild is called too slow for it."""


class PartitionRebuild:
    """Folds one partition of one rebuild; made anew for each phase of it.

    Attributes
    ----------
    refused:
        Events that the present code cannot fold.
    """

    def __init__(
        self,
        store: PostgresRebuildStore,
        partition: int,
        *,
        held: int = HELD,
        held_rows: int = HELD_ROWS,
        panel: Panel = EVERYBODY,
    ) -> None:
        self._store = store
        self._partition = partition
        self._held = held
        self._held_rows = held_rows
        self._panel = panel
        self._customers: dict[str, Changed] = {}
        self._lessons: list[LessonRow] = []
        self._facts: list[FactRow] = []
        self._visitors: set[CustomerKey] = set()
        self._fresh = False
        self.refused = 0

    async def fold(self) -> int:
        """From nothing up to where the live partition is; returns how many events there were."""
        await self._store.begin(self._partition)
        self._fresh = True
        reached = await self._store.reached(self._partition)
        return await self._fold(0, reached)

    async def settle(self, *, switch: bool) -> Difference:
        """Catch up with the live partition, stop it for a moment, and compare or switch.

        Where customers were erased since the fold began it begins again: what was folded knows them.
        """
        folded = await self._store.folded(self._partition)
        for _ in range(ROUNDS):
            reached = await self._store.reached(self._partition)
            if reached.erasures != folded.erasures:
                await self.fold()
            elif reached.number > folded.number + NEAR:
                await self._fold(folded.number, reached)
            elif reached.journal_time > folded.journal_time + LATE:
                # What has fallen due since, while nobody waits.
                await self._fold(folded.number, reached)
            else:
                told = await self._stop(folded, switch=switch)
                if told is not None:
                    return told
            folded = await self._store.folded(self._partition)
        raise ScratchLost(f"partition {self._partition} moves on faster than it can be folded")

    async def _stop(self, folded: Reached, *, switch: bool) -> Difference | None:
        async with self._store.settling(self._partition) as live:
            if live.reached.erasures != folded.erasures or live.reached.number > folded.number + 2 * NEAR:
                return None
            await self._take(await live.events(folded.number))
            due = await self._store.due(self._partition, live.reached.journal_time, 1 << 31)
            await self._meet(set(due.customers))
            self._fire(live.reached, due.visitors)
            await live.put(self._folded(live.reached))
            return await live.switch() if switch else await live.compare()

    async def _fold(self, after: int, upto: Reached) -> int:
        count = 0
        async for events in self._store.events(self._partition, after, upto.number):
            await self._take(events)
            count += len(events)
            if self._full():
                # Trap: only what was folded is put away, so the place must be that of the last event.
                last = events[-1]
                await self._put(upto._replace(number=last.number, journal_time=last.journal_time))
        await self._pass_time(upto)
        return count

    async def _pass_time(self, upto: Reached) -> None:
        """Do what falls due by then, a part at a time: also for those who never came back."""
        await self._put(upto)
        while (due := await self._store.due(self._partition, upto.journal_time, self._held)).customers:
            for first in range(0, len(due.customers), DUE_AT_ONCE):
                await self._meet(set(due.customers[first : first + DUE_AT_ONCE]))
                self._fire(upto, due.visitors)
                if self._full():
                    await self._put(upto)
            await self._put(upto)

    def _fire(self, upto: Reached, visitors: Collection[CustomerKey]) -> None:
        self._lessons += fire(self._customers, self._partition, upto.journal_time)
        drop_idle(self._customers, upto.journal_time, upto.number + 1)
        self._visitors |= self._customers.keys() & visitors

    def _full(self) -> bool:
        rows = len(self._lessons) + len(self._facts)
        return len(self._customers) > self._held or rows > self._held_rows

    async def _put(self, at: Reached) -> None:
        await self._store.put(self._partition, at, self._folded(at))
        self._fresh = False

    def _folded(self, at: Reached) -> Anew:
        anew = Anew(
            model_rows(self._partition, self._customers),
            trial_rows(self._partition, self._customers),
            idle_timers(self._partition, self._customers, self._visitors, at.journal_time),
            self._lessons,
            self._facts,
        )
        self._customers, self._lessons, self._facts, self._visitors = {}, [], [], set()
        return anew

    async def _take(self, events: Sequence[PastEvent]) -> None:
        about: list[tuple[PastEvent, AboutCustomer]] = []
        for past in events:
            try:
                event = decode_event(past.body)
            except UNREADABLE:
                self.refused += 1
                continue
            if not isinstance(event, Tick | SpoolReported):
                about.append((past, event))
        await self._meet({event.customer for _, event in about if not is_nobody(event.customer)})
        for past, event in about:
            try:
                step = fold_into(self._customers, event, past.journal_time, past.number, self._panel)
            except Invalid:
                self.refused += 1
                continue
            if step is not None and (step.lessons or step.looks):
                self._lessons += lesson_rows(self._partition, past.number, past.journal_time, step)
            if (fact := fact_row(self._partition, past.number, event)) is not None:
                self._facts.append(fact)

    async def _meet(self, keys: set[str]) -> None:
        """Have the models of ``keys`` at hand."""
        missing = sorted(keys - self._customers.keys())
        if not missing:
            return
        stored = {} if self._fresh else assemble(await self._store.models(self._partition, missing))
        for key in missing:
            self._customers[key] = Changed(stored.get(key) or Models.new(key))
