"""What the rest of the project knows about the bus: records, batches and five small protocols.

Two implementations keep these promises and pass one conformance suite: `kafka` (aiokafka) and `memory`.
Every awaitable here ends within the given or a built-in timeout, whatever state the broker is in, and
raises `Transient` when the broker is away.

Offsets and acknowledgements mean something within one cluster only. The embedded broker is empty and has
another cluster id after each start, so every part is bound to a cluster: a consumer or reader to the one it
found (or was told to expect) at `start`, a producer to the one it was told to expect, if any. Each new
connection is asked for its cluster id before anything is read from or sent over it; where it is another one
the call raises `ClusterChanged`, and goes on raising it: close the part, ask `Bus.cluster_id`, start again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from libs.common.errors import Fenced

Headers = tuple[tuple[str, bytes], ...]

MAX_RECORD_BYTES = 1_000_000
"""Most bytes of key, value and headers together, before compression; every bus refuses more."""


EMBEDDED = "embedded-"
"""Cluster ids that begin so are those of the embedded broker, which forgets everything when it stops."""


class Record(NamedTuple):
    """What is sent: the partition is always chosen by us, never by the client library."""

    key: bytes
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Bytes of key, value and headers, as `MAX_RECORD_BYTES` counts them."""
        size = len(self.key) + len(self.value or b"")
        for name, value in self.headers:
            size += len(name) + len(value)
        return size


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


class TopicState(NamedTuple):
    """A topic as it is; ``config`` is empty where the broker does not tell."""

    partitions: int
    replicas: int
    config: Mapping[str, str]


class ClusterChanged(Fenced):
    """This address now leads to another cluster: offsets and acknowledgements of the old one are void."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected cluster {expected}, found {found}")
        self.expected = expected
        self.found = found


class Producer(Protocol):
    """Sends records of one partition in order. After an error nothing about the batch is known."""

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Send ``records`` as few batches as they fit in, wait for all acknowledgements.

        Returns the offset of the last record. Raises `Transient` on timeout or any broker error; the
        implementation has then already thrown away what was broken and the caller may send again.
        Raises `Invalid` (code ``too_large``) for a record no broker setting of ours can take; none of
        ``records`` is then sent. Raises `ClusterChanged` where the producer was bound to another cluster.
        Calls for one partition are taken one after the other; those for different partitions may overlap.
        """
        ...

    async def close(self) -> None:
        """Give up within two seconds, whatever is unsent."""
        ...


class Assignment(NamedTuple):
    """Partitions a group member got, the group's generation at that moment, and the cluster it is in."""

    partitions: frozenset[int]
    generation: int
    cluster: str = ""


class GroupConsumer(Protocol):
    """One member of a consumer group on one topic, with offsets kept elsewhere (by us)."""

    async def start(
        self,
        on_revoked: Callable[[frozenset[int]], Awaitable[None]],
        on_assigned: Callable[[Assignment], Awaitable[Mapping[int, int]]],
    ) -> None:
        """Join. ``on_assigned`` answers the offset to read next for each partition; ``on_revoked`` is
        awaited before partitions are given up. Neither is called concurrently with the other.

        A partition left out of the answer stays paused until `seek` and `resume`. An offset that does not
        exist any more is read from the earliest one that does. What a callback raises, `poll` raises.
        Both may be called from another task while `poll` or processing is under way. May be called
        again after `close`, which joins anew. Raises `Transient` where the topic is not there yet or the
        broker is away."""
        ...

    async def poll(self, max_records: int, timeout: float) -> Mapping[int, Sequence[Message]]:
        """What has arrived, per partition in offset order; empty after ``timeout`` seconds.

        At most ``max_records`` of each partition. While the broker is away it is silent, or raises
        `Transient`. Raises `ClusterChanged` as said above.
        """
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Read ``partition`` from ``offset`` next (after an error; dropped where no longer assigned)."""
        ...

    def pause(self, partitions: frozenset[int]) -> None:
        """Return nothing of ``partitions`` until `resume`; unassigned ones are passed over."""
        ...

    def resume(self, partitions: frozenset[int]) -> None:
        """Take the pause back."""
        ...

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell the group how far we are: for display only, never raises."""
        ...

    async def close(self) -> None:
        """Leave the group, within two seconds; ``on_revoked`` is awaited first where something is held."""
        ...


class TopicReader(Protocol):
    """Reads whole partitions without a group: for views and progress."""

    async def start(self, offsets: Mapping[int, int]) -> None:
        """Begin at the given next offsets; partitions not named begin at the start of the log. Where an
        offset no longer exists, reading begins at the earliest one that does. May be called again after
        `close`. Raises `Transient` where the topic is not there yet or the broker is away."""
        ...

    async def poll(self, max_records: int, timeout: float) -> Mapping[int, Sequence[Message]]:
        """As `GroupConsumer.poll`."""
        ...

    def hurry(self, hurried: bool) -> None:
        """Say whether somebody waits for what comes next: a broker that has to be asked again and again is
        then asked more often."""
        ...

    async def close(self) -> None:
        """Stop reading, within two seconds."""
        ...


class Bus(Protocol):
    """A broker, seen from one process. Makes the parts above; holds no global state."""

    async def cluster_id(self) -> str:
        """Identity of the cluster: when it changes, offsets mean nothing any more."""
        ...

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        """Create what is missing; never changes what exists."""
        ...

    async def describe(self, names: Sequence[str]) -> Mapping[str, TopicState]:
        """Those of the topics ``names`` that are there."""
        ...

    async def configure(self, name: str, config: Mapping[str, str]) -> None:
        """Change these settings of a topic, leave its others; `Transient` where the broker refuses."""
        ...

    def producer(self, cluster: str | None = None) -> Producer:
        """A producer bound to ``cluster``; without it, one that sends to whatever the address leads to."""
        ...

    def consumer(self, topic: str, group: str, cluster: str | None = None) -> GroupConsumer:
        """A member of ``group``, bound to ``cluster`` or else to the one found at `start`."""
        ...

    def reader(self, topic: str, cluster: str | None = None) -> TopicReader:
        """A reader bound to ``cluster`` or else to the one found at `start`. Whoever holds offsets of a
        cluster names it, so that they are never used on another."""
        ...

    async def close(self) -> None:
        """Close every part made here, within two seconds."""
        ...
