"""The bus on Kafka, by aiokafka: every await is bounded, and what is broken is thrown away and made anew."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.bus.ports import GroupConsumer, Producer, TopicReader, TopicSpec


class KafkaBus:
    """Implements `ports.Bus` on a Kafka cluster or the embedded broker.

    Parameters
    ----------
    bootstrap:
        ``host:port``, several separated by commas.
    client_id:
        Shown in the broker's logs and quotas.
    timeout:
        Most seconds any one request to the broker may take, connecting included.
    """

    def __init__(self, bootstrap: str, *, client_id: str = "closedloop", timeout: float = 5.0) -> None:
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
