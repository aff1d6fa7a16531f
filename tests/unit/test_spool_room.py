"""The spool's quota and its disk: new events are refused before it is full, nothing accepted is lost."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.clock import ManualClock
from libs.common.contracts.customer_event import Tick, Touchpoint
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.progress import Progress
from libs.common.errors import SpoolFull, Transient
from libs.common.http.problems import refusal_of
from libs.common.journal import Durability
from libs.common.progress import ProgressBoard
from libs.common.spool.file import SpoolFile, SpoolState
from libs.common.spool.journal import SpoolJournal, open_journal
from libs.common.spool.metrics import SpoolMetrics
from libs.common.spool.room import RoomLimits
from libs.common.spool.store import SpoolStore
from libs.common.telemetry import Metrics

MB = 1 << 20
ROOMY = RoomLimits(quota=2 * MB, least_free=0)


def touch(number: int, size: int = 10_000) -> Touchpoint:
    return Touchpoint(
        id=f"e{number}",
        source="shop",
        customer="ann",
        occurred_at=1,
        recorded_at=1,
        type="note_taken",
        channel="web",
        properties={"text": f"{number}/" + "x" * size},
    )


def tick() -> list[Tick]:
    return [Tick(partition=partition, recorded_at=5) for partition in range(PARTITIONS)]


@asynccontextmanager
async def journal_in(
    directory: Path, limits: RoomLimits, board: ProgressBoard | None = None, metrics: Metrics | None = None
) -> AsyncIterator[SpoolJournal]:
    bus = MemoryBus()
    bus.go_away()
    journal = open_journal(
        directory,
        "collector",
        bus,
        board or ProgressBoard(),
        ManualClock(),
        limits=limits,
        metrics=SpoolMetrics(metrics),
        pace=0.005,
    )
    await journal.start()
    try:
        yield journal
    finally:
        await journal.stop()


def apply(board: ProgressBoard, journal: SpoolJournal) -> None:
    for partition, seq in journal.head().heads.items():
        board.put(
            Progress(
                partition=partition,
                cluster="memory-1",
                epoch=1,
                applied={journal.spool: seq},
                journal_time=1,
                models_offset=0,
            )
        )


async def fill(journal: SpoolJournal) -> int:
    """Append until refused; how many were accepted."""
    for number in range(100_000):
        try:
            await journal.durable(journal.append([touch(number)]), Durability.SPOOL)
        except SpoolFull:
            return number
    raise AssertionError("never full")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in (directory / "collector").iterdir())


async def test_full_spool_refuses_events_takes_ticks_and_recovers_by_itself(tmp_path: Path) -> None:
    board, metrics = ProgressBoard(), Metrics("collector")
    async with journal_in(tmp_path, ROOMY, board, metrics) as journal:
        accepted = await fill(journal)
        assert 150 <= accepted <= 210
        head, counted = journal.head(), journal.accepted()
        with pytest.raises(SpoolFull, match="quota") as refused:
            journal.append([touch(1, 10), touch(2, 10)])
        assert refused.value.code == "spool_full"
        assert (journal.head(), journal.accepted()) == (head, counted)
        assert journal.trouble() is not None
        assert b'spool_refused_total{reason="full"} 2.0' in metrics.render()
        for _ in range(50):
            await journal.durable(journal.append(tick()), Durability.SPOOL)
        apply(board, journal)
        await until(lambda: journal.trouble() is None)
        assert await fill(journal) > accepted // 2
    (path,) = (tmp_path / "collector").glob("*.sqlite")
    file = SpoolFile(path, 1 << 30)
    kept = [row for _, rows in file.read(0, 1 << 30) for row in rows]
    file.close()
    assert [seq for _, seq, key, _ in kept if key == b"ann"] == sorted(
        seq for _, seq, key, _ in kept if key == b"ann"
    )


async def test_spool_that_was_full_is_full_after_a_restart(tmp_path: Path) -> None:
    async with journal_in(tmp_path, ROOMY) as journal:
        accepted = await fill(journal)
    async with journal_in(tmp_path, ROOMY) as journal:
        await until(lambda: journal.trouble() is not None)
        with pytest.raises(SpoolFull):
            journal.append([touch(1)])
        assert journal.accepted() == {"shop": accepted}


async def test_disk_with_too_little_left_refuses_events_and_takes_ticks(tmp_path: Path) -> None:
    async with journal_in(tmp_path, RoomLimits(least_free=1 << 60)) as journal:
        with pytest.raises(SpoolFull, match="disk"):
            journal.append([touch(1)])
        await journal.durable(journal.append(tick()), Durability.SPOOL)
        assert journal.accepted() == {}


async def test_pages_of_a_long_outage_go_back_to_the_disk(tmp_path: Path) -> None:
    board = ProgressBoard()
    async with journal_in(tmp_path, RoomLimits(least_free=0), board) as journal:
        for number in range(10):
            await journal.durable(journal.append([touch(number, 4 * MB)]), Durability.SPOOL)
        assert size_of(tmp_path) > 40 * MB
        apply(board, journal)
        await until(lambda: size_of(tmp_path) < 30 * MB)
        await journal.durable(journal.append([touch(1)]), Durability.SPOOL)


async def test_commit_that_finds_the_file_full_is_a_refusal_with_its_code(tmp_path: Path) -> None:
    """The hard limit, above the quota, stands in for a disk that somebody else has filled."""
    limits = RoomLimits(quota=20 * MB, least_free=0)
    async with journal_in(tmp_path, limits) as journal:
        await journal.durable(journal.append([touch(0)]), Durability.SPOOL)
        huge = journal.append([touch(number, 4 * MB) for number in range(12)])
        with pytest.raises(SpoolFull, match="full"):
            await journal.durable(huge, Durability.SPOOL)
        assert journal.accepted() == {"shop": 1}
        assert "full" in (journal.trouble() or "")
        await journal.durable(journal.append(tick()), Durability.SPOOL)
        assert journal.trouble() is None
        await journal.durable(journal.append([touch(1)]), Durability.SPOOL)


def test_refusals_become_503_with_their_code() -> None:
    full = refusal_of(SpoolFull("no room"))
    assert (full.status, full.code, full.headers) == (503, "spool_full", {"retry-after": "5"})
    assert refusal_of(Transient("away")).code == "unavailable"


async def test_long_log_is_moved_into_the_file_beside_commits_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "spool-00000000000000ab.sqlite"
    log = path.with_name(path.name + "-wal")
    store = SpoolStore(path, lambda: 1)
    store.start()
    try:
        await store.put([], [("first", bytes(10))]).committed()
        salt = log.read_bytes()[16:24]
        for number in range(40):
            await store.put([], [(f"k{number}", bytes(100_000))]).committed()
        # Far too little for SQLite to do it within a commit.
        await until(lambda: path.stat().st_size > 2_000_000)
        async with asyncio.timeout(10):
            while log.read_bytes()[16:24] == salt:
                await store.put([], [("again", bytes(10))]).committed()
        assert len(await store.local_rows(100)) > 40
    finally:
        await store.stop()


async def test_local_rows_are_released_few_at_a_time_and_none_beyond(tmp_path: Path) -> None:
    store = SpoolStore(tmp_path / "spool-00000000000000ac.sqlite", lambda: 1)
    store.start()
    try:
        await store.put([], [(f"k{number}", b"x") for number in range(400)]).committed()
        rows = await store.local_rows(1_000)
        released = asyncio.create_task(store.release_local(rows[299].number))
        await asyncio.sleep(0)
        # In line behind the first of several deletions, and before the second.
        await store.put([], [("between", b"x")]).committed()
        assert not released.done()
        await released
        left = await store.local_rows(1_000)
        assert [row.key for row in left] == [f"k{number}" for number in range(300, 400)] + ["between"]
    finally:
        await store.stop()


def test_one_deletion_of_local_rows_is_short(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "spool-00000000000000ad.sqlite", 1 << 30)
    zeros = [0] * PARTITIONS
    file.write(SpoolState(zeros, zeros, {}, 0), [], [(f"k{number}", b"x") for number in range(400)])
    last = file.local_rows(300)[-1][0]
    left = [len(file.local_rows(1_000))]
    while not file.forget_local(last):
        left.append(len(file.local_rows(1_000)))
    assert all(0 < before - after <= 100 for before, after in itertools.pairwise(left))
    assert len(file.local_rows(1_000)) == 100
    file.close()


class Interposed:
    """A connection that calls ``before`` first, as another thread might come first."""

    def __init__(self, connection: sqlite3.Connection, before: Callable[[], None]) -> None:
        self._connection = connection
        self._before = before
        self.said: list[tuple[int, int, int]] = []

    def execute(self, statement: str) -> sqlite3.Cursor:
        self._before()
        self.said += self._connection.execute(statement).fetchall()
        return self._connection.execute("SELECT 0")

    def close(self) -> None:
        self._connection.close()


def filled(path: Path) -> tuple[SpoolFile, Callable[[], None], Callable[[], bytes]]:
    """A spool of which nothing is moved, how to commit to it, and how to tell whether its log began anew."""
    file = SpoolFile(path, 1 << 30)
    zeros = [0] * PARTITIONS

    def commit() -> None:
        file.write(SpoolState(zeros, zeros, {}, 0), [], [("k", bytes(50_000))])

    commit()
    log = path.with_name(path.name + "-wal")
    return file, commit, lambda: log.read_bytes()[16:24]


def test_log_does_not_begin_anew_while_it_is_moved_beside_commits(tmp_path: Path) -> None:
    file, commit, salt = filled(tmp_path / "spool-00000000000000ae.sqlite")
    before = salt()

    def all_moved_and_one_commit_more() -> None:
        file.move()
        commit()
        assert salt() == before

    mover = Interposed(file._mover, all_moved_and_one_commit_more)
    file._mover = mover  # type: ignore[assignment]
    file.move_beside()
    ((busy, frames, moved),) = mover.said
    assert not busy
    assert 0 < moved < frames
    file.move()
    commit()
    assert salt() != before
    file.close()


def test_log_that_is_all_moved_is_left_alone_by_who_moves_it_beside_commits(tmp_path: Path) -> None:
    file, commit, salt = filled(tmp_path / "spool-00000000000000af.sqlite")
    file.move()
    before = salt()
    mover = Interposed(file._mover, commit)
    file._mover = mover  # type: ignore[assignment]
    file.move_beside()
    assert salt() != before
    ((_, frames, moved),) = mover.said
    assert frames > 0
    assert moved == 0
    file.close()


def test_file_is_not_compacted_while_its_log_is_moved(tmp_path: Path) -> None:
    file, _, _ = filled(tmp_path / "spool-00000000000000b1.sqlite")
    held: list[bool] = []

    def note() -> None:
        held.append(file._moving.locked())

    file._writer = Interposed(file._writer, note)  # type: ignore[assignment]
    file._mover = Interposed(file._mover, note)  # type: ignore[assignment]
    file.compact()
    file.move_beside()
    assert held == [False, True, True]
    file.close()


async def test_reads_do_not_wait_for_the_log_and_closing_and_compacting_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SpoolStore(tmp_path / "spool-00000000000000b0.sqlite", lambda: 1)
    begun, go_on, over = threading.Event(), threading.Event(), []

    def wait() -> None:
        begun.set()
        over.append(go_on.wait(30))

    monkeypatch.setattr(store._file, "_mover", Interposed(store._file._mover, wait))
    store.start()
    for number in range(45):
        await store.put([], [(f"k{number}", bytes(100_000))]).committed()
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(begun.wait, 10)
        assert await store.find_local("k1") == bytes(100_000)
        await store.put([], [("while it is moved", b"x")]).committed()
        compacted = asyncio.create_task(store.compact())
        await store.find_local("k2")
        asyncio.get_running_loop().call_later(0.1, go_on.set)
        await compacted
        assert over == [True]
        go_on.clear()
        begun.clear()
        store._logged = 100 * MB
        while not begun.is_set():
            await store.put([], [("once more", b"x")]).committed()
        asyncio.get_running_loop().call_later(0.1, go_on.set)
        await store.stop()
    assert over == [True, True]
    file = SpoolFile(tmp_path / "spool-00000000000000b0.sqlite", 1 << 30)
    assert file.find_local("once more") == b"x"
    file.close()
