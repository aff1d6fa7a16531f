"""Send until acknowledged: for what must arrive and is kept elsewhere until it has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from libs.common.bus.ports import Producer, Record
from libs.common.errors import Transient

_log = logging.getLogger(__name__)


class Backoff:
    """Waiting times that double from ``first`` to ``most`` seconds, each drawn evenly from its upper half.

    Parameters
    ----------
    random:
        The generator jitter is drawn from, so that many clients do not come back at once.
    first, most:
        Seconds before the first and at most before any retry.
    """

    def __init__(self, random: Random, first: float = 0.1, most: float = 5.0) -> None:
        self._random = random
        self._first = first
        self._most = most
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many times in a row it went wrong."""
        return self._failures

    def failed(self) -> float:
        """Count one more failure and answer how many seconds to wait now."""
        longest = min(self._most, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return longest * (0.5 + 0.5 * self._random.random())

    def succeeded(self) -> None:
        """Begin again with the first waiting time."""
        self._failures = 0


class Sender:
    """Sends records to a partition until they are acknowledged.

    A batch that failed is sent again whole, so readers must bear repetition (revisions, sequence numbers).
    `ClusterChanged` and `Invalid` pass through: the caller decides what to send to another cluster.

    Parameters
    ----------
    producer:
        Where to send; it replaces what is broken inside by itself, so that it stays usable after an error.
    random:
        Generator for jitter.
    sleep:
        How to wait; tests give one that does not.
    """

    def __init__(
        self,
        producer: Producer,
        random: Random,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        first: float = 0.1,
        most: float = 5.0,
    ) -> None:
        self._producer = producer
        self._random = random
        self._sleep = sleep
        self._first = first
        self._most = most

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Return the offset of the last record once all are acknowledged; waits as long as that takes."""
        backoff = Backoff(self._random, self._first, self._most)
        while True:
            try:
                return await self._producer.send(topic, partition, records)
            except Transient as error:
                pause = backoff.failed()
                _log.warning(
                    "%s/%d not sent, attempt %d: %s", topic, partition, backoff.failures, error.reason
                )
                await self._sleep(pause)

    async def close(self) -> None:
        """Close the producer."""
        await self._producer.close()
