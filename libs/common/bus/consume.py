"""The consume loop: slices of partitions in order, and what each kind of failure means for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Protocol

from libs.common.bus.ports import Assignment, GroupConsumer, Message


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
        raise NotImplementedError

    @property
    def owned(self) -> frozenset[int]:
        """Partitions claimed at this moment."""
        raise NotImplementedError

    async def run(self) -> None:
        """Consume until `stop`; then what is in hand is finished, released and the group left.

        Returns after `stop`; raises what was neither `Transient` nor `Fenced`.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Ask `run` to end after the slices in hand."""
        raise NotImplementedError
