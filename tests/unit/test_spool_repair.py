"""A bus that loses what it acknowledged: the spool notices by the analyzer's word and ships again."""

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
from libs.common.bus.ports import Producer, Record
from libs.common.contracts.topics import CUSTOMER_EVENTS, HEADER_FLOOR, HEADER_SEQ, TOPICS
from libs.common.errors import Transient
from libs.common.journal import origin_of
from libs.common.spool.shipper import Shipper
from libs.common.spool.store import SpoolStore
from libs.common.spool.suspicion import Suspicion, Verdict

NAME = "spool-00000000000000aa.sqlite"

Loses = Callable[[int, int], bool]
"""Partition and sequence number of a record: whether this time it gets lost."""


class LosingProducer:
    """Acknowledges everything; what ``loses`` says never reaches the log."""

    def __init__(self, inner: Producer, loses: Loses) -> None:
        self._inner = inner
        self._loses = loses

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        kept = [r for r in records if not self._loses(partition, int(dict(r.headers)[HEADER_SEQ]))]
        if not kept:
            await asyncio.sleep(0)
            return 0
        return await self._inner.send(topic, partition, kept)

    async def close(self) -> None:
        await self._inner.close()


class LosingBus(MemoryBus):
    def __init__(self, loses: Loses) -> None:
        super().__init__()
        self._loses = loses

    def producer(self, cluster: str | None = None) -> Producer:
        return LosingProducer(super().producer(cluster), self._loses)


class Analyzer:
    """Applies what lies on the bus in order, nothing past a gap, as the real one does."""

    def __init__(self, bus: MemoryBus, partitions: int = 3) -> None:
        self._bus = bus
        self._read = [0] * partitions
        self.applied: dict[int, int] = {}
        self.passed_over = 0

    def work(self, records: int = 1_000_000) -> dict[int, int]:
        """Take at most ``records`` of each partition; how far it is then."""
        for partition, start in enumerate(self._read):
            for message in self._bus.records(CUSTOMER_EVENTS, partition)[start : start + records]:
                self._read[partition] += 1
                origin = origin_of(message)
                assert origin is not None
                known = self.applied.get(partition, 0)
                floor = int(message.header(HEADER_FLOOR) or b"0")
                assert floor < origin.seq
                if origin.seq > max(known, floor) + 1:
                    self.passed_over += 1
                elif origin.seq > known:
                    self.applied[partition] = origin.seq
        return dict(self.applied)


@asynccontextmanager
async def shipping(directory: Path, bus: MemoryBus) -> AsyncIterator[tuple[SpoolStore, Shipper]]:
    store = SpoolStore(directory / NAME, lambda: 0)
    shipper = Shipper(
        store, bus, Random(1), beat=0.0005, watch=0.002, suspicion=lambda: Suspicion(0.01, 0.02)
    )
    background = Background()
    store.start()
    shipper.start(background)
    try:
        yield store, shipper
    finally:
        await background.stop()
        await shipper.close()
        await store.stop()


async def until_applied(store: SpoolStore, shipper: Shipper, analyzer: Analyzer) -> None:
    async with asyncio.timeout(10):
        while True:
            applied = analyzer.work()
            shipper.applied(applied)
            store.release(applied)
            if all(applied.get(p, 0) == head for p, head in enumerate(store.committed[:3])):
                return
            await asyncio.sleep(0.001)


losses = st.sets(st.tuples(st.integers(0, 2), st.integers(1, 12)), max_size=12)


@settings(max_examples=20, deadline=None)
@given(losses, st.integers(1, 3), st.lists(st.integers(0, 2), min_size=1, max_size=36))
def test_whatever_the_bus_loses_is_applied_in_the_end(
    lost: set[tuple[int, int]], times: int, work: list[int]
) -> None:
    async def play(directory: Path) -> None:
        left = dict.fromkeys(lost, times)

        def loses(partition: int, seq: int) -> bool:
            left[partition, seq] = left.get((partition, seq), 0) - 1
            return left[partition, seq] >= 0

        bus = LosingBus(loses)
        await bus.ensure_topics(TOPICS)
        analyzer = Analyzer(bus)
        async with shipping(directory, bus) as (store, shipper):
            for partition in work:
                await store.put([(partition, b"k", b"v")]).committed()
            await until_applied(store, shipper, analyzer)

    with TemporaryDirectory() as directory:
        asyncio.run(play(Path(directory)))


async def test_gap_before_a_thousand_records_costs_one_probe_and_one_repair(tmp_path: Path) -> None:
    lose = [True]
    bus = LosingBus(lambda partition, seq: seq == 3 and bool(lose) and lose.pop())
    await bus.ensure_topics(TOPICS)
    analyzer = Analyzer(bus)
    async with shipping(tmp_path, bus) as (store, shipper):
        for _ in range(10):
            await store.put([(0, b"k", b"v")] * 100).committed()
        await until_applied(store, shipper, analyzer)
        assert analyzer.passed_over >= 900
    seqs = [int(m.header("seq") or b"0") for m in bus.records(CUSTOMER_EVENTS, 0)]
    assert seqs.count(3) == 1
    # Once all but the lost one, some probes, and again what came after: not again and again.
    assert len(seqs) <= 999 + 997 + 20


async def test_analyzer_that_is_only_late_gets_probes_and_nothing_more(tmp_path: Path) -> None:
    bus = await with_topics(MemoryBus())
    analyzer = Analyzer(bus)
    async with shipping(tmp_path, bus) as (store, shipper):
        await store.put([(0, b"k", b"v")] * 500).committed()
        assert await shipper.reached({0: 500}, 5)
        await asyncio.sleep(0.1)
        late = len(bus.records(CUSTOMER_EVENTS, 0))
        assert 500 < late <= 510
        # It comes as far as a few records, stops, goes on: no reason to send 500 again.
        while analyzer.applied.get(0, 0) < 500:
            shipper.applied(analyzer.work(50))
            await asyncio.sleep(0.015)
        assert len(bus.records(CUSTOMER_EVENTS, 0)) <= 530
    assert analyzer.passed_over == 0


async def test_first_record_of_a_start_says_where_numbers_begin(tmp_path: Path) -> None:
    bus = await with_topics(MemoryBus())
    async with shipping(tmp_path, bus) as (store, shipper):
        await store.put([(0, b"k", b"v")] * 3).committed()
        assert await shipper.reached({0: 3}, 5)
        shipper.applied({0: 3})
        await store.put([(0, b"k", b"w")]).committed()
        assert await shipper.reached({0: 4}, 5)
        bus.replace_cluster("memory-2")
        await with_topics(bus)
        async with asyncio.timeout(5):
            while not bus.records(CUSTOMER_EVENTS, 0):
                await asyncio.sleep(0.002)
    (again,) = bus.records(CUSTOMER_EVENTS, 0)
    assert (again.header("seq"), again.header("floor")) == (b"4", b"3")


async def with_topics(bus: MemoryBus) -> MemoryBus:
    await bus.ensure_topics(TOPICS)
    return bus


class BrokenProducer:
    """Fails once in a way nobody has foreseen, and for ever after."""

    def __init__(self, inner: Producer, error: BaseException | None) -> None:
        self._inner = inner
        self._error = error

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        if self._error is not None:
            raise self._error
        return await self._inner.send(topic, partition, records)

    async def close(self) -> None:
        if self._error is not None:
            raise asyncio.CancelledError
        await self._inner.close()


@pytest.mark.parametrize("error", [AssertionError("in the client"), asyncio.CancelledError()])
async def test_producer_that_fails_as_nobody_foresaw_is_replaced(
    tmp_path: Path, error: BaseException
) -> None:
    class Bus(MemoryBus):
        made = 0

        def producer(self, cluster: str | None = None) -> Producer:
            self.made += 1
            return BrokenProducer(super().producer(cluster), error if self.made < 3 else None)

    bus = Bus()
    await bus.ensure_topics(TOPICS)
    async with shipping(tmp_path, bus) as (store, shipper):
        await store.put([(0, b"k", b"v"), (1, b"k", b"v")]).committed()
        assert await shipper.reached({0: 1, 1: 1}, 5)
    assert bus.made == 3


async def test_who_waits_in_vain_leaves_nothing_behind(tmp_path: Path) -> None:
    bus = await with_topics(MemoryBus())
    bus.go_away()
    async with shipping(tmp_path, bus) as (store, shipper):
        await store.put([(0, b"k", b"v")]).committed()
        waiting = [asyncio.create_task(shipper.reached({0: 1}, 0.02)) for _ in range(50)]
        waiting[0].cancel()
        await asyncio.wait(waiting)
        assert not shipper._waiters


async def test_disk_that_cannot_be_read_for_a_while_ends_nothing(tmp_path: Path) -> None:
    bus = await with_topics(MemoryBus())
    async with shipping(tmp_path, bus) as (store, shipper):
        bus.go_away()
        for _ in range(6):
            await store.put([(0, b"k", bytes(500_000))]).committed()
        read, failures = store.read, [Transient("no", retry_after=0.001)] * 3

        async def failing(number: int, max_bytes: int) -> object:
            if failures:
                raise failures.pop()
            return await read(number, max_bytes)

        store.read = failing  # type: ignore[method-assign, assignment]
        bus.come_back()
        assert await shipper.reached({0: 6}, 5)
        assert not failures


def test_suspicion_probes_ever_more_rarely_and_is_sure_only_by_its_probe() -> None:
    suspicion = Suspicion(first=4, most=10)
    looks = [(0.0, 5, 9), (3.9, 5, 9), (4.0, 5, 9), (11.9, 5, 9), (12.0, 5, 9), (22.0, 5, 9)]
    verdicts = [suspicion.look(*look) for look in looks]
    fine, probe = Verdict.FINE, Verdict.PROBE
    assert verdicts == [fine, fine, probe, fine, probe, probe]
    assert suspicion.look(23.0, 8, 9) is fine
    assert suspicion.look(27.0, 8, 9) is probe
    assert [suspicion.look(at, 9, 12) for at in (27.1, 31.0, 31.2)] == [fine, fine, probe]
    assert suspicion.look(31.3, 10, 13) is Verdict.LOST
    assert suspicion.look(31.4, 10, 10) is fine


def test_analyzer_that_stood_still_with_one_record_in_hand_has_lost_nothing() -> None:
    """Ticks are one a second: a pause finds one in work and some behind it, all of them on the bus."""
    suspicion = Suspicion(first=4, most=10)
    assert suspicion.look(0.0, 10, 11) is Verdict.FINE
    assert suspicion.look(4.0, 10, 15) is Verdict.PROBE
    # It has written the one, joins its group anew, and then takes the others.
    assert [suspicion.look(at, 11, 22) for at in (5.0, 8.0, 9.0)] == [
        Verdict.FINE,
        Verdict.FINE,
        Verdict.PROBE,
    ]
    assert [suspicion.look(at, at, 22) for at in (10, 21, 22)] == [Verdict.FINE] * 3
    # Nor does it count together with another time.
    assert [suspicion.look(at, 22, 24) for at in (30, 34)] == [Verdict.FINE, Verdict.PROBE]
    assert suspicion.look(35, 23, 30) is Verdict.FINE
