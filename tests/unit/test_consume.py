"""The consume loop on the memory bus: what each kind of failure does to slices, partitions and membership."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from random import Random

import pytest

from libs.common.bus.consume import ConsumeLoop
from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Assignment, Message, Record, TopicSpec
from libs.common.bus.sender import Backoff, Sender
from libs.common.errors import Fenced, Invalid, Transient

TOPIC = "journal"
PARTITIONS = 3


class Store:
    """The database of a processor: offsets and what was done, changed together."""

    def __init__(self) -> None:
        self.offsets = dict.fromkeys(range(PARTITIONS), 0)
        self.done: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS)}

    @property
    def count(self) -> int:
        return sum(map(len, self.done.values()))


class Processor:
    """Does slices into the store; fails as it is told, once for each failure in line."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.claims: list[Assignment] = []
        self.released: list[frozenset[int]] = []
        self.claim_failures: list[Exception] = []
        self.failures: dict[int, list[Exception]] = {}
        self.gate: asyncio.Event | None = None
        self.at_once = 0
        self.most_at_once = 0
        self.busy: set[int] = set()
        self.longest = 0

    async def claim(self, assignment: Assignment) -> Mapping[int, int]:
        if self.claim_failures:
            raise self.claim_failures.pop(0)
        self.claims.append(assignment)
        return {partition: self.store.offsets[partition] for partition in assignment.partitions}

    async def release(self, partitions: frozenset[int]) -> None:
        assert not partitions & self.busy, "released while a slice is in hand"
        self.released.append(partitions)

    async def process(self, partition: int, messages: Sequence[Message]) -> None:
        assert partition not in self.busy
        self.busy.add(partition)
        self.most_at_once = max(self.most_at_once, len(self.busy))
        self.longest = max(self.longest, len(messages))
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            if self.failures.get(partition):
                raise self.failures[partition].pop(0)
            assert messages[0].offset == self.store.offsets[partition]
            self.store.done[partition] += [int(message.value or b"-1") for message in messages]
            self.store.offsets[partition] = messages[-1].offset + 1
        finally:
            self.busy.discard(partition)


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    bus = MemoryBus()
    await bus.ensure_topics([TopicSpec(TOPIC, PARTITIONS, {})])
    yield bus
    await bus.close()


async def fill(bus: MemoryBus, count: int, start: int = 0) -> None:
    records = [Record(b"k", b"%d" % number) for number in range(start, start + count)]
    for partition in range(PARTITIONS):
        await bus.producer().send(TOPIC, partition, records)


def loop_on(bus: MemoryBus, processor: Processor, **options: int) -> ConsumeLoop:
    return ConsumeLoop(
        bus.consumer(TOPIC, "group"),
        processor,
        random=Random(7),
        poll_timeout=0.01,
        first_backoff=0.001,
        most_backoff=0.01,
        **options,
    )


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0.001)


async def run_until(loop: ConsumeLoop, done: Callable[[], bool]) -> None:
    running = asyncio.create_task(loop.run())
    await until(lambda: done() or running.done())
    loop.stop()
    async with asyncio.timeout(5):
        await running


def everything(count: int) -> dict[int, list[int]]:
    return {partition: list(range(count)) for partition in range(PARTITIONS)}


async def test_slices_are_processed_in_order_and_no_longer_than_asked_for(bus: MemoryBus) -> None:
    await fill(bus, 95)
    store = Store()
    processor = Processor(store)
    await run_until(loop_on(bus, processor, max_records=10), lambda: store.count == 285)
    assert store.done == everything(95)
    assert processor.longest == 10
    assert processor.released == [frozenset(range(PARTITIONS))]


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancellation_that_comes_with_what_a_poll_waits_for_is_heard(
    bus: MemoryBus, turns: int
) -> None:
    async def claim(assignment: Assignment) -> Mapping[int, int]:
        return dict.fromkeys(assignment.partitions, 0)

    async def release(partitions: frozenset[int]) -> None: ...

    async def poll_for_ever() -> None:
        while True:
            await consumer.poll(10, 60)
            await asyncio.sleep(0)

    consumer = bus.consumer(TOPIC, "group")
    await consumer.start(release, claim)
    polling = asyncio.create_task(poll_for_ever())
    for _ in range(5):
        await asyncio.sleep(0)
    await bus.producer().send(TOPIC, 0, [Record(b"k", b"0")])
    for _ in range(turns):
        await asyncio.sleep(0)
    polling.cancel()
    _, late = await asyncio.wait([polling], timeout=2)
    assert not late


async def test_consuming_begins_where_the_store_says(bus: MemoryBus) -> None:
    await fill(bus, 10)
    store = Store()
    store.offsets = {0: 9, 1: 10, 2: 7}
    await run_until(loop_on(bus, Processor(store)), lambda: store.count == 4)
    assert store.done == {0: [9], 1: [], 2: [7, 8, 9]}


async def test_transient_brings_the_same_slice_again_and_holds_up_nobody_else(bus: MemoryBus) -> None:
    await fill(bus, 20)
    store = Store()
    processor = Processor(store)
    processor.failures[1] = [Transient("database away") for _ in range(5)]
    order: list[int] = []
    process = processor.process

    async def watched(partition: int, messages: Sequence[Message]) -> None:
        await process(partition, messages)
        order.append(partition)

    processor.process = watched  # type: ignore[method-assign]
    await run_until(loop_on(bus, processor), lambda: store.count == 60)
    assert store.done == everything(20)
    assert order[-1] == 1
    assert len(processor.claims) == 1, "nothing is given up for a transient failure"


async def test_fenced_gives_everything_up_and_claims_anew(bus: MemoryBus) -> None:
    await fill(bus, 20)
    store = Store()
    processor = Processor(store)
    processor.failures[2] = [Fenced("somebody newer")]
    await run_until(loop_on(bus, processor), lambda: store.count == 60)
    assert store.done == everything(20)
    assert len(processor.claims) == 2
    assert processor.claims[1].generation > processor.claims[0].generation
    assert processor.released == [frozenset(range(PARTITIONS))] * 2


async def test_anything_else_ends_the_loop_with_nothing_done(bus: MemoryBus) -> None:
    await fill(bus, 5)
    store = Store()
    processor = Processor(store)
    for partition in range(PARTITIONS):
        processor.failures[partition] = [ZeroDivisionError("a mistake of ours")]
    with pytest.raises(ZeroDivisionError):
        await run_until(loop_on(bus, processor), lambda: False)
    assert store.count == 0
    assert processor.released == [frozenset(range(PARTITIONS))]


async def test_a_mistake_outweighs_a_fence_in_the_same_round(bus: MemoryBus) -> None:
    await fill(bus, 5)
    processor = Processor(Store())
    processor.failures = {0: [Fenced("newer")], 1: [ZeroDivisionError()], 2: [Fenced("newer")]}
    with pytest.raises(ZeroDivisionError):
        await run_until(loop_on(bus, processor), lambda: False)


async def test_a_claim_that_fails_for_now_is_made_again_without_leaving_the_group(bus: MemoryBus) -> None:
    await fill(bus, 5)
    store = Store()
    processor = Processor(store)
    processor.claim_failures = [Transient("database away") for _ in range(3)]
    await run_until(loop_on(bus, processor), lambda: store.count == 15)
    assert store.done == everything(5)
    assert [claim.generation for claim in processor.claims] == [1]


async def test_a_fenced_claim_joins_anew(bus: MemoryBus) -> None:
    await fill(bus, 5)
    store = Store()
    processor = Processor(store)
    processor.claim_failures = [Fenced("newer"), Fenced("newer")]
    await run_until(loop_on(bus, processor), lambda: store.count == 15)
    assert [claim.generation for claim in processor.claims] == [3]


async def test_a_claim_that_breaks_ends_the_loop(bus: MemoryBus) -> None:
    processor = Processor(Store())
    processor.claim_failures = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        await run_until(loop_on(bus, processor), lambda: False)


@pytest.mark.parametrize("concurrency", [1, 2, 3])
async def test_so_many_partitions_are_processed_side_by_side(bus: MemoryBus, concurrency: int) -> None:
    await fill(bus, 30)
    store = Store()
    processor = Processor(store)
    loop = loop_on(bus, processor, concurrency=concurrency)
    await run_until(loop, lambda: store.count == 90)
    assert store.done == everything(30)
    assert processor.most_at_once == concurrency


async def test_stop_finishes_the_slice_in_hand(bus: MemoryBus) -> None:
    await fill(bus, 5)
    store = Store()
    processor = Processor(store)
    processor.gate = asyncio.Event()
    loop = loop_on(bus, processor)
    running = asyncio.create_task(loop.run())
    await until(lambda: bool(processor.busy))
    loop.stop()
    await asyncio.sleep(0.02)
    assert not running.done()
    processor.gate.set()
    async with asyncio.timeout(5):
        await running
    assert store.count >= 5
    assert loop.owned == frozenset()


async def test_two_loops_hand_over_with_slices_in_hand_and_do_each_record_once(bus: MemoryBus) -> None:
    store = Store()
    first, second = Processor(store), Processor(store)
    loops = [loop_on(bus, first, max_records=7), loop_on(bus, second, max_records=7)]
    await fill(bus, 200)
    running = [asyncio.create_task(loops[0].run())]
    await until(lambda: store.count > 50)
    first.gate = asyncio.Event()
    await until(lambda: bool(first.busy))
    running.append(asyncio.create_task(loops[1].run()))
    await asyncio.sleep(0.02)
    assert second.claims == [], "nothing is claimed while the first still has it in hand"
    first.gate.set()
    await until(lambda: store.count == 600)
    assert loops[0].owned | loops[1].owned == frozenset(range(PARTITIONS))
    assert loops[0].owned
    assert loops[1].owned
    loops[0].stop()
    await fill(bus, 100, 200)
    await until(lambda: store.count == 900)
    loops[1].stop()
    await asyncio.gather(*running)
    assert store.done == everything(300)


async def test_a_slice_polled_before_a_handover_is_not_processed_after_it(bus: MemoryBus) -> None:
    """With one slot, partition 1's slice waits while its partition goes away and comes back further on."""
    await fill(bus, 5)
    store = Store()
    processor = Processor(store)
    processor.gate = asyncio.Event()
    loop = loop_on(bus, processor, concurrency=1)
    running = asyncio.create_task(loop.run())
    await until(lambda: bool(processor.busy))
    other = bus.consumer(TOPIC, "group")
    taken: list[frozenset[int]] = []

    async def ignore(partitions: frozenset[int]) -> None: ...

    async def take(assignment: Assignment) -> Mapping[int, int]:
        taken.append(assignment.partitions)
        # What a member does before it leaves again: all of it.
        for partition in assignment.partitions:
            store.done[partition] = list(range(5))
            store.offsets[partition] = 5
        return {}

    joining = asyncio.create_task(other.start(ignore, take))
    await asyncio.sleep(0.01)
    processor.gate.set()
    await joining
    await other.close()
    await fill(bus, 5, 5)
    await until(lambda: store.count == 30)
    loop.stop()
    await running
    assert taken
    assert store.done == everything(10)


async def test_a_bus_that_is_away_is_waited_for(bus: MemoryBus) -> None:
    await fill(bus, 5)
    bus.go_away()
    store = Store()
    running = asyncio.create_task(run_until(loop_on(bus, Processor(store)), lambda: store.count == 15))
    await asyncio.sleep(0.03)
    assert store.count == 0
    bus.come_back()
    await running
    assert store.done == everything(5)


async def test_another_cluster_is_claimed_anew_under_its_name(bus: MemoryBus) -> None:
    await fill(bus, 5)
    store = Store()
    processor = Processor(store)
    loop = loop_on(bus, processor)
    running = asyncio.create_task(loop.run())
    await until(lambda: store.count == 15)
    store.offsets = dict.fromkeys(range(PARTITIONS), 0)
    bus.replace_cluster("memory-2")
    await bus.ensure_topics([TopicSpec(TOPIC, PARTITIONS, {})])
    await fill(bus, 5, 5)
    await until(lambda: store.count == 30)
    loop.stop()
    await running
    assert [claim.cluster for claim in processor.claims] == ["memory-1", "memory-2"]
    assert store.done == everything(10)


def test_backoff_doubles_within_its_bounds_and_begins_again() -> None:
    backoff = Backoff(Random(3), first=0.1, most=1.0)
    waits = [backoff.failed() for _ in range(8)]
    for wait, longest in zip(waits, (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0), strict=True):
        assert longest / 2 <= wait <= longest
    assert backoff.failures == 8
    backoff.succeeded()
    assert backoff.failed() <= 0.1
    assert waits != [Backoff(Random(4), 0.1, 1.0).failed() for _ in range(8)]


async def test_sender_sends_until_it_is_acknowledged(bus: MemoryBus) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:
            bus.come_back()

    bus.go_away()
    sender = Sender(bus.producer(), Random(1), sleep=sleep)
    assert await sender.send(TOPIC, 0, [Record(b"k", b"1"), Record(b"k", b"2")]) == 1
    assert len(waits) == 4
    assert [message.value for message in bus.records(TOPIC)] == [b"1", b"2"]
    with pytest.raises(Invalid):
        await sender.send(TOPIC, 0, [Record(b"k", bytes(1_000_001))])
    await sender.close()
