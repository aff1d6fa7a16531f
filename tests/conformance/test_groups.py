"""Group members share partitions out, begin at our offsets, and hand over without loss or repetition."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping

import pytest

from libs.common.bus.ports import Assignment, Bus, ClusterChanged, GroupConsumer, Record
from libs.common.errors import Fenced

PATIENCE = 20.0
ALL = frozenset(range(4))


def numbered(count: int, start: int = 0) -> list[Record]:
    return [Record(b"k", b"%d" % number) for number in range(start, start + count)]


class Ledger:
    """Offsets and values as a database would hold them, shared by the members of a group."""

    def __init__(self, offsets: Mapping[int, int] | None = None) -> None:
        self.offsets = dict.fromkeys(ALL, 0) | dict(offsets or {})
        self.seen: dict[int, list[int]] = {}

    @property
    def count(self) -> int:
        return sum(map(len, self.seen.values()))


class Member:
    """Polls for ever and writes into the ledger."""

    def __init__(self, consumer: GroupConsumer, ledger: Ledger) -> None:
        self.consumer = consumer
        self.ledger = ledger
        self.held: frozenset[int] = frozenset()
        self.assignments: list[Assignment] = []
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> Member:
        await self.consumer.start(self.revoked, self.assigned)
        self.task = asyncio.create_task(self.run())
        return self

    async def revoked(self, partitions: frozenset[int]) -> None:
        assert partitions == self.held
        self.held = frozenset()

    async def assigned(self, assignment: Assignment) -> Mapping[int, int]:
        self.held = assignment.partitions
        self.assignments.append(assignment)
        return {partition: self.ledger.offsets[partition] for partition in assignment.partitions}

    async def run(self) -> None:
        while True:
            for partition, messages in (await self.consumer.poll(50, 0.2)).items():
                assert partition in self.held
                for message in messages:
                    assert message.offset == self.ledger.offsets[partition]
                    self.ledger.seen.setdefault(partition, []).append(int(message.value or b"-1"))
                    self.ledger.offsets[partition] = message.offset + 1

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        _, late = await asyncio.wait([self.task], timeout=PATIENCE)
        assert not late, "a cancellation was lost"
        if not self.task.cancelled():
            self.task.result()
        await self.consumer.close()


@pytest.fixture
def group() -> str:
    return f"g-{uuid.uuid4().hex[:12]}"


async def until(done: object, seconds: float = PATIENCE) -> None:
    """Wait until ``done()`` is true."""
    assert callable(done)
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.02)


async def poll_until_it_raises(consumer: GroupConsumer) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            assert await consumer.poll(10, 0.2) == {}


async def fill(bus: Bus, topic: str, count: int, start: int = 0) -> None:
    producer = bus.producer()
    await asyncio.gather(*(producer.send(topic, partition, numbered(count, start)) for partition in ALL))


async def test_a_lone_member_gets_all_partitions_and_reads_from_our_offsets(
    bus: Bus, topic: str, group: str
) -> None:
    await fill(bus, topic, 10)
    ledger = Ledger({0: 3, 2: 10})
    member = await Member(bus.consumer(topic, group), ledger).start()
    await until(lambda: ledger.count >= 27)
    assert ledger.seen == {0: list(range(3, 10)), 1: list(range(10)), 3: list(range(10))}
    [assignment] = member.assignments
    assert assignment.partitions == ALL
    assert assignment.cluster == await bus.cluster_id()
    assert assignment.generation >= 0
    await member.stop()


async def test_our_offsets_hold_even_where_the_group_has_committed_others(
    bus: Bus, topic: str, group: str
) -> None:
    await fill(bus, topic, 10)
    ledger = Ledger()
    member = await Member(bus.consumer(topic, group), ledger).start()
    await until(lambda: ledger.count >= 40)
    await member.consumer.commit(dict.fromkeys(ALL, 10))
    await member.stop()
    again = Ledger({1: 8})
    member = await Member(bus.consumer(topic, group), again).start()
    await until(lambda: again.count >= 32)
    assert again.seen == {0: list(range(10)), 1: [8, 9], 2: list(range(10)), 3: list(range(10))}
    await member.stop()


async def test_seek_delivers_again_and_pause_holds_back(bus: Bus, topic: str, group: str) -> None:
    await fill(bus, topic, 5)
    consumer = bus.consumer(topic, group)
    held = asyncio.Event()

    async def assigned(assignment: Assignment) -> Mapping[int, int]:
        held.set()
        return {1: 0}

    async def revoked(partitions: frozenset[int]) -> None: ...

    async def take(count: int) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        while sum(map(len, found.values())) < count:
            for partition, messages in (await asyncio.wait_for(consumer.poll(100, 0.5), 5)).items():
                found.setdefault(partition, []).extend(m.offset for m in messages)
        return found

    await consumer.start(revoked, assigned)
    async with asyncio.timeout(PATIENCE):
        # Left out of the answer: silent until told where to begin.
        assert await take(5) == {1: [0, 1, 2, 3, 4]}
        assert held.is_set()
        consumer.seek(1, 2)
        assert await take(3) == {1: [2, 3, 4]}
        consumer.pause(frozenset({1}))
        consumer.seek(1, 0)
        consumer.seek(3, 1)
        consumer.resume(frozenset({3}))
        assert await take(4) == {3: [1, 2, 3, 4]}
        assert await consumer.poll(100, 0.4) == {}
        consumer.resume(frozenset({1}))
        assert await take(5) == {1: [0, 1, 2, 3, 4]}
        # Not ours, and no topic has so many: passed over.
        consumer.seek(99, 1)
        consumer.pause(frozenset({99}))
        consumer.resume(frozenset({99}))
    await consumer.close()


async def test_two_members_hand_over_without_loss_or_repetition(bus: Bus, topic: str, group: str) -> None:
    ledger = Ledger()
    first = await Member(bus.consumer(topic, group), ledger).start()
    await fill(bus, topic, 200)
    await until(lambda: ledger.count >= 100)
    second = await Member(bus.consumer(topic, group), ledger).start()
    await until(lambda: len(first.held) == 2 and len(second.held) == 2)
    assert first.held | second.held == ALL
    await fill(bus, topic, 200, 200)
    await until(lambda: ledger.count >= 1_600)
    alone = first.assignments[-1].generation
    await first.stop()
    await fill(bus, topic, 100, 400)
    await until(lambda: ledger.count >= 2_000)
    assert second.held == ALL
    assert ledger.seen == {partition: list(range(500)) for partition in ALL}
    generations = [assignment.generation for assignment in second.assignments]
    assert generations == sorted(set(generations))
    assert generations[-1] > alone
    await second.stop()


async def test_slices_in_hand_are_finished_before_partitions_change_hands(
    bus: Bus, topic: str, group: str
) -> None:
    await fill(bus, topic, 5)
    finished = asyncio.Event()
    order: list[str] = []

    async def slow(partitions: frozenset[int]) -> None:
        order.append("asked")
        await finished.wait()
        order.append("released")

    async def first_assigned(assignment: Assignment) -> Mapping[int, int]:
        order.append(f"first {len(assignment.partitions)}")
        return dict.fromkeys(assignment.partitions, 0)

    async def second_assigned(assignment: Assignment) -> Mapping[int, int]:
        order.append(f"second {len(assignment.partitions)}")
        return dict.fromkeys(assignment.partitions, 0)

    first, second = bus.consumer(topic, group), bus.consumer(topic, group)
    await first.start(slow, first_assigned)
    await until(lambda: order == ["first 4"])
    joining = asyncio.create_task(second.start(slow, second_assigned))
    await until(lambda: order == ["first 4", "asked"])
    assert await first.poll(10, 0.3) == {}, "partitions about to be given up deliver nothing"
    assert order == ["first 4", "asked"]
    finished.set()
    await until(lambda: len(order) == 5)
    assert order[2] == "released"
    assert sorted(order[3:]) == ["first 2", "second 2"]
    await joining
    await second.close()
    await first.close()


async def test_what_a_callback_raises_reaches_the_poll(bus: Bus, topic: str, group: str) -> None:
    async def assigned(assignment: Assignment) -> Mapping[int, int]:
        raise Fenced("somebody newer is there")

    async def revoked(partitions: frozenset[int]) -> None: ...

    consumer = bus.consumer(topic, group)
    await consumer.start(revoked, assigned)
    with pytest.raises(Fenced, match="newer"):
        await poll_until_it_raises(consumer)
    await consumer.close()


async def test_closing_gives_up_what_is_held_and_the_member_can_join_again(
    bus: Bus, topic: str, group: str
) -> None:
    ledger = Ledger()
    member = await Member(bus.consumer(topic, group), ledger).start()
    await until(lambda: member.held == ALL)
    await member.stop()
    assert member.held == frozenset()
    await member.consumer.close()
    await member.start()
    await until(lambda: member.held == ALL)
    await member.stop()


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_is_heard_however_soon_after_an_assignment(
    bus: Bus, topic: str, group: str, turns: int
) -> None:
    loop = asyncio.get_running_loop()

    def cancel_after(member: Member, turns: int) -> None:
        assert member.task is not None
        if turns:
            loop.call_soon(cancel_after, member, turns - 1)
        else:
            member.task.cancel()

    class Hasty(Member):
        async def assigned(self, assignment: Assignment) -> Mapping[int, int]:
            loop.call_soon(cancel_after, self, turns)
            return await super().assigned(assignment)

    member = await Hasty(bus.consumer(topic, group), Ledger()).start()
    assert member.task is not None
    _, late = await asyncio.wait([member.task], timeout=PATIENCE / 2)
    assert not late, "still polling"
    await member.stop()


async def test_a_member_bound_to_another_cluster_gets_nothing(bus: Bus, topic: str, group: str) -> None:
    member = Member(bus.consumer(topic, group, cluster="another"), Ledger())
    with pytest.raises(ClusterChanged):
        await member.consumer.start(member.revoked, member.assigned)
    assert member.assignments == []
