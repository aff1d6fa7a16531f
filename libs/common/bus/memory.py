"""A bus within one process, for tests: partitions, orders, redelivers and rebalances as Kafka does."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.bus.ports import GroupConsumer, Message, Producer, TopicReader, TopicSpec
from libs.common.clock import Clock


class MemoryBus:
    """Implements `ports.Bus` on lists.

    Parameters
    ----------
    clock:
        Gives record timestamps (append time); without one they count 0, 1, 2, …
    cluster:
        The first cluster id.
    """

    def __init__(self, clock: Clock | None = None, cluster: str = "memory-1") -> None:
        raise NotImplementedError

    async def cluster_id(self) -> str:
        raise NotImplementedError

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        raise NotImplementedError

    def producer(self, cluster: str | None = None) -> Producer:
        raise NotImplementedError

    def consumer(self, topic: str, group: str, cluster: str | None = None) -> GroupConsumer:
        raise NotImplementedError

    def reader(self, topic: str, cluster: str | None = None) -> TopicReader:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    # What only tests do.

    def go_away(self) -> None:
        """Be unreachable: sends raise `Transient`, polls are silent, until `come_back`."""
        raise NotImplementedError

    def come_back(self) -> None:
        """Be reachable again, with all that was there."""
        raise NotImplementedError

    def replace_cluster(self, cluster: str) -> None:
        """Play the loss of the broker: all topics are gone, groups begin anew, the cluster id is ``cluster``."""
        raise NotImplementedError

    def records(self, topic: str, partition: int | None = None) -> list[Message]:
        """All that ``topic`` holds, by partition and offset."""
        raise NotImplementedError

    def expire(self, topic: str, partition: int, before: int) -> None:
        """Drop records below offset ``before``, as retention would."""
        raise NotImplementedError
