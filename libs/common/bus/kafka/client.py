"""A client of aiokafka that is bound to one cluster and never makes topics by asking for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import weakref
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import CloseReason, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import TopicPartition

from libs.common.bus.ports import ClusterChanged
from libs.common.errors import Transient

_log = logging.getLogger(__name__)

BROKEN = (KafkaError, OSError, TimeoutError)
"""What aiokafka raises when the broker is away or unwell."""

_CLOSE_SECONDS = 0.5


class BoundClient(AIOKafkaClient):  # type: ignore[misc]
    """Asks each new connection for its cluster id before anything else may use it.

    Built on two inner methods of aiokafka (`_get_conn`, `_metadata_update`), the only places all
    requests pass; the lock file pins the version, the conformance suite notices when they change.

    Parameters
    ----------
    cluster:
        The only cluster to talk to; None takes the first one found and keeps to it.
    follow:
        Talk to whatever cluster there is.
    probe_seconds:
        How long a new connection may take to tell its cluster.
    """

    _sync_task: asyncio.Task[None] | None

    def __init__(
        self, *, cluster: str | None, follow: bool = False, probe_seconds: float = 5.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self._expected = cluster
        self._follow = follow
        self._probe_seconds = probe_seconds
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self.cluster_id = ""
        self._sync_task: asyncio.Task[None] | None = None
        self.changed: ClusterChanged | None = None
        self._aborted = False

    def check(self) -> None:
        """Raise `ClusterChanged` where the address led to another cluster."""
        if self.changed is not None:
            raise ClusterChanged(self.changed.expected, self.changed.found)

    async def bootstrap(self) -> None:
        """Connect, and learn at once which cluster this is; raises `ClusterChanged` where it is another."""
        for host, port, _ in self.hosts:
            try:
                await self._introduce(host, port)
                _say(host, port, True)
                break
            except BROKEN as error:
                _say(host, port, False, error)
        else:
            raise KafkaConnectionError(f"no broker at {self.hosts}")
        if self._sync_task is None:
            self._sync_task = asyncio.create_task(self._md_synchronizer())
        if await self._get_conn(self.get_random_node() or "bootstrap") is None:
            self.check()
            raise KafkaConnectionError(f"no answer from {self.hosts}")

    async def _introduce(self, host: str, port: int) -> None:
        # Trap: aiokafka's own bootstrap loses its connection, open, when it is cancelled here.
        connection = await create_conn(
            host, port, client_id=self._client_id, request_timeout_ms=self._request_timeout_ms
        )
        try:
            if not _stands(connection):
                raise KafkaConnectionError(f"{host}:{port} hung up")
            self.cluster.update_metadata(await connection.send(MetadataRequest([])))
        except BaseException:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise
        if self.cluster.brokers():
            connection.close()
        else:
            self._conns["bootstrap", ConnectionGroup.DEFAULT] = connection

    async def _get_conn(
        self, node_id: Any, *, group: Any = ConnectionGroup.DEFAULT, no_hint: bool = False
    ) -> Any:
        if self.changed is not None:
            return None
        connection = await super()._get_conn(node_id, group=group, no_hint=no_hint)
        if connection is None and (node := self.cluster.broker_metadata(node_id)) is not None:
            _say(node.host, node.port, False)
        if self._aborted and connection is not None:
            connection.close(reason=CloseReason.SHUTDOWN)
            return None
        if connection is None or not _stands(connection):
            return None
        if connection in self._known:
            return connection
        # Trap: a broker that came back at the same address may be another, empty one. Its offsets would
        # be taken for the old ones, so this connection must not carry one request before that is known.
        try:
            async with asyncio.timeout(self._probe_seconds):
                answer = await connection.send(MetadataRequest([]))
        except BROKEN:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            return None
        self._meet(answer.cluster_id or "")
        if self.changed is not None:
            connection.close(reason=CloseReason.SHUTDOWN)
            return None
        self._known.add(connection)
        _say(connection.host, connection.port, True)
        return connection if _stands(connection) else None

    def _meet(self, found: str) -> None:
        self.cluster_id = found
        if self._expected is None:
            self._expected = found
        elif self._expected != found and not self._follow:
            self.changed = ClusterChanged(self._expected, found)

    async def _metadata_update(self, cluster_metadata: Any, topics: Any) -> bool:
        # Trap: aiokafka asks with auto-creation on, and an empty broker would then make the topics of a
        # consumer that is still running, with as many partitions as it likes.
        request = MetadataRequest(list(topics or ()), allow_auto_topic_creation=False)
        nodes = [broker.nodeId for broker in self.cluster.brokers()]
        if ("bootstrap", ConnectionGroup.DEFAULT) in self._conns:
            nodes.append("bootstrap")
        random.shuffle(nodes)
        for node in nodes:
            connection = await self._get_conn(node)
            if connection is None:
                continue
            with contextlib.suppress(*BROKEN):
                metadata = await connection.send(request)
                if metadata.brokers:
                    cluster_metadata.update_metadata(metadata)
                    return True
        await asyncio.sleep(self._retry_backoff)
        return False

    async def abort(self) -> None:
        """Drop all connections without flushing; ends within a second even when the peer is stuck."""
        self._aborted = True
        for connection in self._conns.values():
            writer = connection._writer
            connection.close(reason=CloseReason.SHUTDOWN)
            if writer is not None:
                writer.transport.abort()
        # Trap: no timeout around it. It swallows a cancellation and then waits on.
        closing = asyncio.create_task(self.close())
        _, late = await asyncio.wait([closing], timeout=_CLOSE_SECONDS)
        if late:
            closing.cancel()
        elif not closing.cancelled():
            error = closing.exception()
            if error is not None and not isinstance(error, BROKEN):
                raise error


def _stands(connection: Any) -> bool:
    """Whether something can be written; closes it where the peer has hung up."""
    writer = connection._writer
    if writer is not None and not writer.transport.is_closing():
        return True
    # Trap: aiokafka hears of it a moment later. A write until then is no OSError on uvloop but a
    # RuntimeError, which nobody takes for a broker that is away: it would end the process.
    connection.close(reason=CloseReason.CONNECTION_BROKEN)
    return False


async def leaders(client: BoundClient, topic: str) -> dict[int, int]:
    """Leading node by partition of ``topic``, asked for where not known; `Transient` where there is none."""
    if client.cluster.partitions_for_topic(topic) is None:
        client.add_topic(topic)
        await client.force_metadata_update()
    partitions = client.cluster.partitions_for_topic(topic)
    client.check()
    if not partitions:
        raise Transient(f"topic {topic} is not there (yet)")
    found = {p: client.cluster.leader_for_partition(TopicPartition(topic, p)) for p in partitions}
    return {partition: leader for partition, leader in found.items() if leader not in (None, -1)}


def _say(host: str, port: int, answers: bool, error: BaseException | None = None) -> None:
    """Tell each time; only what is new gets into the log, see `libs.common.telemetry.News`."""
    more = {"broker": f"{host}:{port}", "answers": answers} | ({"error": repr(error)} if error else {})
    if answers:
        _log.info("the broker answers", extra=more)
    else:
        _log.warning("the broker does not answer", extra=more)
