"""Answers requests for offers: waits for what was asked for, decides, records, remembers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import msgspec

from libs.common.clock import MINUTE, SECOND, Clock, Millis
from libs.common.contracts.customer_event import Decision
from libs.common.contracts.identity import CustomerKey, partition_of
from libs.common.errors import Transient
from libs.common.journal import Durability, LocalJournal
from libs.common.position import Position
from libs.common.times import parse_time
from services.recommender.errors import UNRECORDED
from services.recommender.handlers.decide import Decided, Decider, Question, encode_answer
from services.recommender.handlers.desk import Desk
from services.recommender.metrics import RecommenderMetrics
from services.recommender.model.groups import Group
from services.recommender.model.who import Who, who
from services.recommender.model.wire import Ask
from services.recommender.ports import Board, DecisionStore, KeptDecision, People, decode_kept, encode_kept

STALE_AFTER: Millis = 5 * MINUTE
FRESH_WITHIN: Millis = 2 * SECOND
SHARED = 20
"""Decisions that are read at once; requests of a batch are asked so many at a time, too."""


class Forced(NamedTuple):
    """What only a caller with scope ``manage`` may set."""

    group: Group | None = None


class _Known(NamedTuple):
    """An answer as it went out, and the key it was decided for."""

    customer: CustomerKey
    answer: bytes


class Recommender:
    """The recommendation handler.

    Reads the views of models and catalogue through ``decider`` and ``people``; writes a decision and its
    pool in one spool transaction, before the answer goes out. The decision id makes it idempotent: its
    first answer is found in memory, in the spool, or in the store.

    Parameters
    ----------
    wall:
        Whether the platform lives in wall time: only then can a model be stale, and ``at`` be a replay.
    latest_start:
        How far ``at`` may set a journal clock that has not begun.
    new_id:
        Makes decision ids.
    remembered:
        How many first answers are kept in memory.
    """

    def __init__(
        self,
        decider: Decider,
        people: People,
        board: Board,
        journal: LocalJournal,
        store: DecisionStore,
        clock: Clock,
        metrics: RecommenderMetrics,
        *,
        wall: bool,
        latest_start: Callable[[], Millis],
        new_id: Callable[[], str],
        remembered: int,
        monotonic: Callable[[], float],
    ) -> None:
        self._decider = decider
        self._people = people
        self._board = board
        self._journal = journal
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._wall = wall
        self._latest_start = latest_start
        self._new_id = new_id
        self._remembered = remembered
        self._monotonic = monotonic
        self._answers: OrderedDict[str, _Known] = OrderedDict()
        self._making: dict[str, asyncio.Event] = {}
        self._desk = Desk(self._answer_together)

    async def answer(self, ask: Ask, forced: Forced = Forced()) -> bytes:  # noqa: B008
        """The answer to ``ask`` as JSON."""
        if ask.decision_id is None:
            return await self._answer(ask, forced)
        async with self._one_at_a_time(ask.decision_id):
            first = await self.first_answer(ask.decision_id)
            return await self._answer(ask, forced) if first is None else first

    async def answer_all(
        self,
        asks: Sequence[Ask],
        forced: Forced = Forced(),  # noqa: B008
    ) -> list[bytes | Exception]:
        """Answers in the order of ``asks``; records are shared, and what failed is an exception."""
        answers: list[bytes | Exception] = []
        for start in range(0, len(asks), SHARED):
            some = asks[start : start + SHARED]
            answers += await self._answer_some(some, forced)
            await asyncio.sleep(0)
        return answers

    async def first_answer(self, decision_id: str) -> bytes | None:
        """What was answered under this id before, wherever it is by now."""
        known = self._answers.get(decision_id)
        if known is None:
            try:
                kept = await self.find(decision_id)
            except Transient:
                # The store away costs the memory of older answers, not the answer.
                return None
            if kept is None:
                return None
            known = self._remember(decision_id, kept.customer, kept.answer)
        self._metrics.repeated.add()
        return known.answer

    async def decided_for(self, decision_id: str) -> CustomerKey | None:
        """Whose decision this is; of one that was just answered it is known without the store."""
        known = self._answers.get(decision_id)
        if known is not None:
            return known.customer
        kept = await self.find(decision_id)
        return None if kept is None else kept.customer

    async def find(self, decision_id: str) -> KeptDecision | None:
        """A decision as it is kept; raises `Transient` where the store that may know it is away."""
        row = await self._journal.find_local(decision_id)
        if row is not None:
            return decode_kept(row)
        return (await self._store.find([decision_id])).get(decision_id)

    async def decisions_of(self, customers: Sequence[CustomerKey]) -> AsyncIterator[KeptDecision]:
        """All decisions kept for ``customers``, in order; raises `Transient` without the store."""
        after = (-1, "")
        while rows := await self._store.of_customer(customers, after, SHARED):
            for kept in rows:
                yield kept
            after = (rows[-1].decided_at, rows[-1].decision_id)

    def forget(self, customers: Sequence[CustomerKey], decision_ids: Sequence[str]) -> None:
        """Drop what memory holds of ``customers`` and of decisions."""
        for decision_id in decision_ids:
            self._answers.pop(decision_id, None)
        self._people.forget(customers)
        self._decider.forget(customers)

    async def _answer(self, ask: Ask, forced: Forced) -> bytes:
        return await self._desk.answer(await self._question(ask, forced))

    async def _answer_together(self, questions: Sequence[Question]) -> list[bytes | Exception]:
        """Decide and record ``questions``, all of them at once."""
        began = self._monotonic()
        made = self._decider.decide(questions)
        spent = (self._monotonic() - began) / len(made)
        for _ in made:
            self._metrics.seconds.observe(spent)
        answers = iter(await self._record([one for one in made if isinstance(one, Decided)]))
        return [next(answers) if isinstance(one, Decided) else one for one in made]

    async def _answer_some(self, asks: Sequence[Ask], forced: Forced) -> list[bytes | Exception]:
        """Known answers are looked up, the others decided, all of them recorded: each at once."""
        ids = sorted({ask.decision_id for ask in asks if ask.decision_id is not None})
        answers: list[bytes | Exception] = [b""] * len(asks)
        async with AsyncExitStack() as held:
            for decision_id in ids:
                await held.enter_async_context(self._one_at_a_time(decision_id))
            known = await self._first_answers(ids)
            makers: dict[str, int] = {}
            new: list[int] = []
            for at, ask in enumerate(asks):
                if ask.decision_id in known:
                    answers[at] = known[ask.decision_id]
                elif ask.decision_id not in makers:
                    new.append(at)
                    if ask.decision_id is not None and not ask.dry_run:
                        makers[ask.decision_id] = at
            made = await self._answer_new([asks[at] for at in new], forced)
            for at, answer in zip(new, made, strict=True):
                answers[at] = answer
            for at, ask in enumerate(asks):
                if ask.decision_id in makers and at > makers[ask.decision_id]:
                    answers[at] = answers[makers[ask.decision_id]]
        return answers

    async def _first_answers(self, decision_ids: Sequence[str]) -> dict[str, bytes]:
        """`first_answer` of many."""
        known = {key: self._answers[key].answer for key in decision_ids if key in self._answers}
        missing = [key for key in decision_ids if key not in known]
        try:
            for key in missing:
                if (row := await self._journal.find_local(key)) is not None:
                    known[key] = decode_kept(row).answer
            if missing := [key for key in missing if key not in known]:
                found = await self._store.find(missing)
                known |= {key: kept.answer for key, kept in found.items()}
        except Transient:
            # As in `first_answer`: it costs the memory of older answers, not the answers.
            pass
        self._metrics.repeated.add(len(known))
        return known

    async def _answer_new(self, asks: Sequence[Ask], forced: Forced) -> list[bytes | Exception]:
        """They meet at the desk."""
        answers = await asyncio.gather(*(self._answer(ask, forced) for ask in asks), return_exceptions=True)
        return [answer if isinstance(answer, bytes) else _failure(answer) for answer in answers]

    async def _question(self, ask: Ask, forced: Forced) -> Question:
        decision_id = ask.decision_id or self._new_id()
        at = None if ask.at is None else parse_time(ask.at, "/at")
        whom = self._who(ask, decision_id)
        if ask.after is None:
            fresh = self._is_fresh(whom)
        else:
            fresh, whom = await self._after(ask, decision_id, whom)
        present = self._clock.now()
        self._measure_age(whom, present)
        # A replay may ask before anything was ever recorded.
        # Trap: unbounded, one question about the year 9999 would make all data a past of 8,000 years.
        if not present and at is not None and at <= self._latest_start():
            present = at
        return Question(
            ask=ask,
            decision_id=decision_id,
            who=whom,
            now=present if at is None else at,
            recorded_at=present,
            fresh=fresh,
            stale=self._is_stale(whom, present),
            replay=at is not None and self._wall,
            group=forced.group,
        )

    def _who(self, ask: Ask, decision_id: str) -> Who:
        return who(ask.customer_id, ask.anonymous_id, decision_id, self._people.of)

    async def _after(self, ask: Ask, decision_id: str, whom: Who) -> tuple[bool, Who]:
        """Wait until the models this request reads include everything before its ``after``; whom they are."""
        position = Position.decode(ask.after or "")
        until = self._monotonic() + ask.wait_ms / 1000
        while True:
            waited = whom.partitions & frozenset(position.heads)
            fresh = await self._reached(position, waited, until)
            whom = self._who(ask, decision_id)
            # Trap: a link may be among what was waited for, and the visitor's models lie elsewhere.
            if not fresh or whom.partitions & frozenset(position.heads) <= waited:
                return fresh, whom

    async def _reached(self, position: Position, partitions: frozenset[int], until: float) -> bool:
        """Whether models of ``partitions`` include everything before ``position``, by ``until`` at last."""
        with self._people.expecting():
            if not await self._board.reached(position, partitions, max(0.0, until - self._monotonic())):
                return False
        cluster = self._board.cluster
        for partition in partitions:
            left = max(0.0, until - self._monotonic())
            offset = self._board.models_offset(partition)
            if not await self._people.reached(partition, offset, left, cluster):
                return False
        return True

    def _measure_age(self, whom: Who, present: Millis) -> None:
        progress = self._board.of(partition_of(whom.key)) if whom.keys else None
        if progress is not None:
            self._metrics.freshness.observe(max(0.0, (present - progress.journal_time) / 1000))

    def _is_fresh(self, whom: Who) -> bool:
        if not whom.keys:
            return True
        partition = partition_of(whom.key)
        since = self._clock.now() - FRESH_WITHIN + 1 if self._wall else self._board.journal_time()
        offset = self._board.offset_since(partition, since)
        # Trap: progress alone is not enough. While a lost broker's models are read again the view is behind
        # what the analyzer has long published.
        return offset is not None and self._people.has(partition, offset, self._board.cluster)

    def _is_stale(self, whom: Who, present: Millis) -> bool:
        """Whether a refusal may have been missed: nothing personal is offered on an old model."""
        if not self._wall:
            return False
        # Trap: not progress alone. A view that cannot be written stands still while the board goes on.
        behind = self._people.lag_seconds() * SECOND > STALE_AFTER
        return any(behind or present - self._board.known_until(p) > STALE_AFTER for p in whom.partitions)

    async def _record(self, decided: Sequence[Decided]) -> list[bytes]:
        """Spool what is to be recorded, all at once; answers as they go out."""
        answers = [encode_answer(one.answer) for one in decided]
        real = [at for at, one in enumerate(decided) if one.event is not None]
        if not real:
            self._metrics.dry_runs.add(len(decided))
            return answers
        events: list[Decision] = []
        rows: list[tuple[str, bytes]] = []
        for at in real:
            kept = decided[at].kept(answers[at])
            rows.append((kept.decision_id, encode_kept(kept)))
            events.append(decided[at].event)  # type: ignore[arg-type]
        try:
            position = self._journal.append(events, rows)
            await self._journal.durable(position, Durability.SPOOL)
        except Transient:
            for at in real:
                answers[at] = _unrecorded(decided[at])
                self._metrics.degraded.add(1, UNRECORDED)
            return answers
        for at, event in zip(real, events, strict=True):
            self._remember(event.id, event.customer, answers[at])
            self._count(decided[at])
        self._metrics.dry_runs.add(len(decided) - len(real))
        return answers

    def _count(self, decided: Decided) -> None:
        self._metrics.decisions.add(1, decided.answer.group or "")
        for reason in decided.answer.degraded:
            self._metrics.degraded.add(1, reason)

    def _remember(self, decision_id: str, customer: CustomerKey, answer: bytes) -> _Known:
        known = self._answers[decision_id] = _Known(customer, answer)
        self._answers.move_to_end(decision_id)
        while len(self._answers) > self._remembered:
            self._answers.popitem(last=False)
        return known

    @asynccontextmanager
    async def _one_at_a_time(self, decision_id: str) -> AsyncIterator[None]:
        # Trap: two requests with one id at the same moment must not both be the first.
        while (busy := self._making.get(decision_id)) is not None:
            await busy.wait()
        done = self._making[decision_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._making[decision_id]
            done.set()


def _unrecorded(decided: Decided) -> bytes:
    """The answer without tokens: nothing that is said about it later could be joined."""
    answer = decided.answer
    return encode_answer(
        msgspec.structs.replace(
            answer,
            degraded=[*answer.degraded, UNRECORDED],
            offers=[msgspec.structs.replace(offer, token=None) for offer in answer.offers],
        )
    )


def _failure(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    raise error
