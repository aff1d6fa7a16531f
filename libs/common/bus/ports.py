"""What the rest of the project knows about the bus: records, batches and five small protocols.

Two implementations keep these promises and pass one conformance suite: `kafka` (aiokafka) and `memory`.
Every awaitable here ends within the given or a built-in timeout, whatever state the broker is in, and
raises `Transient` when the broker is away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

Headers = tuple[tuple[str, bytes], ...]


class Record(NamedTuple):
    """What is sent: the partition is always chosen by us, never by the client library."""

    key: bytes
    value: bytes | None
    headers: Headers = ()


class Message(NamedTuple):
    """What was read."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    headers: Headers
    timestamp: int

    def header(self, name: str) -> bytes | None:
        """The value of the first header called ``name``, or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class TopicSpec(NamedTuple):
    """A topic as it must exist: ``config`` holds Kafka topic settings, e.g. ``cleanup.policy``."""

    name: str
    partitions: int
    config: Mapping[str, str]


class Producer(Protocol):
    """Sends records of one partition in order. After an error nothing about the batch is known."""

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Send ``records`` as few batches as they fit in, wait for all acknowledgements.

        Returns the offset of the last record. Raises `Transient` on timeout or any broker error; the
        implementation has then already thrown away what was broken and the caller may send again.
        Raises `Invalid` (code ``too_large``) for a record no broker setting of ours can take.
        """
        ...

    async def close(self) -> None:
        """Give up within two seconds, whatever is unsent."""
        ...


class Assignment(NamedTuple):
    """Partitions a group member got, and the group's generation at that moment."""

    partitions: frozenset[int]
    generation: int


class GroupConsumer(Protocol):
    """One member of a consumer group on one topic, with offsets kept elsewhere (by us)."""

    async def start(
        self,
        on_revoked: Callable[[frozenset[int]], Awaitable[None]],
        on_assigned: Callable[[Assignment], Awaitable[Mapping[int, int]]],
    ) -> None:
        """Join. ``on_assigned`` answers the offset to read next for each partition; ``on_revoked`` is
        awaited before partitions are given up. Neither is called concurrently with the other."""
        ...

    async def poll(self, max_records: int, timeout: float) -> Mapping[int, Sequence[Message]]:
        """What has arrived, per partition in offset order; empty after ``timeout`` seconds."""
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Read ``partition`` from ``offset`` next (after an error; dropped where no longer assigned)."""
        ...

    def pause(self, partitions: frozenset[int]) -> None: ...

    def resume(self, partitions: frozenset[int]) -> None: ...

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell the group how far we are: for display only, never raises."""
        ...

    async def close(self) -> None: ...


class TopicReader(Protocol):
    """Reads whole partitions without a group: for views and progress."""

    async def start(self, offsets: Mapping[int, int]) -> None:
        """Begin at the given next offsets; partitions not named begin at the start of the log. Where an
        offset no longer exists, reading begins at the earliest one that does."""
        ...

    async def poll(self, max_records: int, timeout: float) -> Mapping[int, Sequence[Message]]: ...

    async def close(self) -> None: ...


class Bus(Protocol):
    """A broker, seen from one process. Makes the parts above; holds no global state."""

    async def cluster_id(self) -> str:
        """Identity of the cluster: when it changes, offsets mean nothing any more."""
        ...

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        """Create what is missing; never changes what exists."""
        ...

    def producer(self) -> Producer: ...

    def consumer(self, topic: str, group: str) -> GroupConsumer: ...

    def reader(self, topic: str) -> TopicReader: ...

    async def close(self) -> None: ...
