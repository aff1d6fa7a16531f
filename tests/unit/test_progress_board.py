"""The progress board: newest epoch wins, positions are waited for, another cluster starts it anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from libs.common.bus.memory import MemoryBus, _MemoryReader
from libs.common.bus.ports import Record
from libs.common.clock import JournalClock
from libs.common.contracts.progress import Progress, encode_progress
from libs.common.contracts.topics import PROGRESS, TOPICS
from libs.common.position import Position
from libs.common.progress import ProgressBoard


def progress(
    partition: int, seq: int, *, epoch: int = 1, at: int = 0, offset: int = 0, cluster: str = "memory-1"
) -> Progress:
    return Progress(
        partition=partition,
        cluster=cluster,
        epoch=epoch,
        applied={"aa": seq},
        journal_time=at,
        models_offset=offset,
    )


async def publish(bus: MemoryBus, *records: Progress | bytes) -> None:
    values = [record if isinstance(record, bytes) else encode_progress(record) for record in records]
    await bus.producer().send(PROGRESS, 0, [Record(b"p", value) for value in values])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def board_on(bus: MemoryBus) -> AsyncIterator[ProgressBoard]:
    await bus.ensure_topics(TOPICS)
    board = ProgressBoard(bus)
    await board.start()
    try:
        yield board
    finally:
        await board.stop()


async def test_lower_epoch_is_ignored_and_newest_of_an_epoch_wins() -> None:
    board = ProgressBoard()
    board.put(progress(1, 5, epoch=2, at=100, offset=9))
    board.put(progress(1, 50, epoch=1, at=900, offset=99))
    assert board.applied("aa") == {1: 5}
    assert (board.journal_time(), board.models_offset(1), board.models_offset(2)) == (100, 9, 0)
    board.put(progress(1, 7, epoch=2))
    board.put(progress(2, 3))
    assert board.applied("aa") == {1: 7, 2: 3}
    assert board.of(3) is None
    assert board.applied("unknown") == {}


async def test_spool_that_left_is_no_longer_applied() -> None:
    board = ProgressBoard()
    board.put(progress(1, 5))
    board.put(Progress(partition=1, cluster="memory-1", epoch=1, applied={}, journal_time=0, models_offset=0))
    assert board.applied("aa") == {}


async def test_position_is_waited_for_in_the_partitions_asked() -> None:
    board = ProgressBoard()
    position = Position("aa", {1: 5, 2: 9})
    waiting = asyncio.create_task(board.reached(position, [1], 5))
    all_of_it = asyncio.create_task(board.reached(position, None, 0.02))
    await asyncio.sleep(0)
    board.put(progress(1, 4))
    await asyncio.sleep(0)
    assert not waiting.done()
    board.put(progress(1, 5))
    assert await waiting
    assert not await all_of_it
    assert await board.reached(position, [1, 7], 0)
    assert not await board.reached(position, [2], 0)


async def test_subscribers_move_a_journal_clock() -> None:
    clock = JournalClock()
    board = ProgressBoard(on_change=lambda seen: clock.advance(seen.journal_time()))
    board.put(progress(1, 1, at=5_000))
    board.put(progress(2, 1, at=4_000))
    assert clock.now() == 5_000


async def test_board_reads_its_topic_and_bears_what_it_cannot_read() -> None:
    bus = MemoryBus()
    async with board_on(bus) as board:
        await publish(bus, b"not progress", progress(0, 1), progress(0, 2))
        await until(lambda: board.applied("aa") == {0: 2})
        assert board.cluster == "memory-1"
        await until(lambda: board.caught_up)


async def test_another_cluster_starts_the_board_anew_but_time_never_goes_back() -> None:
    bus = MemoryBus()
    async with board_on(bus) as board:
        await publish(bus, progress(0, 8, epoch=3, at=77))
        await until(lambda: board.applied("aa") == {0: 8})
        bus.replace_cluster("memory-2")
        await bus.ensure_topics(TOPICS)
        await until(lambda: board.cluster == "memory-2")
        assert board.applied("aa") == {}
        assert board.journal_time() == 77
        await publish(bus, progress(0, 9, epoch=4, cluster="memory-2"))
        await until(lambda: board.applied("aa") == {0: 9})


async def test_board_waits_for_a_bus_that_is_away() -> None:
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    await publish(bus, progress(0, 1))
    bus.go_away()
    board = ProgressBoard(bus)
    await board.start()
    assert not board.caught_up
    bus.come_back()
    await until(lambda: board.applied("aa") == {0: 1})
    await board.stop()


async def test_it_reads_sooner_as_long_as_anybody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = MemoryBus()
    async with board_on(bus) as board:
        await publish(bus, progress(1, 4))
        await until(lambda: board.of(1) is not None)
        said: list[bool] = []
        monkeypatch.setattr(_MemoryReader, "hurry", lambda reader, hurried: said.append(hurried))
        waiting = asyncio.create_task(board.reached(Position("aa", {1: 5}), None, 5))
        await asyncio.sleep(0)
        assert said == [True]
        await publish(bus, progress(1, 5))
        assert await waiting
        assert said == [True, False]
