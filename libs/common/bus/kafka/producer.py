"""Sending: whole batches, one at a time per partition, and nothing retried behind our back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from aiokafka.errors import (
    KafkaConnectionError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from libs.common.bus.kafka.client import BROKEN, BoundClient, leaders
from libs.common.bus.ports import MAX_RECORD_BYTES, Record
from libs.common.errors import Invalid, Transient

_ZSTD = 4
"""Number of this codec in the record format; both brokers take it."""

_ALL_REPLICAS = -1
_UNKNOWN = -1
"""Error code of what went wrong without a word about it."""

_BROKERS_SHARE = 0.8
"""How much of our patience a broker may use up: so it names the partition that waits and answers the rest."""

_RETRY_SECONDS = 0.05
_NOT_HERE = (LeaderNotAvailableError, NotLeaderForPartitionError, UnknownTopicOrPartitionError)
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class _Batch(NamedTuple):
    """An encoded batch on its way; ``answer`` becomes error code and first offset."""

    topic: str
    partition: int
    body: bytes
    answer: asyncio.Future[tuple[int, int]]


class KafkaProducer:
    """Implements `ports.Producer`.

    What is sent to one broker within a round of the event loop goes in one request: a request costs both
    sides as much as some forty records.

    Speaks the protocol's produce request itself instead of using `AIOKafkaProducer`: that one resends on
    its own, so what it still holds may arrive after we gave up, and its `stop` waits for ever when the
    broker is away. It is not idempotent in Kafka's sense: what is sent again after an error goes by
    sequence number or revision, which also holds across processes and where the broker offers nothing.

    Parameters
    ----------
    connect:
        Makes a client, not yet started.
    timeout:
        Seconds one batch may take from connecting to acknowledgement.
    """

    def __init__(self, connect: Callable[[], BoundClient], timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self._client: BoundClient | None = None
        self._connecting = asyncio.Lock()
        self._lines: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closed = False
        self._joined: dict[tuple[BoundClient, int], list[_Batch]] = {}
        self._flying: set[asyncio.Task[None]] = set()
        self.on_use: Callable[[bool], None] = lambda used: None

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """See `ports.Producer.send`."""
        if not records:
            raise ValueError("nothing to send")
        # Encoded before the first is sent, so that a record too large stops all of them.
        batches = list(encode(records))
        async with self._lines[topic, partition]:
            for batch in batches:
                last = await self._produce(topic, partition, *batch)
        return last

    async def close(self) -> None:
        """See `ports.Producer.close`."""
        self._closed = True
        self.on_use(False)
        await self._discard(self._client)

    async def _produce(self, topic: str, partition: int, batch: bytes, count: int) -> int:
        client: BoundClient | None = None
        try:
            async with asyncio.timeout(self._timeout):
                client = await self._ready()
                code, first = await self._request(client, topic, partition, batch)
                while for_code(code) in _NOT_HERE:
                    # Not appended, for certain: so it may be sent again. Happens while a topic is made.
                    await asyncio.sleep(_RETRY_SECONDS)
                    await client.force_metadata_update()
                    code, first = await self._request(client, topic, partition, batch)
        except (*BROKEN, Transient) as failure:
            await self._discard(client)
            if client is not None:
                client.check()
            raise Transient(f"cannot send to {topic}/{partition}: {failure!r}") from failure
        except asyncio.CancelledError:
            # Trap: the request may be on its way; only a closed connection keeps it off later ones' heels.
            await self._discard(client)
            raise
        if for_code(code) in _TOO_LARGE:
            raise Invalid("too_large", f"the broker refuses a batch of {len(batch)} bytes for {topic}")
        if code != 0:
            await self._discard(client)
            raise Transient(f"{topic}/{partition} refused: {for_code(code).__name__}")
        return first + count - 1

    async def _request(
        self, client: BoundClient, topic: str, partition: int, batch: bytes
    ) -> tuple[int, int]:
        """Send one batch to the partition's leader; error code and first offset."""
        leader = (await leaders(client, topic)).get(partition)
        if leader is None:
            raise Transient(f"{topic}/{partition} has no leader")
        answer: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        joined = self._joined.setdefault((client, leader), [])
        if not joined:
            asyncio.get_running_loop().call_soon(self._launch, client, leader)
        joined.append(_Batch(topic, partition, batch, answer))
        return await answer

    def _launch(self, client: BoundClient, leader: int) -> None:
        batches = self._joined.pop((client, leader))
        task = asyncio.create_task(self._fly(client, leader, batches))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _fly(self, client: BoundClient, leader: int, batches: Sequence[_Batch]) -> None:
        """Send ``batches`` in one request, and tell each what became of it."""
        topics: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for batch in batches:
            topics[batch.topic].append((batch.partition, batch.body))
        wait = int(self._timeout * _BROKERS_SHARE * 1000)
        try:
            answer = await client.send(
                leader, ProduceRequest(None, _ALL_REPLICAS, wait, list(topics.items()))
            )
            found = {
                (topic, partition): (int(code), int(first))
                for topic, partitions in answer.topics
                for partition, code, first, *_ in partitions
            }
            for batch in batches:
                if not batch.answer.done():
                    batch.answer.set_result(found.get((batch.topic, batch.partition), (_UNKNOWN, -1)))
        except BaseException as error:
            # Trap: also where this task is cancelled, or those who wait would wait until their timeout.
            failure = error if isinstance(error, Exception) else KafkaConnectionError("given up")
            for batch in batches:
                if not batch.answer.done():
                    batch.answer.set_exception(failure)
            if failure is not error:
                raise

    async def _ready(self) -> BoundClient:
        async with self._connecting:
            if self._closed:
                raise Transient("the producer is closed")
            if self._client is None:
                client = self._connect()
                try:
                    await client.bootstrap()
                except BaseException:
                    await client.abort()
                    raise
                self._client = client
            return self._client

    async def _discard(self, client: BoundClient | None) -> None:
        if client is None:
            return
        if self._client is client:
            self._client = None
        await client.abort()


def encode(records: Sequence[Record]) -> Iterator[tuple[bytes, int]]:
    """``records`` as batches of format 2, compressed by zstd, each with its number of records.

    Raises `Invalid` (``too_large``) for a record that fits in no batch.
    """
    builder = _builder()
    count = 0
    for record in records:
        headers = list(record.headers)
        if count and builder.append(count, None, record.key, record.value, headers) is None:
            yield bytes(builder.build()), count
            builder, count = _builder(), 0
        if not count:
            # One that is too large goes into no batch that holds others, so it is enough to look here.
            if record.size > MAX_RECORD_BYTES:
                raise Invalid(
                    "too_large", f"a record of {record.size} bytes, {MAX_RECORD_BYTES} are possible"
                )
            builder.append(count, None, record.key, record.value, headers)
        count += 1
    yield bytes(builder.build()), count


def _builder() -> DefaultRecordBatchBuilder:
    return DefaultRecordBatchBuilder(
        magic=2,
        compression_type=_ZSTD,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=MAX_RECORD_BYTES,
    )
