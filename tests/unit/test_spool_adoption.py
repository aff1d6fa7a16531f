"""Spools that nobody holds any more: taken over, shipped, ended and deleted; those in use are left alone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.clock import ManualClock
from libs.common.contracts.customer_event import SpoolReported, Touchpoint, decode_event
from libs.common.contracts.identity import PARTITIONS
from libs.common.contracts.progress import Progress
from libs.common.contracts.topics import CUSTOMER_EVENTS, HEADER_FLOOR, TOPICS
from libs.common.errors import Transient
from libs.common.journal import Durability, origin_of
from libs.common.progress import ProgressBoard
from libs.common.spool.file import SpoolFile
from libs.common.spool.journal import SpoolJournal, open_journal
from libs.common.spool.rows import home_of

PACE = 0.004


def touch(number: int) -> Touchpoint:
    return Touchpoint(
        id=f"e{number}",
        source="shop",
        customer=f"c{number}",
        occurred_at=1,
        recorded_at=1,
        type="product_viewed",
        channel="web",
    )


class Platform:
    """A bus, and an analyzer that applies what lies on it as long as it is `working`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bus = MemoryBus()
        self.board = ProgressBoard()
        self.working = True
        self.events: dict[tuple[str, int, int], object] = {}
        self._applied: list[dict[str, int]] = [{} for _ in range(PARTITIONS)]
        self._read = [0] * PARTITIONS

    @asynccontextmanager
    async def journal(self) -> AsyncIterator[SpoolJournal]:
        journal = open_journal(self.directory, "collector", self.bus, self.board, ManualClock(7), pace=PACE)
        await journal.start()
        try:
            yield journal
        finally:
            await journal.stop()

    async def run(self) -> None:
        await self.bus.ensure_topics(TOPICS)
        while True:
            if self.working:
                for partition in range(PARTITIONS):
                    self._work(partition)
            await asyncio.sleep(PACE)

    def _work(self, partition: int) -> None:
        applied = self._applied[partition]
        new = self.bus.records(CUSTOMER_EVENTS, partition)[self._read[partition] :]
        for message in new:
            self._read[partition] += 1
            origin = origin_of(message)
            assert origin is not None
            known = applied.get(origin.spool, 0)
            floor = int(message.header(HEADER_FLOOR) or b"0")
            if known < origin.seq <= max(known, floor) + 1:
                applied[origin.spool] = origin.seq
                self.events[origin.spool, partition, origin.seq] = decode_event(message.value or b"")
        if new:
            self.board.put(
                Progress(
                    partition=partition,
                    cluster="memory-1",
                    epoch=1,
                    applied=dict(applied),
                    journal_time=1,
                    models_offset=0,
                )
            )

    def ids(self) -> set[str]:
        return {event.id for event in self.events.values() if isinstance(event, Touchpoint)}

    def last_words(self, spool: str) -> dict[int, SpoolReported]:
        return {
            partition: event
            for (of, partition, _), event in self.events.items()
            if of == spool and isinstance(event, SpoolReported) and event.ended
        }

    def files(self, spool: str) -> list[Path]:
        return sorted((self.directory / "collector").glob(f"spool-{spool}*"))


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    platform = Platform(tmp_path)
    running = asyncio.create_task(platform.run())
    yield platform
    running.cancel()
    await asyncio.wait([running])


async def until(condition: object, seconds: float = 10.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


async def test_orphan_that_a_sibling_leaves_is_found_shipped_ended_and_deleted(platform: Platform) -> None:
    async with platform.journal() as one:
        platform.bus.go_away()
        async with platform.journal() as two:
            left = two.append([touch(number) for number in range(40)])
            await two.durable(left, Durability.SPOOL)
            # In use: however often one looks, it is not taken.
            await asyncio.sleep(150 * PACE)
            assert two.spool not in one._held
        platform.bus.come_back()
        await until(lambda: len(platform.ids()) == 40)
        # A position of the other process still means what it meant.
        assert await one.durable(left, Durability.BUS) is Durability.BUS
        assert left.covered_by(platform.board.applied(two.spool))
        await until(lambda: not platform.files(two.spool))
        words = platform.last_words(two.spool)
        assert sorted(words) == list(range(PARTITIONS))
        assert {p: w.accepted for p, w in words.items() if w.accepted} == {home_of(two.spool): {"shop": 40}}
        assert await one.durable(left, Durability.BUS) is Durability.BUS
        assert one.accepted() == {}
        # Still at work.
        await one.durable(one.append([touch(41)]), Durability.SPOOL)
        await until(lambda: "e41" in platform.ids())
    assert len(platform.files(one.spool)) == 2


async def test_orphan_found_at_start_is_ended_and_the_own_spool_goes_on(platform: Platform) -> None:
    platform.working = False
    async with platform.journal() as one, platform.journal() as two:
        for number, journal in enumerate((one, two)):
            await journal.durable(journal.append([touch(number)]), Durability.SPOOL)
    own, other = sorted([one.spool, two.spool])
    async with platform.journal() as heir:
        assert heir.spool == own
        assert await heir.durable(heir.head(), Durability.SPOOL) is Durability.SPOOL
        await asyncio.sleep(20 * PACE)
        assert platform.files(other), "deleted before anything of it was applied"
        platform.working = True
        await until(lambda: not platform.files(other))
    assert platform.ids() == {"e0", "e1"}
    assert len(platform.last_words(other)) == PARTITIONS
    assert platform.last_words(own) == {}


async def test_spool_that_was_never_used_goes_without_a_word(platform: Platform) -> None:
    async with platform.journal() as one:
        async with platform.journal() as two:
            pass
        await until(lambda: not platform.files(two.spool))
        assert platform.last_words(two.spool) == {}
        await one.durable(one.append([touch(1)]), Durability.SPOOL)


async def test_local_rows_keep_an_orphan_until_they_are_fetched(platform: Platform) -> None:
    async with platform.journal() as one:
        async with platform.journal() as two:
            await two.durable(two.append([touch(1)], [("d", b"pool")]), Durability.SPOOL)
        await until(lambda: two.spool in one._held)
        await until(lambda: "e1" in platform.ids())
        await asyncio.sleep(20 * PACE)
        assert platform.files(two.spool)
        assert await one.find_local("d") == b"pool"
        await one.release_local(await one.local_rows(10))
        await until(lambda: not platform.files(two.spool))


async def test_orphan_that_cannot_be_read_ends_nothing_and_stays(platform: Platform) -> None:
    async with platform.journal() as one:
        broken = platform.directory / "collector" / "spool-00000000000000ff.sqlite"
        broken.write_bytes(b"no database" * 1_000)
        await asyncio.sleep(150 * PACE)
        await one.durable(one.append([touch(1)]), Durability.SPOOL)
        await until(lambda: "e1" in platform.ids())
    assert broken.exists()


async def test_killed_while_ending_ends_once_more(platform: Platform) -> None:
    async with platform.journal() as one:
        async with platform.journal() as two:
            await two.durable(two.append([touch(1)]), Durability.SPOOL)
        await until(lambda: two.spool in one._ended)
        platform.working = False
    platform.working = True
    async with platform.journal() as heir:
        # Whichever id comes first: what has said that it ends is never appended to again.
        assert heir.spool == one.spool
        await until(lambda: not platform.files(two.spool))
    assert len(platform.last_words(two.spool)) == PARTITIONS


def test_file_is_not_made_again_under_an_id_that_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "spool-00000000000000aa.sqlite"
    file = SpoolFile(path, 1 << 30)
    with pytest.raises(BlockingIOError):
        SpoolFile(path, 1 << 30, create=False)
    file.delete()
    with pytest.raises(FileNotFoundError):
        SpoolFile(path, 1 << 30, create=False)
    assert list(tmp_path.iterdir()) == []


async def test_compacting_leaves_nothing_of_what_is_released(platform: Platform) -> None:
    async with platform.journal() as one:
        await one.durable(one.append([touch(777_001)]), Durability.SPOOL)
        await until(lambda: "e777001" in platform.ids())
        await until(lambda: one._store.floor == one._store.committed)
        await one.compact()
        (path,) = (platform.directory / "collector").glob("spool-*.sqlite")
        bytes_ = b"".join(found.read_bytes() for found in path.parent.iterdir())
        assert b"777001" not in bytes_
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as other:
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        other.close()


async def test_asking_a_spool_that_has_just_ended_is_no_crash(platform: Platform) -> None:
    async with platform.journal() as one:
        store = one._store
    with pytest.raises(Transient, match="cannot be read"):
        await store.find_local("d")


async def test_restored_spool_loses_nothing_that_is_accepted_under_its_old_numbers(
    platform: Platform,
) -> None:
    folder = platform.directory / "collector"
    async with platform.journal() as one:
        spool = one.spool
        await one.durable(one.append([touch(1)]), Durability.BUS)
    (path,) = folder.glob("spool-*.sqlite")
    backup = path.read_bytes()
    async with platform.journal() as one:
        await one.durable(one.append([touch(number) for number in range(2, 40)]), Durability.BUS)
        await until(lambda: "e39" in platform.ids())
    for file in folder.iterdir():
        file.unlink()
    path.write_bytes(backup)
    platform.board, platform.working = ProgressBoard(), False
    async with platform.journal() as one:
        assert one.spool == spool
        last = one.append([touch(number) for number in range(100, 110)], [("d", b"kept")])
        await one.durable(last, Durability.BUS)
        platform.working = True
        await until(lambda: {f"e{number}" for number in range(100, 110)} <= platform.ids())
        await until(lambda: not platform.files(spool))
        assert one.spool != spool
        assert await one.find_local("d") == b"kept"
        assert one.accepted() == {"shop": 10 + 1}
        assert await one.durable(last, Durability.BUS) is Durability.BUS


async def test_compacting_waits_for_what_is_not_applied_and_says_what_failed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with platform.journal() as one:
        await until(lambda: one._store.floor == one._store.committed)
        platform.working = False
        await one.durable(one.append([touch(1)]), Durability.SPOOL)
        assert not await one.released(0.05)
        platform.working = True
        assert await one.released(5.0)

        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(one._store._file, "compact", full)
        with pytest.raises(Transient, match="disk is full"):
            await one.compact()
        monkeypatch.undo()
        with sqlite3.connect(f"file:{one._store._file.path}?mode=ro", uri=True) as other:
            other.execute("BEGIN").connection.execute("SELECT * FROM meta").fetchone()
            one._store._file._writer.execute("PRAGMA busy_timeout = 50")
            with pytest.raises(Transient, match="in use"):
                await one.compact()
            other.rollback()
        other.close()
