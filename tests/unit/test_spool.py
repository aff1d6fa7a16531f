"""The spool on disk: durable when it says so, numbers without gaps, whatever is killed or full."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.bus.memory import MemoryBus
from libs.common.clock import JournalClock, ManualClock
from libs.common.contracts.customer_event import Tick, Touchpoint
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.topics import TOPICS
from libs.common.errors import Misconfigured, Transient
from libs.common.journal import Durability
from libs.common.position import Position
from libs.common.progress import ProgressBoard
from libs.common.spool.file import SpoolFile
from libs.common.spool.journal import SpoolJournal, open_journal
from libs.common.spool.memory import MemoryJournal
from libs.common.spool.rows import Row
from libs.common.spool.store import SpoolStore

SPOOL = "spool-00000000000000aa.sqlite"
CHILD = Path(__file__).with_name("spool_child.py")


def touch(number: int, customer: str = "ann", source: str = "shop", internal: bool = False) -> Touchpoint:
    return Touchpoint(
        id=f"e{number}",
        source=source,
        customer=customer,
        occurred_at=number,
        recorded_at=number,
        internal=internal,
        type="product_viewed",
        channel="web",
    )


def rows_on_disk(path: Path) -> list[Row]:
    file = SpoolFile(path, 1 << 30)
    try:
        return [row for _, rows in file.read(0, 1 << 30) for row in rows]
    finally:
        file.close()


def numbers(rows: Sequence[Row]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for partition, seq, _, _ in rows:
        found.setdefault(partition, []).append(seq)
    return found


def away() -> MemoryBus:
    bus = MemoryBus()
    bus.go_away()
    return bus


@asynccontextmanager
async def journal_in(directory: Path, clock: JournalClock | None = None) -> AsyncIterator[SpoolJournal]:
    journal = open_journal(directory, "collector", away(), ProgressBoard(), clock or ManualClock())
    await journal.start()
    try:
        yield journal
    finally:
        await journal.stop()


@asynccontextmanager
async def store_in(directory: Path, max_bytes: int = 1 << 30) -> AsyncIterator[SpoolStore]:
    store = SpoolStore(directory / SPOOL, lambda: 7, max_bytes)
    store.start()
    try:
        yield store
    finally:
        await store.stop()


async def test_append_is_on_disk_when_durable(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as journal:
        position = journal.append([touch(1), touch(2, "bob"), Tick(partition=3, recorded_at=5)])
        assert await journal.durable(position, Durability.SPOOL) is Durability.SPOOL
        (path,) = (tmp_path / "collector").glob("spool-*.sqlite")
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as other:
            assert other.execute("SELECT count(*) FROM packs WHERE length(body) > 1").fetchone()[0] >= 1
        other.close()
        assert position.heads[3] >= 1
        assert position.heads[partition_of("bob")] >= 1
    assert len([row for row in rows_on_disk(path) if row[2] in (b"ann", b"bob", b"tick")]) == 3


async def test_position_covers_what_was_accepted_before_and_survives_its_text_form(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as journal:
        first = journal.append([touch(1)])
        second = journal.append([touch(2, "bob")])
        assert second.covered_by(journal.head().heads)
        assert first.covered_by(second.heads)
        decoded = Position.decode(second.encode())
        assert decoded == second
        assert await journal.durable(decoded, Durability.SPOOL) is Durability.SPOOL
        beyond = Position(journal.spool, {0: 10_000})
        with pytest.raises(Transient):
            await journal.durable(beyond, Durability.SPOOL)
        assert await journal.durable(journal.append([]), Durability.SPOOL) is Durability.SPOOL


async def test_heads_counts_and_clock_go_on_after_a_restart(tmp_path: Path) -> None:
    clock = ManualClock(1_000)
    async with journal_in(tmp_path, clock) as journal:
        spool = journal.spool
        journal.append([touch(1), touch(2, source="app"), touch(3, internal=True)])
        clock.tick(500)
        await journal.durable(journal.append([touch(4)]), Durability.SPOOL)
        head = journal.head()
    later = ManualClock(0)
    async with journal_in(tmp_path, later) as journal:
        assert journal.spool == spool
        assert later.now() == 1_500
        assert journal.accepted() == {"shop": 2, "app": 1}
        assert journal.append([touch(5)]).heads[partition_of("ann")] == head.heads[partition_of("ann")] + 1


async def test_event_that_cannot_be_encoded_leaves_no_trace(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as journal:
        before = journal.head()
        with pytest.raises(UnicodeEncodeError):
            journal.append([touch(1), touch(2, "\ud800")])
        assert journal.head() == before
        assert journal.accepted() == {}


async def test_failed_commit_fails_all_in_line_and_leaves_no_gap(tmp_path: Path) -> None:
    async with store_in(tmp_path, max_bytes=200_000) as store:
        first = store.put([(0, b"a", b"x")], (), ["shop"])
        await first.committed()
        doomed = store.put([(0, b"a", bytes(300_000))], [("key", b"body")], ["shop"])
        waiting = asyncio.create_task(doomed.committed())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        behind = store.put([(0, b"a", b"y"), (1, b"b", b"z")], (), ["shop"])
        assert behind is not doomed
        with pytest.raises(Transient, match="full"):
            await waiting
        with pytest.raises(Transient):
            await behind.committed()
        assert store.heads[:2] == [1, 0]
        assert store.accepted == {"shop": 1}
        assert await store.find_local("key") is None
        again = store.put([(0, b"a", b"w")], (), ["shop"])
        await again.committed()
    assert [row[1:] for row in rows_on_disk(tmp_path / SPOOL)] == [(1, b"a", b"x"), (2, b"a", b"w")]


async def test_lost_position_is_not_taken_for_the_one_that_got_its_numbers(tmp_path: Path) -> None:
    store = SpoolStore(tmp_path / SPOOL, lambda: 0, 200_000)
    journal = SpoolJournal([store], "collector", away(), ProgressBoard(), ManualClock())
    await journal.start()
    await journal.durable(journal.head(), Durability.SPOOL)
    huge = Touchpoint(
        id="e",
        source="shop",
        customer="ann",
        occurred_at=0,
        recorded_at=0,
        type="t",
        channel="web",
        properties={"text": "x" * 300_000},
    )
    lost = journal.append([huge])
    while store.heads[partition_of("ann")]:
        await asyncio.sleep(0.001)
    kept = journal.append([touch(2)])
    await journal.durable(kept, Durability.SPOOL)
    assert kept == lost
    with pytest.raises(Transient):
        await journal.durable(lost, Durability.SPOOL)
    await journal.stop()


async def test_released_rows_are_gone_and_numbers_go_on(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        for number in range(5):
            await store.put([(number % 2, b"k", b"%d" % number)], (), ["shop"]).committed()
        store.release({0: 2, 1: 1})
        while store.floor[0] < 2:
            await asyncio.sleep(0.001)
        assert store.floor[:2] == [2, 1]
        store.release({0: 3, 1: 2})
        while store.floor[0] < 3:
            await asyncio.sleep(0.001)
    assert rows_on_disk(tmp_path / SPOOL) == []
    async with store_in(tmp_path) as store:
        assert store.heads[:2] == store.floor[:2] == [3, 2]
        assert store.accepted == {"shop": 5}
        await store.put([(0, b"k", b"5")]).committed()
    assert numbers(rows_on_disk(tmp_path / SPOOL)) == {0: [4]}


async def test_local_rows_share_the_transaction_and_are_not_shipped(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as journal:
        position = journal.append([touch(1)], [(f"d{number}", b"pool %d" % number) for number in range(150)])
        assert await journal.find_local("d7") == b"pool 7"
        await journal.durable(position, Durability.SPOOL)
        assert await journal.find_local("d7") == b"pool 7"
        rows = await journal.local_rows(100)
        assert [row.key for row in rows] == [f"d{number}" for number in range(100)]
        await journal.release_local(rows)
        assert await journal.find_local("d7") is None
        assert len(await journal.local_rows(1_000)) == 50
    async with journal_in(tmp_path) as journal:
        assert await journal.find_local("d149") == b"pool 149"


async def test_spool_that_is_stopping_takes_nothing(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as journal:
        pass
    with pytest.raises(Transient, match="closing"):
        journal.append([touch(1)])


async def test_two_processes_never_share_a_spool_and_orphans_are_adopted(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as one, journal_in(tmp_path) as two:
        assert one.spool != two.spool
        await two.durable(two.append([touch(1)], [("d", b"left")]), Durability.SPOOL)
        await one.durable(one.append([touch(1)]), Durability.SPOOL)
    async with journal_in(tmp_path) as heir:
        assert heir.spool == min(one.spool, two.spool)
        assert await heir.find_local("d") == b"left"
        (row,) = await heir.local_rows(10)
        await heir.release_local([row])
        assert await heir.local_rows(10) == []


def test_unusable_directory_or_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "collector").write_text("in the way")
    with pytest.raises(Misconfigured, match="cannot hold a spool"):
        open_journal(tmp_path, "collector", MemoryBus(), ProgressBoard(), ManualClock())
    (tmp_path / "feedback").mkdir()
    (tmp_path / "feedback" / SPOOL).write_bytes(b"no database" * 100)
    with pytest.raises(Misconfigured, match="cannot be used"):
        open_journal(tmp_path, "feedback", MemoryBus(), ProgressBoard(), ManualClock())


@pytest.mark.parametrize("moment", [0.05, 0.15])
def test_killed_process_loses_nothing_it_acknowledged(tmp_path: Path, moment: float) -> None:
    child = subprocess.Popen([sys.executable, str(CHILD), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline() for _ in range(int(2_000 * moment))]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += child.stdout.readlines()
    child.stdout.close()
    child.wait()
    ids = {line.strip() for line in acknowledged if line.endswith("\n")}
    assert len(ids) >= 100
    (path,) = (tmp_path / "collector").glob("spool-*.sqlite")
    rows = rows_on_disk(path)
    kept = b"".join(row[3] for row in rows)
    assert [one for one in ids if b'"id":"%s"' % one.encode() not in kept] == []
    for seqs in numbers(rows).values():
        assert seqs == list(range(1, len(seqs) + 1))


Step = tuple[str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["append", "append", "commit", "release", "reopen"]), st.integers(0, 11)),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_disk_holds_exactly_what_is_not_released_in_any_order_of_events(plan: list[Step]) -> None:
    async def play(directory: Path) -> None:
        store = SpoolStore(directory / SPOOL, lambda: 0)
        store.start()
        written = [0] * PARTITIONS
        levels = [0] * PARTITIONS
        for what, partition in plan:
            if what == "append":
                store.put([(partition, b"k", b"v"), ((partition * 5) % PARTITIONS, b"k", b"v")])
                written[partition] += 1
                written[(partition * 5) % PARTITIONS] += 1
            elif what == "commit":
                await store.pending().committed()
            elif what == "release":
                levels = [max(0, seq - partition) for seq in store.committed]
                store.release(dict(enumerate(levels)))
            else:
                await store.stop()
                store = SpoolStore(directory / SPOOL, lambda: 0)
                store.start()
        await store.stop()
        assert store.heads == written
        for home, seqs in numbers(rows_on_disk(directory / SPOOL)).items():
            assert seqs == list(range(seqs[0], written[home] + 1))
            assert seqs[0] <= written[home] + 1
        again = SpoolStore(directory / SPOOL, lambda: 0)
        kept = numbers([row for _, rows in await again.read(0, 1 << 30) for row in rows])
        for home in range(PARTITIONS):
            assert len(kept.get(home, [])) >= written[home] - again.floor[home]
        assert again.heads == written
        await again.stop()

    with TemporaryDirectory() as directory:
        asyncio.run(play(Path(directory)))


async def test_memory_journal_keeps_the_same_promises() -> None:
    bus = MemoryBus()
    journal = MemoryJournal(bus, spool="00000000000000ab")
    position = journal.append([touch(1), touch(2, internal=True)], [("d", b"pool")])
    assert position == Position("00000000000000ab", {partition_of("ann"): 2})
    assert journal.accepted() == {"shop": 1}
    assert await journal.find_local("d") == b"pool"
    bus.go_away()
    assert await journal.durable(position, Durability.BUS) is Durability.SPOOL
    bus.come_back()
    await bus.ensure_topics(TOPICS)
    assert await journal.durable(position, Durability.BUS) is Durability.BUS
    assert [m.header("seq") for m in bus.records("customer-events")] == [b"1", b"2"]
    assert await journal.drain(report=True) == 1
    assert await journal.drain(report=True) == 0
    journal.failing = True
    with pytest.raises(Transient):
        await journal.durable(position, Durability.SPOOL)
