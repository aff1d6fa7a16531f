"""The consume loop: slices of partitions in order, and what each kind of failure means for them."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from typing import Protocol

from libs.common.bus.ports import Assignment, GroupConsumer, Message
from libs.common.bus.sender import Backoff
from libs.common.errors import Fenced, Transient

_log = logging.getLogger(__name__)

_SHOW_SECONDS = 1.0


class SliceProcessor(Protocol):
    """What a service does with its partitions; the loop calls it, never twice at once for one partition."""

    async def claim(self, assignment: Assignment) -> Mapping[int, int]:
        """Become owner of ``assignment.partitions``; answer the next offset to read of each.

        `Transient` (database away) is tried again later; `Fenced` (somebody newer owns one) makes the
        loop leave the group and join anew.
        """
        ...

    async def release(self, partitions: frozenset[int]) -> None:
        """Forget ``partitions``: nothing of them is in hand any more. Must not fail."""
        ...

    async def process(self, partition: int, messages: Sequence[Message]) -> None:
        """Do all of a slice, or nothing of it, and keep the next offset with what was done.

        Records that can never be processed are dead-lettered in here. `Transient`: the same slice comes
        again, perhaps longer. `Fenced`: everything is given up and claimed anew. Anything else ends the
        loop, so that the process crashes with nothing committed.
        """
        ...


class ConsumeLoop:
    """Runs one group member: polls, hands slices to a processor, retries, hands over.

    Parameters
    ----------
    consumer:
        The group member; the loop starts and closes it, and starts it again when fenced.
    processor:
        What to do with a slice.
    random:
        Generator for the jitter of retries.
    max_records:
        Most records polled at once, and so the longest slice.
    concurrency:
        How many partitions are processed side by side; a partition's own slices never are.
    poll_timeout:
        Seconds one poll waits; bounds how long `stop` and retries are noticed late.
    first_backoff, most_backoff:
        Seconds before the first and at most before any retry.
    """

    def __init__(
        self,
        consumer: GroupConsumer,
        processor: SliceProcessor,
        *,
        random: Random,
        max_records: int = 1_000,
        concurrency: int = 4,
        poll_timeout: float = 0.2,
        first_backoff: float = 0.1,
        most_backoff: float = 5.0,
    ) -> None:
        self._consumer = consumer
        self._processor = processor
        self._max_records = max_records
        self._poll_timeout = poll_timeout
        backoff = partial(Backoff, random, first_backoff, most_backoff)
        self._rejoining = backoff()
        self._claiming = backoff()
        self._retrying: defaultdict[int, Backoff] = defaultdict(backoff)
        self._slots = asyncio.Semaphore(concurrency)
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._owned: frozenset[int] = frozenset()
        self._unclaimed: Assignment | None = None
        self._claim_at = 0.0
        self._resume_at: dict[int, float] = {}
        self._in_hand: dict[int, asyncio.Task[None]] = {}
        self._done: dict[int, int] = {}
        self._showing: asyncio.Task[None] | None = None
        self._shown_at = 0.0

    @property
    def owned(self) -> frozenset[int]:
        """Partitions claimed at this moment."""
        return self._owned

    async def run(self) -> None:
        """Consume until `stop`; then what is in hand is finished, released and the group left.

        Returns after `stop`; raises what was neither `Transient` nor `Fenced`.
        """
        while not self._stopping.is_set():
            try:
                await self._be_member()
            except (Transient, Fenced) as error:
                pause = self._rejoining.failed()
                _log.warning("joining anew in %.1f s: %s", pause, error)
                await self._sleep(pause)

    def stop(self) -> None:
        """Ask `run` to end after the slices in hand."""
        self._stopping.set()

    async def _be_member(self) -> None:
        """One membership of the group, until `stop` or until something makes it useless."""
        try:
            await self._consumer.start(self._on_revoked, self._on_assigned)
            while not self._stopping.is_set():
                await self._claim_again()
                self._resume_due()
                slices = await self._consumer.poll(self._max_records, self._poll_seconds())
                await self._work(slices)
                self._show()
        finally:
            try:
                await self._hide()
            finally:
                await self._consumer.close()

    async def _work(self, slices: Mapping[int, Sequence[Message]]) -> None:
        """Process ``slices``, and wait for all of them before the worst failure is raised."""
        tasks = []
        for partition, messages in slices.items():
            task = asyncio.create_task(self._slice(partition, messages))
            self._in_hand[partition] = task
            tasks.append(task)
        if not tasks:
            return
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        finally:
            for partition in slices:
                self._in_hand.pop(partition, None)
        failures = [failure for task in tasks if (failure := task.exception()) is not None]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, Fenced)):
            raise failure
        self._rejoining.succeeded()

    async def _slice(self, partition: int, messages: Sequence[Message]) -> None:
        async with self._slots:
            # Trap: it may have had to wait for a slot, and the partition be revoked meanwhile. It cannot be
            # owned again yet, because a revocation waits for this very task.
            if partition not in self._owned:
                return
            try:
                await self._processor.process(partition, messages)
            except Transient as error:
                if partition not in self._retrying:
                    # Once, not at each of many attempts: twelve partitions fail together.
                    _log.warning("partition %d waits and tries again: %s", partition, error.reason)
                pause = self._retrying[partition].failed()
                self._consumer.pause(frozenset({partition}))
                self._consumer.seek(partition, messages[0].offset)
                self._resume_at[partition] = self._now() + pause
            else:
                if self._retrying.pop(partition, None) is not None:
                    _log.info("partition %d goes on", partition)
                self._done[partition] = messages[-1].offset + 1

    async def _on_assigned(self, assignment: Assignment) -> Mapping[int, int]:
        async with self._turn:
            if not assignment.partitions:
                return {}
            return await self._claim(assignment)

    async def _claim(self, assignment: Assignment) -> Mapping[int, int]:
        self._unclaimed = None
        try:
            offsets = await self._processor.claim(assignment)
        except Transient as error:
            # Trap: not waited for in here. While this callback runs the group waits for us.
            pause = self._claiming.failed()
            _log.warning("claiming again in %.1f s: %s", pause, error.reason)
            self._unclaimed = assignment
            self._claim_at = self._now() + pause
            return {}
        self._claiming.succeeded()
        self._owned = assignment.partitions
        return offsets

    async def _claim_again(self) -> None:
        if self._unclaimed is None or self._now() < self._claim_at:
            return
        async with self._turn:
            if self._unclaimed is None:
                return
            offsets = await self._claim(self._unclaimed)
            for partition, offset in offsets.items():
                self._consumer.seek(partition, offset)
            self._consumer.resume(frozenset(offsets))

    async def _on_revoked(self, partitions: frozenset[int]) -> None:
        # First of all, so that no slice of them begins any more.
        self._owned -= partitions
        async with self._turn:
            self._owned -= partitions
            self._unclaimed = None
            in_hand = [task for p, task in self._in_hand.items() if p in partitions]
            if in_hand:
                await asyncio.wait(in_hand)
            for partition in partitions:
                self._resume_at.pop(partition, None)
                if self._retrying.pop(partition, None) is not None:
                    _log.info("partition %d goes on", partition)
                self._done.pop(partition, None)
            await self._processor.release(partitions)

    def _resume_due(self) -> None:
        now = self._now()
        due = frozenset(partition for partition, at in self._resume_at.items() if at <= now)
        if due:
            for partition in due:
                del self._resume_at[partition]
            self._consumer.resume(due)

    def _poll_seconds(self) -> float:
        """As long as nothing else falls due."""
        due = [*self._resume_at.values(), *([self._claim_at] if self._unclaimed else [])]
        return max(0.0, min([self._poll_timeout, *(at - self._now() for at in due)]))

    def _show(self) -> None:
        """Tell the group how far we are, once a second, without waiting for it."""
        if not self._done or self._now() < self._shown_at + _SHOW_SECONDS:
            return
        if self._showing is None or self._showing.done():
            done, self._done = self._done, {}
            self._shown_at = self._now()
            self._showing = asyncio.create_task(self._consumer.commit(done))

    async def _hide(self) -> None:
        showing, self._showing = self._showing, None
        if showing is not None:
            showing.cancel()
            await asyncio.wait([showing])

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
