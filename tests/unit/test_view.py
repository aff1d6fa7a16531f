"""Views: newest revision of each key, resumed where they were, serving on when the cluster is another one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from libs.common.bus.memory import MemoryBus, _MemoryReader
from libs.common.bus.ports import Headers, Message, Record
from libs.common.contracts.topics import CUSTOMER_MODELS, TOPICS
from libs.common.errors import Misconfigured, Transient
from libs.common.lookup import Lookup
from libs.common.view import MemoryView, View

AnyView = View | MemoryView


async def publish(
    bus: MemoryBus, key: bytes, value: bytes | None, revision: int | bytes | None = None, partition: int = 0
) -> int:
    """Returns the next offset."""
    headers: Headers = ()
    if revision is not None:
        headers = (("revision", revision if isinstance(revision, bytes) else b"%d" % revision),)
    return 1 + await bus.producer().send(CUSTOMER_MODELS, partition, [Record(key, value, headers)])


@pytest.fixture
async def bus() -> MemoryBus:
    made = MemoryBus()
    await made.ensure_topics(TOPICS)
    return made


@pytest.fixture(params=["lmdb", "memory"])
async def view(request: pytest.FixtureRequest, bus: MemoryBus, tmp_path: Path) -> AsyncIterator[AnyView]:
    made: AnyView = MemoryView(bus, CUSTOMER_MODELS)
    if request.param == "lmdb":
        made = View(bus, CUSTOMER_MODELS, tmp_path / "view")
    await made.start()
    yield made
    await made.stop()


@asynccontextmanager
async def opened(bus: MemoryBus, path: Path, map_size: int = 1 << 24) -> AsyncIterator[View]:
    view = View(bus, CUSTOMER_MODELS, path, map_size=map_size)
    await view.start()
    try:
        yield view
    finally:
        await view.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_view_answers_what_was_published_last(view: AnyView, bus: MemoryBus) -> None:
    table: Lookup = view
    await publish(bus, b"ann/items", b"1")
    await publish(bus, b"ann/profile", b"2")
    await publish(bus, b"bob/profile", b"3", partition=5)
    offset = await publish(bus, b"ann/items", b"4")
    assert await table.reached(0, offset, 5, "memory-1")
    assert await table.reached(5, 1, 5)
    assert table.get(b"ann/items") == b"4"
    assert table.get(b"eve/items") is None
    assert list(table.scan(b"ann/")) == [(b"ann/items", b"4"), (b"ann/profile", b"2")]
    assert len(list(table.scan())) == 3
    assert (table.offset(0), table.offset(5), table.offset(7)) == (3, 1, 0)
    assert not await table.reached(0, 99, 0.01)
    assert not await table.reached(0, 1, 0.01, "another")
    await until(lambda: table.caught_up)


async def test_lower_revision_is_ignored_also_after_a_deletion(view: AnyView, bus: MemoryBus) -> None:
    await publish(bus, b"ann", b"seven", 7)
    await publish(bus, b"ann", b"six", 6)
    await publish(bus, b"bob", b"nine", (9).to_bytes(8, "big"))
    await publish(bus, b"bob", b"ten", 10)
    await publish(bus, b"bob", b"eight", 8)
    await publish(bus, b"eve", b"one", 1)
    await publish(bus, b"eve", None, 3)
    await publish(bus, b"eve", b"two", 2)
    await publish(bus, b"kim", b"x")
    offset = await publish(bus, b"kim", None)
    assert await view.reached(0, offset, 5)
    assert [view.get(key) for key in (b"ann", b"bob", b"eve", b"kim")] == [b"seven", b"ten", None, None]
    assert [key for key, _ in view.scan()] == [b"ann", b"bob"]
    offset = await publish(bus, b"ann", b"again", 7)
    assert await view.reached(0, offset, 5)
    assert view.get(b"ann") == b"again"


async def test_keys_of_any_length_are_kept_apart(view: AnyView, bus: MemoryBus) -> None:
    long = b"x" * 1_500
    for tail in (b"a", b"b", b""):
        await publish(bus, long + tail, b"value " + tail)
    offset = await publish(bus, b"y" * 600, b"other")
    assert await view.reached(0, offset, 5)
    assert view.get(long + b"a") == b"value a"
    assert view.get(long + b"b") == b"value b"
    assert view.get(long + b"c") is None
    assert dict(view.scan(long)) == {long: b"value ", long + b"a": b"value a", long + b"b": b"value b"}
    assert list(view.scan(b"y")) == [(b"y" * 600, b"other")]


async def test_batches_are_told_without_what_is_outdated(bus: MemoryBus, tmp_path: Path) -> None:
    told: list[bytes | None] = []

    def on_batch(messages: Sequence[Message]) -> None:
        told.extend(message.value for message in messages)

    await publish(bus, b"ann", b"new", 2)
    await publish(bus, b"ann", b"old", 1)
    view = View(bus, CUSTOMER_MODELS, tmp_path, on_batch)
    await view.start()
    assert await view.reached(0, 2, 5)
    assert told == [b"new"]
    await view.stop()


async def test_view_resumes_where_it_was(bus: MemoryBus, tmp_path: Path) -> None:
    offset = await publish(bus, b"ann", b"1", 5)
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, offset, 5)
    bus.expire(CUSTOMER_MODELS, 0, offset)
    bus.go_away()
    async with opened(bus, tmp_path) as view:
        assert (view.get(b"ann"), view.offset(0), view.cluster) == (b"1", offset, "memory-1")
        bus.come_back()
        await publish(bus, b"ann", b"0", 4)
        offset = await publish(bus, b"bob", b"2", 1)
        assert await view.reached(0, offset, 5)
        assert (view.get(b"ann"), view.get(b"bob")) == (b"1", b"2")


async def test_another_cluster_is_read_from_its_start_while_the_old_content_serves(
    bus: MemoryBus, tmp_path: Path
) -> None:
    for number in range(5):
        await publish(bus, b"ann", b"%d" % number, number)
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, 5, 5)
        bus.replace_cluster("memory-2")
        await bus.ensure_topics(TOPICS)
        assert view.get(b"ann") == b"4"
        await until(lambda: view.cluster == "memory-2")
        assert view.get(b"ann") == b"4"
        assert view.offset(0) == 0
        await publish(bus, b"ann", b"older", 3)
        await publish(bus, b"ann", b"newer", 5)
        assert await view.reached(0, 2, 5, "memory-2")
        assert view.get(b"ann") == b"newer"


async def test_map_grows_with_the_content(bus: MemoryBus, tmp_path: Path) -> None:
    async with opened(bus, tmp_path, map_size=1 << 16) as view:
        for number in range(40):
            offset = await publish(bus, b"k%d" % number, bytes(20_000))
        assert await view.reached(0, offset, 5)
        assert len(list(view.scan())) == 40


async def test_crash_of_the_machine_makes_the_view_anew(bus: MemoryBus, tmp_path: Path) -> None:
    offset = await publish(bus, b"ann", b"1")
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, offset, 5)
    assert (tmp_path / "boot").read_text().startswith("clean ")
    (tmp_path / "boot").write_text("another start of the machine")
    bus.go_away()
    async with opened(bus, tmp_path) as view:
        assert view.get(b"ann") is None
        bus.come_back()
        assert await view.reached(0, offset, 5)
        assert view.get(b"ann") == b"1"


async def test_view_not_read_for_longer_than_deletions_are_kept_begins_anew(
    bus: MemoryBus, tmp_path: Path
) -> None:
    offset = await publish(bus, b"ann", b"1")
    await publish(bus, b"bob", b"2")
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, offset + 1, 5)
    # Erased while nobody read, and the deletion itself is cleaned away by now.
    gone = await publish(bus, b"ann", None)
    offset = await publish(bus, b"bob", b"2")
    bus.expire(CUSTOMER_MODELS, 0, gone)
    note = tmp_path / "boot"
    for days, kept in ((28, b"1"), (31, None)):
        before = note.stat().st_mtime - days * 86_400
        os.utime(note, (before, before))
        bus.go_away()
        async with opened(bus, tmp_path) as view:
            assert view.get(b"ann") == kept
        assert kept is None or note.stat().st_mtime == pytest.approx(before, abs=1)
        bus.come_back()
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, offset, 5)
        await until(lambda: note.stat().st_mtime > time.time() - 60)


async def test_damaged_files_are_made_anew(bus: MemoryBus, tmp_path: Path) -> None:
    offset = await publish(bus, b"ann", b"1")
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1_000)
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, offset, 5)
        assert view.get(b"ann") == b"1"


async def test_view_that_is_not_open_says_so(bus: MemoryBus, tmp_path: Path) -> None:
    view = View(bus, CUSTOMER_MODELS, tmp_path / "view")
    with pytest.raises(Transient):
        view.get(b"ann")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Misconfigured):
        await View(bus, CUSTOMER_MODELS, tmp_path / "file").start()


async def test_memory_view_is_filled_by_hand() -> None:
    told: list[Message] = []
    view = MemoryView(on_batch=told.extend)
    view.put(b"ann", b"1", 5)
    view.put(b"ann", b"0", 4)
    assert view.get(b"ann") == b"1"
    assert len(told) == 1
    assert await view.reached(3, 1_000, 0)
    assert view.caught_up
    view.put(b"ann", None)
    assert list(view.scan()) == []


async def test_it_reads_sooner_as_long_as_anybody_waits(
    view: AnyView, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(bus, b"a", b"1", 1)
    assert await view.reached(0, 1, 5.0)
    said: list[bool] = []
    monkeypatch.setattr(_MemoryReader, "hurry", lambda reader, hurried: said.append(hurried))
    with view.expecting():
        assert said == [True]
        assert not await view.reached(0, 2, 0.001)
        assert said[-1], "the one within has given up, the one without has not"
    assert said[-1] is False
