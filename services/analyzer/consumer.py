"""The analyzer's side of the consume loop: claims partitions, commits slices, has models published."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from libs.common.bus.ports import Assignment, Message
from libs.common.bus.sender import Backoff
from libs.common.clock import Clock, JournalClock, Millis
from libs.common.contracts.customer_model import PROFILE
from libs.common.errors import Fenced, Transient
from services.analyzer.errors import TooManyDeadLetters
from services.analyzer.handlers.draft import DEAD_LETTERED, ID_REUSE
from services.analyzer.handlers.slices import Slice, SliceHandler
from services.analyzer.metrics import AnalyzerMetrics
from services.analyzer.model.cache import ModelCache
from services.analyzer.model.erased import KeyHasher
from services.analyzer.model.erasures import SuppressedRow
from services.analyzer.model.panel import EVERYBODY, Panel
from services.analyzer.ports import PartitionState, Publisher, SliceStore

MODELS_AT_ONCE = 500
RECORD_BYTES = 1_000
"""What a remembered decision of some offers takes, encoded."""
PATIENCE = 5.0
"""Seconds a slice waits for its partition to be published anew before it is tried again later."""

REPLAYED_AT_ONCE = 20
"""Dead letters in one slice: each may be as large as a record."""
REPLAYS_AT_ONCE = 25
"""Such slices before what is new on the journal has its turn."""

WATCHED = 1_000
"""Records over which the share of dead letters is judged."""

_log = logging.getLogger(__name__)


@dataclass
class _Owned:
    """A partition in our hands; ``certain`` is false while the outcome of a write is unknown.

    ``expected`` is the lowest offset that may come next; nothing falls due before ``due``.
    """

    state: PartitionState
    cache: ModelCache
    suppressed: dict[bytes, str]
    expected: int = 0
    due: Millis = 0
    certain: bool = True
    look_at: float = 0.0
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)
    catching_up: asyncio.Task[None] | None = None


class AnalyzerProcessor:
    """Implements the consume loop's `SliceProcessor`.

    Parameters
    ----------
    hasher:
        Hashes keys as the store remembers erased ones.
    cache_bytes:
        Encoded size of all models kept in memory, shared evenly among the partitions.
    dead_letter_share:
        Above this share of dead letters among the latest records consuming stops.
    panel:
        Whose orders say what was known before.

    Attributes
    ----------
    errands:
        Set whenever there may be something to be done about erasures, for `errands.Errands`.
    """

    def __init__(
        self,
        store: SliceStore,
        publisher: Publisher,
        metrics: AnalyzerMetrics,
        clock: Clock,
        random: Random,
        *,
        hasher: KeyHasher,
        cache_bytes: int,
        dead_letter_share: float,
        panel: Panel = EVERYBODY,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._cache_bytes = cache_bytes
        self._share = dead_letter_share
        self._handler = SliceHandler(store, hasher, panel)
        self._owned: dict[int, _Owned] = {}
        self.errands = asyncio.Event()
        self._watched = (0, 0)

    def standing(self) -> dict[int, PartitionState]:
        """The partitions in our hands, as last committed."""
        return {partition: owned.state for partition, owned in self._owned.items()}

    def suppressed(self) -> list[SuppressedRow]:
        """All keys erased in the partitions in our hands."""
        return [
            SuppressedRow(partition, hashed, erasure)
            for partition, owned in self._owned.items()
            for hashed, erasure in owned.suppressed.items()
        ]

    async def claim(self, assignment: Assignment) -> Mapping[int, int]:
        """Raise the epochs, drop what was known, and publish what the last owner had not."""
        await self.release(assignment.partitions & self._owned.keys())
        size = self._cache_bytes // max(1, len(assignment.partitions) + len(self._owned))
        for partition in sorted(assignment.partitions):
            claiming = time.monotonic()
            state = await self._store.claim(partition, assignment.generation, assignment.cluster)
            await self._publisher.open(state)
            self._publisher.renew(partition, claiming)
            # Trap: read after the claim. Only an owner adds to it, so from here on it is ours to keep.
            suppressed = await self._store.suppressed(partition)
            owned = _Owned(state, ModelCache(size), suppressed, state.next_offset)
            owned.catching_up = asyncio.create_task(self._catch_up(owned))
            self._owned[partition] = owned
            self._metrics.claims.add(1, "claimed")
        self._metrics.partitions.set(len(self._owned))
        self.errands.set()
        return {p: self._owned[p].state.next_offset for p in assignment.partitions}

    def lags(self) -> dict[int, Millis]:
        """How far each owned partition is behind the clock, where it has seen anything."""
        now = self._clock.now()
        return {
            partition: max(0, now - owned.state.journal_time)
            for partition, owned in self._owned.items()
            if owned.state.journal_time
        }

    def lag(self) -> Millis:
        """How far the slowest owned partition is behind the clock; 0 where none has seen anything yet."""
        now = self._clock.now()
        times = [owned.state.journal_time for owned in self._owned.values() if owned.state.journal_time]
        return max(0, now - min(times, default=now))

    async def release(self, partitions: frozenset[int]) -> None:
        """Let go: what waits is sent if it goes quickly; the next owner sends the rest."""
        for partition in partitions:
            owned = self._owned.pop(partition, None)
            if owned is not None and owned.catching_up is not None:
                owned.catching_up.cancel()
        await self._publisher.close(partitions)
        self._metrics.partitions.set(len(self._owned))

    async def process(self, partition: int, messages: Sequence[Message]) -> None:
        """A slice, or several where customers are erased: one transaction, its models, then its progress."""
        owned = self._owned.get(partition)
        if owned is None:
            raise Fenced(f"partition {partition} is not ours")
        stage = "database"
        try:
            await self._make_certain(owned)
            stage = "publishing"
            await self._wait_until_caught_up(owned)
            stage = "database"
            await self._notice_losses(owned, messages)
            await self._replay(owned)
            while await self._process_slice(owned, messages):
                pass
            owned.expected = messages[-1].offset + 1
        except Transient:
            self._metrics.retries.add(1, stage)
            raise
        except Fenced:
            self._metrics.claims.add(1, "lost")
            raise

    async def _replay(self, owned: _Owned) -> None:
        """Take dead letters again that somebody asked for; looked for once a second at most."""
        now = time.monotonic()
        if now < owned.look_at:
            return
        for _ in range(REPLAYS_AT_ONCE):
            letters = await self._store.asked(owned.state.partition, REPLAYED_AT_ONCE)
            if letters:
                slice_ = await self._handler.replay(
                    owned.state, owned.cache, letters, owned.suppressed, owned.due
                )
                await self._commit(owned, slice_, now)
            if len(letters) < REPLAYED_AT_ONCE:
                owned.look_at = now + 1.0
                return

    async def _process_slice(self, owned: _Owned, messages: Sequence[Message]) -> bool:
        began = time.monotonic()
        slice_ = await self._handler.prepare(owned.state, owned.cache, messages, owned.suppressed, owned.due)
        if slice_ is None:
            return False
        await self._commit(owned, slice_, began)
        return True

    async def _commit(self, owned: _Owned, slice_: Slice, began: float) -> None:
        partition = owned.state.partition
        records, dead = self._judge(slice_)
        published, models_offset = self._publisher.published(partition)
        state = replace(slice_.write.state, published=published, models_offset=models_offset)
        owned.certain = False
        writing = time.monotonic()
        await self._store.write(replace(slice_.write, state=state))
        owned.certain = True
        # Trap: not what was added up before the write. Other partitions have been watched since.
        self._watched = self._watched[0] + records, self._watched[1] + dead
        if self._watched[0] >= WATCHED:
            self._watched = self._watched[0] // 2, self._watched[1] // 2
        self._publisher.renew(partition, writing)
        self._remember(owned, state, slice_)
        self._publisher.offer(state, slice_.write.models, urgent=slice_.urgent)
        self._measure(slice_, state, time.monotonic() - began)

    async def _notice_losses(self, owned: _Owned, messages: Sequence[Message]) -> None:
        """See that topics were made anew on the same cluster, and that there is room for more models."""
        partition, first = owned.state.partition, messages[0].offset
        if first < owned.expected:
            # What was applied before is recognised by spool number.
            _log.warning("the journal was made anew", extra={"partition": partition, "offset": first})
            await self._store.rewind(partition, owned.state.epoch, first)
            owned.state = replace(owned.state, next_offset=first)
        owned.expected = first
        if self._publisher.lost:
            for other, theirs in list(self._owned.items()):
                with contextlib.suppress(Fenced):
                    await self._store.unpublish(other, theirs.state.epoch)
            raise Fenced("the topic of models was made anew: all of them are published again")
        if not await self._publisher.room(partition):
            raise Transient("models of this partition wait for the bus")

    async def _make_certain(self, owned: _Owned) -> None:
        """After a write that failed: it may have been committed all the same. Read what is true."""
        if owned.certain:
            return
        owned.cache.clear()
        owned.due = 0
        state = await self._store.load(owned.state.partition, owned.state.epoch)
        owned.suppressed = await self._store.suppressed(state.partition)
        published, _ = self._publisher.published(state.partition)
        owned.state = replace(state, published=published)
        owned.caught_up.clear()
        owned.catching_up = asyncio.create_task(self._catch_up(owned))
        owned.certain = True
        # The write may have erased somebody.
        self.errands.set()

    async def _wait_until_caught_up(self, owned: _Owned) -> None:
        if owned.caught_up.is_set():
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await owned.caught_up.wait()
        except TimeoutError:
            if owned.catching_up is not None and owned.catching_up.done():
                await owned.catching_up
            raise Transient("models of this partition are being published anew") from None

    async def _catch_up(self, owned: _Owned) -> None:
        """Publish every model with a revision above what is known to be published, then the progress.

        Trap: no slice of the partition may come between. It would publish newer models first, and a
        compacted topic keeps the record that came last, not the one with the highest revision.
        """
        backoff = Backoff(self._random, 0.1, 5.0)
        partition, after = owned.state.partition, ("", "")
        anew = owned.state.published == 0
        while True:
            try:
                rows = await self._store.unpublished(partition, owned.state.published, after, MODELS_AT_ONCE)
            except Transient as error:
                _log.warning("unpublished models cannot be read: %s", error.reason)
                await asyncio.sleep(backoff.failed())
                continue
            if not rows:
                break
            self._publisher.offer_models(partition, rows)
            while not await self._publisher.room(partition):
                _log.warning("models wait for the bus", extra={"partition": partition})
            after = (rows[-1].customer, rows[-1].part)
        if anew:
            self._publisher.close_republication(partition, owned.state.losses)
        self._publisher.offer(owned.state, ())
        owned.caught_up.set()

    def _remember(self, owned: _Owned, state: PartitionState, slice_: Slice) -> None:
        owned.state, owned.due = state, slice_.due
        sizes: dict[str, int] = {}
        for row in slice_.write.models:
            sizes[row.customer] = sizes.get(row.customer, 0) + len(row.body)
        for key, changed in slice_.customers.items():
            remembered = RECORD_BYTES * len(changed.models.trials.kept)
            owned.cache.put(key, changed.models, sizes.get(key, 0) + remembered)
        for row in slice_.write.models:
            if row.dropped and row.part == PROFILE:
                # Many may be dropped at once, and few of them come back.
                owned.cache.drop(row.customer)
        if (erased := slice_.write.erased) is not None:
            owned.suppressed[erased.suppressed] = erased.erasure
            if erased.whole:
                owned.cache.drop(erased.customer)
                self._metrics.erasures.add()
        if erased is not None or slice_.write.notices:
            self.errands.set()

    def _judge(self, slice_: Slice) -> tuple[int, int]:
        """Records and dead letters of ``slice_``; raises `TooManyDeadLetters` where, with those of late, it
        has too many."""
        own = sum(slice_.write.fates.values())
        # Those that callers can make at will must not stop the platform.
        own_dead = sum(letter.code != ID_REUSE for letter in slice_.write.dead_letters)
        records, dead = self._watched[0] + own, self._watched[1] + own_dead
        if records >= WATCHED and dead > self._share * records:
            raise TooManyDeadLetters(
                f"{dead} of the latest {records} records cannot be processed. What of them is stored is among"
                " the dead letters; see their codes, mend the cause and start the analyzer again, or raise"
                " CLOSEDLOOP_ANALYZER_DEAD_LETTER_SHARE"
            )
        return own, own_dead

    def _measure(self, slice_: Slice, state: PartitionState, seconds: float) -> None:
        for key, amount in slice_.write.fates.items():
            # A replay takes some back; counters only grow.
            self._metrics.records.add(max(0, amount), key.fate)
        for note, amount in slice_.noted.items():
            self._metrics.notes.add(max(0, amount), note)
        for outcome in slice_.write.replays:
            self._metrics.replays.add(1, "again" if outcome.code else "left")
        self._metrics.slices.add()
        self._metrics.slice_seconds.observe(seconds)
        if isinstance(self._clock, JournalClock):
            self._clock.advance(state.journal_time)
        for letter in slice_.write.dead_letters:
            self._metrics.dead_letters.add(1, letter.code)
        if slice_.write.dead_letters:
            _log.warning(
                "records cannot be processed",
                extra={
                    "partition": state.partition,
                    "fate": DEAD_LETTERED,
                    "count": len(slice_.write.dead_letters),
                },
            )
