"""The Kafka bus itself: makes clients, topics, producers, consumers and readers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code
from aiokafka.protocol.admin import CreateTopicsRequest

from libs.common.bus.kafka import topics as topic_admin
from libs.common.bus.kafka.client import BROKEN, BoundClient, leaders
from libs.common.bus.kafka.producer import KafkaProducer
from libs.common.bus.kafka.reading import KafkaGroupConsumer, KafkaTopicReader
from libs.common.bus.ports import GroupConsumer, Producer, TopicReader, TopicSpec, TopicState
from libs.common.errors import Transient

_T = TypeVar("_T")
_Part = KafkaProducer | KafkaGroupConsumer | KafkaTopicReader
_P = TypeVar("_P", KafkaProducer, KafkaGroupConsumer, KafkaTopicReader)
_CLOSE_SECONDS = 2.0
_RETRY_BACKOFF_MS = 100


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
    replication:
        Replicas of the topics that `ensure_topics` makes.
    """

    def __init__(
        self, bootstrap: str, *, client_id: str = "closedloop", timeout: float = 5.0, replication: int = 1
    ) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._timeout = timeout
        self._replication = replication
        self._admin: BoundClient | None = None
        self._admin_turn = asyncio.Lock()
        self._parts: set[_Part] = set()

    async def cluster_id(self) -> str:
        """See `ports.Bus.cluster_id`; costs one small request over a connection that is kept."""

        async def ask(client: BoundClient) -> str:
            # A request that is answered shows that the connection still leads where it led.
            await client.fetch_all_metadata()
            return client.cluster_id

        return await self._as_admin(ask)

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        """See `ports.Bus.ensure_topics`; returns when each partition has a leader."""

        async def create(client: BoundClient) -> None:
            wanted: list[tuple[Any, ...]] = [
                (topic.name, topic.partitions, self._replication, [], list(topic.config.items()))
                for topic in topics
            ]
            wait = int(self._timeout * 1000)
            answer = await client.send(client.get_random_node(), CreateTopicsRequest(wanted, wait, False))
            for name, code, *_ in answer.topic_errors:
                error = for_code(code)
                if error not in (NoError, TopicAlreadyExistsError):
                    raise Transient(f"cannot make topic {name}: {error.__name__}")
            for topic in topics:
                await _wait_for_leaders(client, topic.name)

        await self._as_admin(create)

    async def describe(self, names: Sequence[str]) -> Mapping[str, TopicState]:
        """See `ports.Bus.describe`."""
        return await self._as_admin(lambda client: topic_admin.describe(client, names))

    async def configure(self, name: str, config: Mapping[str, str]) -> None:
        """See `ports.Bus.configure`."""
        await self._as_admin(lambda client: topic_admin.configure(client, name, config))

    def producer(self, cluster: str | None = None) -> Producer:
        """See `ports.Bus.producer`."""
        return self._made(KafkaProducer(lambda: self._connect(cluster, None, cluster is None), self._timeout))

    def consumer(self, topic: str, group: str, cluster: str | None = None) -> GroupConsumer:
        """See `ports.Bus.consumer`."""
        return self._made(KafkaGroupConsumer(self._connect, topic, group, cluster, self._timeout))

    def reader(self, topic: str, cluster: str | None = None) -> TopicReader:
        """See `ports.Bus.reader`."""
        return self._made(KafkaTopicReader(self._connect, topic, cluster, self._timeout))

    async def close(self) -> None:
        """See `ports.Bus.close`."""
        parts = list(self._parts)
        admin, self._admin = self._admin, None
        closing = [asyncio.ensure_future(part.close()) for part in parts]
        if admin is not None:
            closing.append(asyncio.ensure_future(admin.abort()))
        if closing:
            _, late = await asyncio.wait(closing, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()

    def _made(self, part: _P) -> _P:
        self._parts.add(part)
        part.on_use = lambda used: self._parts.add(part) if used else self._parts.discard(part)
        return part

    def _connect(
        self, cluster: str | None, request_timeout_ms: int | None = None, follow: bool = False
    ) -> BoundClient:
        return BoundClient(
            cluster=cluster,
            follow=follow,
            probe_seconds=self._timeout,
            bootstrap_servers=self._bootstrap.split(","),
            client_id=self._client_id,
            request_timeout_ms=request_timeout_ms or int(self._timeout * 1000),
            retry_backoff_ms=_RETRY_BACKOFF_MS,
        )

    async def _as_admin(self, work: Callable[[BoundClient], Awaitable[_T]]) -> _T:
        async with self._admin_turn:
            client = self._admin
            try:
                async with asyncio.timeout(self._timeout):
                    if client is None:
                        client = self._connect(None, None, True)
                        await client.bootstrap()
                    done = await work(client)
            except (*BROKEN, Transient) as error:
                self._admin = None
                if client is not None:
                    await client.abort()
                raise Transient(f"broker at {self._bootstrap} does not answer: {error!r}") from error
            except BaseException:
                if client is not None and client is not self._admin:
                    await client.abort()
                raise
            self._admin = client
            return done


async def _wait_for_leaders(client: BoundClient, topic: str) -> None:
    """Wait until every partition of ``topic``, which exists, can be written to; the caller bounds it."""
    while True:
        try:
            led = await leaders(client, topic)
        except Transient:
            led = {}
        if led and len(led) == len(client.cluster.partitions_for_topic(topic)):
            return
        await asyncio.sleep(_RETRY_BACKOFF_MS / 1000)
        await client.force_metadata_update()


async def cluster_at(bootstrap: str, timeout: float = 1.0) -> str:
    """The cluster id of whoever answers at ``bootstrap``; `Transient` where nobody does."""
    bus = KafkaBus(bootstrap, timeout=timeout)
    try:
        return await bus.cluster_id()
    finally:
        await bus.close()
