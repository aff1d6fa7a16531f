"""What a view on disk keeps of the deleted: their revision, and after it was told to forget no key at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Record
from libs.common.contracts.topics import CUSTOMER_MODELS, HEADER_DROPPED, TOPICS
from libs.common.view import View

KEY = b"zz-a-customer-zz/profile"
SECRET = b"zz-what-he-bought-zz"
DROPPED = (HEADER_DROPPED, b"1")


class Bench:
    """A view on disk, and the topic it follows."""

    def __init__(self, bus: MemoryBus, path: Path) -> None:
        self.bus = bus
        self.path = path
        self.view = View(bus, CUSTOMER_MODELS, path, map_size=1 << 24)
        self._producer = bus.producer()

    async def put(self, key: bytes, value: bytes | None, revision: int, *more: tuple[str, bytes]) -> None:
        """Publish, and wait until the view has read it."""
        record = Record(key, value, (("revision", b"%d" % revision), *more))
        offset = await self._producer.send(CUSTOMER_MODELS, 0, [record])
        assert await self.view.reached(0, offset + 1, 5.0)

    def files(self) -> bytes:
        """All bytes of the view's files."""
        return b"".join(path.read_bytes() for path in sorted(self.path.rglob("*")) if path.is_file())


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    bench = Bench(bus, tmp_path / "view")
    await bench.view.start()
    yield bench
    await bench.view.stop()


async def test_deleted_key_stays_until_it_is_forgotten(bench: Bench) -> None:
    await bench.put(KEY, SECRET, 3)
    await bench.put(b"other", b"stays", 1)
    await bench.put(KEY, None, 4)
    view = bench.view
    assert (view.gone(), view.was_deleted(KEY), view.was_deleted(b"other")) == ([KEY], True, False)
    await view.forget([KEY, b"other"])
    assert (view.gone(), view.was_deleted(KEY), view.get(b"other")) == ([], True, b"stays")
    await bench.put(KEY, SECRET, 3)
    await bench.put(KEY, None, 4)
    assert (view.get(KEY), view.gone()) == (None, [])
    await bench.put(KEY, b"new", 5)
    assert (view.get(KEY), view.was_deleted(KEY)) == (b"new", False)


async def test_nothing_deleted_is_left_in_a_compacted_file(bench: Bench) -> None:
    for number in range(200):
        await bench.put(b"k-%d" % number, b"v" * 50, 1)
    await bench.put(KEY, SECRET, 3)
    await bench.put(KEY, None, 4)
    await bench.view.forget([KEY])
    assert SECRET in bench.files()
    await bench.view.compact()
    assert not any(trace in bench.files() for trace in (KEY, SECRET))
    assert len(list(bench.view.scan())) == 200
    assert bench.view.was_deleted(KEY)
    await bench.put(b"after", b"the swap", 1)
    assert bench.view.get(b"after") == b"the swap"
    await bench.view.stop()
    await bench.view.start()
    assert bench.view.get(b"after") == b"the swap"
    assert bench.view.was_deleted(KEY)


async def test_who_was_only_dropped_leaves_nothing_and_may_come_back(bench: Bench) -> None:
    await bench.put(KEY, SECRET, 3)
    view = bench.view
    await bench.put(KEY, None, 2, DROPPED)
    assert view.get(KEY) == SECRET
    await bench.put(KEY, None, 4, DROPPED)
    assert (view.get(KEY), view.gone(), view.was_deleted(KEY)) == (None, [], False)
    await bench.put(KEY, b"new", 5)
    assert view.get(KEY) == b"new"


async def test_who_was_erased_stays_so_where_a_late_owner_says_dropped(bench: Bench) -> None:
    await bench.put(KEY, SECRET, 3)
    await bench.put(KEY, None, 6)
    await bench.put(KEY, None, 7, DROPPED)
    assert (bench.view.gone(), bench.view.was_deleted(KEY)) == ([KEY], True)
    await bench.view.forget([KEY])
    await bench.put(KEY, None, 8, DROPPED)
    assert bench.view.was_deleted(KEY)
    await bench.put(KEY, SECRET, 3)
    assert bench.view.get(KEY) is None
