"""Topics as they are: told, mended, refused; and logs that are made anew under a reader."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from deploy.local.broker import ApacheBroker
from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Record, TopicSpec
from libs.common.bus.topic_keeper import TopicKeeper
from libs.common.errors import Misconfigured

pytestmark = [pytest.mark.apache, pytest.mark.timeout(120)]


async def _read(reader: Any, last: int) -> list[int]:
    """Offsets that arrive until ``last`` does."""
    offsets: list[int] = []
    async with asyncio.timeout(40):
        while not offsets or offsets[-1] != last:
            for messages in (await reader.poll(100, 0.5)).values():
                offsets += [message.offset for message in messages]
    return offsets


async def test_topic_is_described_mended_and_refused_for_its_partitions(
    apache_broker: ApacheBroker, caplog: pytest.LogCaptureFixture
) -> None:
    bus = KafkaBus(apache_broker.address)
    try:
        made = TopicSpec("by-hand", 3, {"cleanup.policy": "delete", "segment.bytes": "2000000"})
        await bus.ensure_topics([made])
        state = (await bus.describe(["by-hand", "not-there"]))["by-hand"]
        assert (state.partitions, state.replicas) == (3, 1)
        assert (state.config["cleanup.policy"], state.config["min.insync.replicas"]) == ("delete", "1")
        with caplog.at_level(logging.WARNING):
            await TopicKeeper(bus, [TopicSpec("by-hand", 3, {"cleanup.policy": "compact"})]).look()
        assert "topic by-hand was not as it must be" in caplog.text
        config = (await bus.describe(["by-hand"]))["by-hand"].config
        assert (config["cleanup.policy"], config["segment.bytes"]) == ("compact", "2000000")
        with pytest.raises(Misconfigured, match="has 3 partitions, it must have 12"):
            await TopicKeeper(bus, [TopicSpec("by-hand", 12, {})]).look()
    finally:
        await bus.close()


async def test_reader_hears_of_a_log_made_anew_by_its_low_offsets_and_of_retention_by_a_gap(
    apache_broker: ApacheBroker,
) -> None:
    spec = TopicSpec("anew", 1, {})
    bus = KafkaBus(apache_broker.address)
    admin = AIOKafkaAdminClient(bootstrap_servers=apache_broker.address)
    await admin.start()
    reader = bus.reader("anew")
    try:
        await bus.ensure_topics([spec])
        producer = bus.producer()
        for _ in range(20):
            last = await producer.send("anew", 0, [Record(b"k", b"old")])
        await reader.start({})
        assert (await _read(reader, last))[-1] == 19
        await reader.close()
        await admin.delete_records({TopicPartition("anew", 0): RecordsToDelete(before_offset=15)})
        await reader.start({0: 3})
        assert await _read(reader, 19) == [15, 16, 17, 18, 19]
        await admin.delete_topics(["anew"])
        async with asyncio.timeout(30):
            while "anew" in await admin.list_topics():
                await asyncio.sleep(0.1)
            # The keeper of a service makes it again.
            while "anew" not in await admin.list_topics():
                await TopicKeeper(bus, [spec]).look()
                await asyncio.sleep(0.5)
        assert await bus.producer().send("anew", 0, [Record(b"k", b"new")]) == 0
        assert await _read(reader, 0) == [0]
    finally:
        await reader.close()
        await admin.close()
        await bus.close()
