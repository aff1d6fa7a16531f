"""Shipping: each partition in order and without a gap, however the bus behaves, and again to another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.background import Background
from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Message, Producer, Record
from libs.common.clock import ManualClock
from libs.common.contracts.customer_event import SpoolReported, Tick, Touchpoint, decode_event
from libs.common.contracts.progress import Progress
from libs.common.contracts.topics import CUSTOMER_EVENTS, TOPICS
from libs.common.errors import Transient
from libs.common.journal import Durability, origin_of
from libs.common.progress import ProgressBoard
from libs.common.spool.journal import SpoolJournal
from libs.common.spool.lane import MAX_BYTES
from libs.common.spool.shipper import Shipper
from libs.common.spool.store import SpoolStore

NAME = "spool-00000000000000aa.sqlite"


class FlakyProducer:
    """Fails as told, before or after the records have arrived, the way brokers do."""

    def __init__(self, inner: Producer, fate: Callable[[], str]) -> None:
        self._inner = inner
        self._fate = fate

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        fate = self._fate()
        if fate == "lost":
            raise Transient("timeout")
        if fate == "half":
            await self._inner.send(topic, partition, records[: len(records) // 2] or records[:1])
            raise Transient("connection lost")
        offset = await self._inner.send(topic, partition, records)
        if fate == "unheard":
            raise Transient("no answer")
        await asyncio.sleep(0)
        return offset

    async def close(self) -> None:
        await self._inner.close()


class FlakyBus(MemoryBus):
    """A memory bus whose producers draw the fate of each batch."""

    def __init__(self, fate: Callable[[], str]) -> None:
        super().__init__()
        self._fate = fate

    def producer(self, cluster: str | None = None) -> Producer:
        return FlakyProducer(super().producer(cluster), self._fate)


def sequence(bus: MemoryBus, partition: int) -> list[int]:
    """Sequence numbers in the order of the log."""
    return [seq_of(message) for message in bus.records(CUSTOMER_EVENTS, partition)]


def seq_of(message: Message) -> int:
    origin = origin_of(message)
    assert origin is not None
    return origin.seq


def assert_no_gap(seqs: list[int], last: int) -> None:
    """Repetitions are allowed, but nothing ever comes before what it follows."""
    seen = 0
    for seq in seqs:
        assert seq <= seen + 1
        seen = max(seen, seq)
    assert seen == last


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def shipping(directory: Path, bus: MemoryBus) -> AsyncIterator[tuple[SpoolStore, Shipper]]:
    store = SpoolStore(directory / NAME, lambda: 0)
    shipper = Shipper(store, bus, Random(1), beat=0.001, watch=0.02)
    background = Background()
    store.start()
    shipper.start(background)
    try:
        yield store, shipper
    finally:
        await background.stop()
        await shipper.close()
        await store.stop()


async def topics(bus: MemoryBus) -> MemoryBus:
    await bus.ensure_topics(TOPICS)
    return bus


async def test_rows_arrive_in_order_with_their_origin(tmp_path: Path) -> None:
    bus = await topics(MemoryBus())
    async with shipping(tmp_path, bus) as (store, shipper):
        for number in range(20):
            await store.put([(number % 3, b"k%d" % number, b"v%d" % number)]).committed()
        assert await shipper.reached({0: 7, 1: 7, 2: 6}, 5)
        assert shipper.backlog() == 0
    assert sequence(bus, 0) == [1, 2, 3, 4, 5, 6, 7]
    first = bus.records(CUSTOMER_EVENTS, 0)[0]
    assert (first.key, first.value, first.header("schema")) == (b"k0", b"v0", b"customer-event/1")
    assert origin_of(first) == ("00000000000000aa", 1)


async def test_bus_that_is_away_is_waited_for_and_the_backlog_comes_from_disk(tmp_path: Path) -> None:
    bus = await topics(MemoryBus())
    value = bytes(10_000)
    count = 3 * MAX_BYTES // len(value)
    async with shipping(tmp_path, bus) as (store, shipper):
        bus.go_away()
        for number in range(count):
            pack = store.put([(number % 2, b"k", value), (5, b"t", b"")])
            if number % 20 == 0:
                await pack.committed()
        await store.pending().committed()
        assert not await shipper.reached({0: 1}, 0.01)
        bus.come_back()
        assert await shipper.reached(dict(enumerate(store.committed)), 10)
        await store.put([(0, b"k", b"last")]).committed()
        assert await shipper.reached({0: store.heads[0]}, 5)
    for partition in (0, 1, 5):
        assert_no_gap(sequence(bus, partition), store.heads[partition])


async def test_another_cluster_gets_all_that_is_not_applied(tmp_path: Path) -> None:
    bus = await topics(MemoryBus())
    async with shipping(tmp_path, bus) as (store, shipper):
        for _ in range(10):
            await store.put([(0, b"k", b"v"), (1, b"k", b"v")]).committed()
        assert await shipper.reached({0: 10, 1: 10}, 5)
        shipper.applied({0: 4})
        store.release({0: 4})
        bus.replace_cluster("memory-2")
        await topics(bus)
        await until(lambda: len(bus.records(CUSTOMER_EVENTS)) == 16)
        assert sequence(bus, 0) == [5, 6, 7, 8, 9, 10]
        assert sequence(bus, 1) == list(range(1, 11))
        await store.put([(0, b"k", b"v")]).committed()
        assert await shipper.reached({0: 11, 1: 10}, 5)


async def test_restart_ships_again_what_is_not_applied(tmp_path: Path) -> None:
    bus = await topics(MemoryBus())
    for round_ in (1, 2):
        async with shipping(tmp_path, bus) as (store, shipper):
            await store.put([(0, b"k", b"v")]).committed()
            assert await shipper.reached({0: round_}, 5)
    assert sequence(bus, 0) == [1, 1, 2]


async def test_record_no_broker_takes_arrives_without_its_value(tmp_path: Path) -> None:
    bus = await topics(MemoryBus())
    async with shipping(tmp_path, bus) as (store, shipper):
        await store.put([(0, b"k", b"v"), (0, b"k", bytes(1_200_000)), (0, b"k", b"w")]).committed()
        assert await shipper.reached({0: 3}, 5)
    assert_no_gap(sequence(bus, 0), 3)
    assert b"" in [message.value for message in bus.records(CUSTOMER_EVENTS, 0)]


fates = st.lists(st.sampled_from(["ok", "ok", "lost", "half", "unheard", "cluster"]), max_size=12)


@settings(max_examples=30, deadline=None)
@given(fates, st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=12))
def test_no_partition_ever_has_a_gap_on_a_flaky_bus(plan: list[str], work: list[tuple[int, int]]) -> None:
    async def play(directory: Path) -> None:
        left = list(plan)
        cluster = 1

        def fate() -> str:
            nonlocal cluster
            drawn = left.pop() if left else "ok"
            if drawn == "cluster":
                logs.append({partition: sequence(bus, partition) for partition in range(4)})
                cluster += 1
                bus.replace_cluster(f"memory-{cluster}")
                bus.topics_now()
                return "lost"
            return drawn

        class Bus(FlakyBus):
            def topics_now(self) -> None:
                task = self.ensure_topics(TOPICS)
                with pytest.raises(StopIteration):
                    task.send(None)

        logs: list[dict[int, list[int]]] = []
        bus = Bus(fate)
        bus.topics_now()
        async with shipping(directory, bus) as (store, shipper):
            for partition, count in work:
                store.put([(partition, b"k", b"v")] * count)
                await asyncio.sleep(0)
            await store.pending().committed()
            heads = dict(enumerate(store.committed))
            await until(
                lambda: all(max(sequence(bus, p), default=0) == heads[p] for p in range(4)), seconds=20
            )
            assert await shipper.reached(heads, 5)
        for partition in range(4):
            assert_no_gap(sequence(bus, partition), heads[partition])
            for log in logs:
                assert_no_gap(log[partition], max(log[partition], default=0))

    with TemporaryDirectory() as directory:
        asyncio.run(play(Path(directory)))


def progress(partition: int, spool: str, seq: int) -> Progress:
    return Progress(
        partition=partition,
        cluster="memory-1",
        epoch=1,
        applied={spool: seq},
        journal_time=1,
        models_offset=0,
    )


async def test_journal_reports_its_counts_and_lets_go_of_what_is_applied(tmp_path: Path) -> None:
    bus = await topics(MemoryBus())
    board = ProgressBoard()
    store = SpoolStore(tmp_path / NAME, lambda: 0)
    journal = SpoolJournal([store], "collector", bus, board, ManualClock(5), patience=0.02)
    await journal.start()
    event = Touchpoint(
        id="e", source="shop", customer="ann", occurred_at=1, recorded_at=1, type="t", channel="web"
    )
    position = journal.append([event, Tick(partition=0, recorded_at=2)])
    assert await journal.durable(position, Durability.BUS) in Durability
    await until(lambda: journal.backlog() == 0 and journal.head().heads == journal.shipped())
    assert await journal.durable(position, Durability.BUS) is Durability.BUS
    bus.go_away()
    late = journal.append([event])
    assert await journal.durable(late, Durability.BUS) is Durability.SPOOL
    bus.come_back()
    events = [decode_event(m.value or b"") for m in bus.records(CUSTOMER_EVENTS)]
    (report,) = [event for event in events if isinstance(event, SpoolReported)]
    assert (report.spool, report.service, report.accepted) == (journal.spool, "collector", {"shop": 1})
    for partition, seq in journal.head().heads.items():
        board.put(progress(partition, journal.spool, seq))
    await until(lambda: store.floor == store.committed)
    await journal.stop()


async def test_death_of_a_background_task_is_noticed(tmp_path: Path) -> None:
    class Broken(MemoryBus):
        async def cluster_id(self) -> str:
            raise RuntimeError("a bug")

    journal = SpoolJournal(
        [SpoolStore(tmp_path / NAME, lambda: 0)], "collector", Broken(), ProgressBoard(), ManualClock()
    )
    await journal.start()
    with pytest.raises(RuntimeError, match="a bug"):
        await journal.watch()
    await journal.stop()


class LateProducer:
    """Its first batch is acknowledged only when the gate opens, by a cluster that may be gone by then."""

    def __init__(self, inner: Producer, gate: asyncio.Event) -> None:
        self._inner = inner
        self._gate = gate

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        offset = await self._inner.send(topic, partition, records)
        await self._gate.wait()
        return offset

    async def close(self) -> None:
        await self._inner.close()


class LateBus(MemoryBus):
    """A memory bus whose first producer answers late."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.made = 0

    def producer(self, cluster: str | None = None) -> Producer:
        self.made += 1
        inner = super().producer(cluster)
        return LateProducer(inner, self.gate) if self.made == 1 else inner


async def test_late_acknowledgement_of_a_lost_cluster_counts_for_nothing(tmp_path: Path) -> None:
    bus = LateBus()
    await topics(bus)
    async with shipping(tmp_path, bus) as (store, shipper):
        await store.put([(0, b"k", b"v")] * 3).committed()
        await until(lambda: len(bus.records(CUSTOMER_EVENTS, 0)) == 3)
        bus.replace_cluster("memory-2")
        await topics(bus)
        await until(lambda: bus.made == 2)
        await asyncio.sleep(0.02)
        assert shipper.shipped() == {}
        bus.gate.set()
        await until(lambda: sequence(bus, 0) == [1, 2, 3])
        assert await shipper.reached({0: 3}, 5)
