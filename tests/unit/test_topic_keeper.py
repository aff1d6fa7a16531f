"""Topics are there on every cluster that is met."""

from __future__ import annotations

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Record
from libs.common.bus.topic_keeper import TopicKeeper
from libs.common.contracts.topics import CUSTOMER_EVENTS, TOPICS
from libs.common.errors import Transient


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
