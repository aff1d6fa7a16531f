"""Views after the loss of a broker: served on meanwhile, swept after the marker, right after any crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import lmdb
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Headers, Message, Record
from libs.common.contracts.marker import MARKER_KEY, Marker, encode_marker
from libs.common.contracts.topics import CATALOGUE, CUSTOMER_MODELS, TOPICS
from libs.common.errors import Transient
from libs.common.view import MemoryView, View, follower
from tests.unit.test_view import opened, publish, until

AnyView = View | MemoryView


class Told:
    """What a view told its owner: the newest value of each key, None where it is gone."""

    def __init__(self) -> None:
        self.now: dict[bytes, bytes | None] = {}

    def __call__(self, messages: Sequence[Message]) -> None:
        self.now.update({message.key: message.value for message in messages})


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence and pauses are shorter than in real life."""
    monkeypatch.setattr(follower, "_PAUSE", 0.01)
    monkeypatch.setattr(follower, "_POLL", 0.02)


@pytest.fixture
async def bus() -> MemoryBus:
    made = MemoryBus()
    await made.ensure_topics(TOPICS)
    return made


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(params=["lmdb", "memory"])
async def view(
    request: pytest.FixtureRequest, bus: MemoryBus, tmp_path: Path, told: Told
) -> AsyncIterator[AnyView]:
    made: AnyView = MemoryView(bus, CUSTOMER_MODELS, told)
    if request.param == "lmdb":
        made = View(bus, CUSTOMER_MODELS, tmp_path / "view", told)
    await made.start()
    yield made
    await made.stop()


async def mark(bus: MemoryBus, number: int, partitions: Sequence[int] = range(12), cluster: str = "") -> None:
    marker = Marker(cluster=cluster or await bus.cluster_id(), number=number)
    for partition in partitions:
        record = Record(MARKER_KEY, encode_marker(marker))
        await bus.producer().send(CUSTOMER_MODELS, partition, [record])


async def lose(bus: MemoryBus, view: AnyView | None, cluster: str) -> None:
    bus.replace_cluster(cluster)
    await bus.ensure_topics(TOPICS)
    if view is not None:
        await until(lambda: view.cluster == cluster)


async def filled(view: AnyView, bus: MemoryBus) -> None:
    """ann, bob and eve in partition 0, kim in partition 1, zoe deleted."""
    for number, key in enumerate((b"ann", b"bob", b"eve", b"zoe"), 1):
        await publish(bus, key, key.upper(), number)
    await publish(bus, b"zoe", None, 9)
    await publish(bus, b"kim", b"KIM", 1, partition=1)
    assert await view.reached(
        0, 5 + len([m for m in bus.records(CUSTOMER_MODELS, 0) if m.key == MARKER_KEY]), 5
    )
    assert await view.reached(1, 1, 5)


def content(view: AnyView) -> dict[bytes, bytes]:
    return dict(view.scan())


async def test_after_the_marker_what_was_not_published_again_is_dropped(
    view: AnyView, bus: MemoryBus, told: Told
) -> None:
    await filled(view, bus)
    before = content(view)
    await lose(bus, view, "memory-2")
    assert content(view) == before
    assert view.outstanding() == 12
    assert "12 partitions" in view.state()
    await publish(bus, b"ann", b"ANN", 1)
    await publish(bus, b"bob", b"newer", 7)
    assert await view.reached(0, 2, 5, "memory-2")
    assert content(view) == {**before, b"bob": b"newer"}
    await mark(bus, 1, [0])
    await until(lambda: view.get(b"eve") is None)
    # Partition 1 has no marker yet.
    assert content(view) == {b"ann": b"ANN", b"bob": b"newer", b"kim": b"KIM"}
    assert told.now[b"eve"] is None
    await mark(bus, 1, range(1, 12))
    await until(lambda: view.outstanding() == 0)
    assert content(view) == {b"ann": b"ANN", b"bob": b"newer"}
    assert view.swept == 2
    await until(lambda: view.state() == "up to date")


async def test_neither_deletion_nor_sweep_lets_an_older_value_come_back(
    view: AnyView, bus: MemoryBus
) -> None:
    await filled(view, bus)
    await lose(bus, view, "memory-2")
    await publish(bus, b"zoe", b"ZOE", 4)
    await publish(bus, b"ann", b"old", 0)
    await mark(bus, 1)
    await until(lambda: view.outstanding() == 0)
    # A lower revision is not the key seen again: who publishes it has not the newest.
    assert content(view) == {}
    await publish(bus, b"eve", b"older than what was swept", 2)
    offset = await publish(bus, b"eve", b"EVE", 4)
    assert await view.reached(0, offset, 5)
    assert content(view) == {b"eve": b"EVE"}


async def test_second_loss_before_the_marker_ends_right(view: AnyView, bus: MemoryBus) -> None:
    await filled(view, bus)
    await lose(bus, view, "memory-2")
    await publish(bus, b"ann", b"ANN", 1)
    assert await view.reached(0, 1, 5, "memory-2")
    await lose(bus, view, "memory-3")
    await publish(bus, b"bob", b"BOB", 2)
    await mark(bus, 2)
    await until(lambda: view.cluster == "memory-3" and view.outstanding() == 0)
    assert content(view) == {b"bob": b"BOB"}


async def test_marker_of_another_cluster_or_an_earlier_time_sweeps_nothing(
    view: AnyView, bus: MemoryBus
) -> None:
    await filled(view, bus)
    await lose(bus, view, "memory-2")
    await mark(bus, 5)
    await until(lambda: view.outstanding() == 0)
    await lose(bus, view, "memory-3")
    await publish(bus, b"ann", b"ANN", 1)
    await mark(bus, 9, [0], cluster="memory-2")
    await mark(bus, 4, [0])
    await publish(bus, b"sue", b"SUE", 1)
    assert await view.reached(0, 4, 5, "memory-3")
    await until(lambda: view.caught_up)
    await asyncio.sleep(0.05)
    assert view.outstanding() == 12
    await mark(bus, 6, [0])
    await until(lambda: view.outstanding() == 11)
    assert content(view) == {b"ann": b"ANN", b"sue": b"SUE"}


async def test_topic_made_anew_on_the_same_cluster_is_met_like_a_loss(view: AnyView, bus: MemoryBus) -> None:
    await filled(view, bus)
    bus.recreate(CUSTOMER_MODELS)
    await publish(bus, b"ann", b"ANN", 1)
    await until(lambda: view.offset(0) == 1)
    assert view.outstanding() == 1
    assert content(view)[b"bob"] == b"BOB"
    await mark(bus, 3, [0])
    await until(lambda: view.outstanding() == 0)
    assert content(view) == {b"ann": b"ANN", b"kim": b"KIM"}


async def test_topic_made_anew_and_grown_past_our_place_is_read_again(view: AnyView, bus: MemoryBus) -> None:
    await mark(bus, 1, [0])
    await filled(view, bus)
    bus.recreate(CUSTOMER_MODELS)
    for number in range(6):
        await publish(bus, b"sue", b"%d" % number, number)
    await publish(bus, b"ann", b"ANN", 1)
    assert await view.reached(0, 7, 5)
    await mark(bus, 2, [0])
    await until(lambda: view.losses == 1 and view.offset(0) == 8 and view.outstanding() == 0)
    assert content(view) == {b"ann": b"ANN", b"sue": b"5", b"kim": b"KIM"}
    # The same marker once more says nothing new.
    await mark(bus, 2, [0])
    offset = await publish(bus, b"ann", b"ANN", 2)
    assert await view.reached(0, offset, 5)
    assert view.losses == 1


async def test_crash_in_republication_or_in_the_sweep_ends_right(
    bus: MemoryBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(bus, tmp_path) as view:
        await filled(view, bus)
    await lose(bus, None, "memory-2")
    async with opened(bus, tmp_path) as view:
        await until(lambda: view.cluster == "memory-2")
    async with opened(bus, tmp_path) as view:
        assert len(content(view)) == 4
        await publish(bus, b"ann", b"ANN", 1)
        assert await view.reached(0, 1, 5, "memory-2")
    monkeypatch.setattr(follower, "_SWEPT_AT_ONCE", 2)
    swept = View._drop
    monkeypatch.setattr(View, "_drop", lambda self, places, first, limit: _dies(swept, self, places, first))
    async with opened(bus, tmp_path) as view:
        await mark(bus, 1)
        with pytest.raises(ZeroDivisionError):
            await view.watch()
        assert len(content(view)) == 3
    monkeypatch.setattr(View, "_drop", swept)
    async with opened(bus, tmp_path) as view:
        await until(lambda: view.outstanding() == 0)
        assert content(view) == {b"ann": b"ANN"}


def _dies(swept: object, view: View, places: object, first: bytes) -> object:
    """The first part of a sweep; at the second the process "dies"."""
    assert callable(swept)
    if first:
        raise ZeroDivisionError
    return swept(view, places, first, 2)


async def test_view_of_another_format_is_read_again(bus: MemoryBus, tmp_path: Path) -> None:
    env = lmdb.open(str(tmp_path))
    with env.begin(write=True) as transaction:
        transaction.put(b"m", b"\x92\xa8memory-1\x81\x00\x05")
        transaction.put(b"kann", b"\x00" * 12 + b"old")
    env.close()
    offset = await publish(bus, b"ann", b"1")
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, offset, 5)
        assert content(view) == {b"ann": b"1"}


async def test_file_that_was_cut_is_read_again(bus: MemoryBus, tmp_path: Path) -> None:
    for number in range(50):
        offset = await publish(bus, b"k%d" % number, bytes(2_000))
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, offset, 5)
    data = tmp_path / "data.mdb"
    with data.open("r+b") as file:
        file.truncate(data.stat().st_size // 2)
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, offset, 5)
        assert len(content(view)) == 50


async def test_damage_found_while_it_serves_costs_the_view_not_the_process(
    bus: MemoryBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = await publish(bus, b"ann", b"1")
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, offset, 5)

        def damaged(*_: object) -> object:
            raise lmdb.CorruptedError("a page is not what it should be")

        with monkeypatch.context() as patch:
            patch.setattr("libs.common.view.disk._put", damaged)
            offset = await publish(bus, b"bob", b"2")
            await until(lambda: view.losses > 0)
        assert await view.reached(0, offset, 5)
        assert content(view) == {b"ann": b"1", b"bob": b"2"}


async def test_damage_found_by_whoever_forgets_is_mended_though_nothing_is_written(
    bus: MemoryBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = await publish(bus, b"ann", b"1")
    async with opened(bus, tmp_path) as view:
        assert await view.reached(0, offset, 5)

        def damaged(*_: object) -> object:
            raise lmdb.CorruptedError("a page is not what it should be")

        for losses, (used, work) in enumerate(
            {"deleted_keys": view.gone, "stored_key": lambda: view.was_deleted(b"ann")}.items()
        ):
            with monkeypatch.context() as patch:
                patch.setattr(f"libs.common.view.disk.{used}", damaged)
                with pytest.raises(Transient):
                    work()
            await until(lambda before=losses: view.losses > before)  # type: ignore[misc]
            assert await view.reached(0, offset, 5)
            assert (view.gone(), view.was_deleted(b"ann"), view.get(b"ann")) == ([], False, b"1")


async def test_full_disk_is_waited_out(
    bus: MemoryBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused: list[int] = []
    async with opened(bus, tmp_path) as view:
        await until(lambda: view.caught_up)

        def full(*_: object) -> object:
            refused.append(1)
            raise lmdb.DiskError("No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("libs.common.view.disk._put", full)
            offset = await publish(bus, b"ann", b"1")
            await until(lambda: len(refused) > 2)
            assert view.get(b"ann") is None
            assert [record.levelname for record in caplog.records if "stands still" in record.message] == [
                "WARNING"
            ]
        assert await view.reached(0, offset, 5)
        assert view.get(b"ann") == b"1"


async def test_views_of_one_partition_wait_for_one_marker(bus: MemoryBus) -> None:
    view = MemoryView(bus, CATALOGUE)
    await view.start()
    headers: Headers = (("revision", b"1"),)
    await bus.producer().send(CATALOGUE, 0, [Record(b"product/1", b"{}", headers)])
    assert await view.reached(0, 1, 5)
    await lose(bus, view, "memory-2")
    await until(lambda: view.outstanding() == 1)
    await view.stop()
