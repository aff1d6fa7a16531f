"""Topics are there on every cluster that is met."""

from __future__ import annotations

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Record, TopicSpec
from libs.common.bus.topic_keeper import TopicKeeper
from libs.common.contracts.topics import CATALOGUE, CUSTOMER_EVENTS, TOPICS
from libs.common.errors import Misconfigured, Transient


async def can_send(bus: MemoryBus) -> bool:
    try:
        await bus.producer().send(CUSTOMER_EVENTS, 0, [Record(b"k", b"v")])
    except Transient:
        return False
    return True


async def test_topics_are_made_and_made_again_on_another_cluster() -> None:
    bus = MemoryBus()
    keeper = TopicKeeper(bus, TOPICS)
    assert not await can_send(bus)
    assert await keeper.look()
    assert await can_send(bus)
    bus.replace_cluster("memory-2")
    assert not await can_send(bus)
    assert await keeper.look()
    assert await can_send(bus)


async def test_broker_that_is_away_is_looked_for_again() -> None:
    bus = MemoryBus()
    keeper = TopicKeeper(bus, TOPICS)
    bus.go_away()
    assert not await keeper.look()
    bus.come_back()
    assert await keeper.look()
    assert await can_send(bus)


async def test_wrong_number_of_partitions_is_refused_by_name() -> None:
    bus = MemoryBus()
    await bus.ensure_topics([TopicSpec(CUSTOMER_EVENTS, 6, {})])
    with pytest.raises(Misconfigured, match="topic customer-events has 6 partitions, it must have 12"):
        await TopicKeeper(bus, TOPICS).look()


async def test_settings_are_mended_and_others_left_alone() -> None:
    bus = MemoryBus()
    by_hand = {"cleanup.policy": "delete", "retention.ms": "5", "delete.retention.ms": "86400000"}
    await bus.ensure_topics([TopicSpec(CATALOGUE, 1, by_hand)])
    assert await TopicKeeper(bus, TOPICS).look()
    config = (await bus.describe([CATALOGUE]))[CATALOGUE].config
    assert (config["cleanup.policy"], config["retention.ms"]) == ("compact", "5")
    assert config["delete.retention.ms"] == str(30 * 86_400_000)


async def test_replicas_that_cost_safety_are_told(caplog: pytest.LogCaptureFixture) -> None:
    bus = MemoryBus()
    await bus.ensure_topics([TopicSpec(CATALOGUE, 1, {"min.insync.replicas": "2"})])
    assert await TopicKeeper(bus, TOPICS).look()
    assert "topic catalogue takes nothing: min.insync.replicas is 2 of 1" in caplog.text


async def test_topic_that_was_deleted_is_made_again() -> None:
    bus = MemoryBus()
    keeper = TopicKeeper(bus, TOPICS)
    assert await keeper.look()
    del bus._broker.cluster.topics[CUSTOMER_EVENTS]
    for _ in range(20):
        assert await keeper.look()
    assert await can_send(bus)
