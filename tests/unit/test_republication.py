"""Models are published again after a loss, closed by a marker, whoever dies or takes over half-way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Producer, Record
from libs.common.clock import ManualClock
from libs.common.contracts.customer_event import Touchpoint, encode_event
from libs.common.contracts.customer_model import model_key
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.marker import MARKER_KEY, decode_marker
from libs.common.contracts.topics import CUSTOMER_EVENTS, CUSTOMER_MODELS, PROGRESS, TOPICS
from libs.common.errors import Transient
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.view import MemoryView, follower
from services.analyzer import consumer, publisher
from services.analyzer.app import create_service
from services.analyzer.settings import AnalyzerSettings
from services.analyzer.store.memory import MemoryAnalyzerStore

NOW = 1_800_000_000_000
SPOOL = "0f3a9c1e"


class Store(MemoryAnalyzerStore):
    """Stands still in the middle of a republication when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.going = asyncio.Event()
        self.going.set()
        self.waiting = 0

    async def unpublished(  # type: ignore[no-untyped-def]
        self, partition: int, above: int, after: tuple[str, str], limit: int
    ):
        if after != ("", "") and not self.going.is_set():
            self.waiting += 1
            await self.going.wait()
        return await super().unpublished(partition, above, after, limit)


class Deaf(MemoryBus):
    """A bus that takes no models while ``deaf``."""

    deaf = False

    def producer(self, cluster: str | None = None) -> Producer:
        made, bus = super().producer(cluster), self

        class Refusing:
            async def send(self, topic: str, partition: int, records: Sequence[Record]) -> int:
                if bus.deaf and topic == CUSTOMER_MODELS:
                    raise Transient("not enough replicas")
                return await made.send(topic, partition, records)

            async def close(self) -> None:
                await made.close()

        return Refusing()


class Rig:
    """A journal, what was put on it, a store, a view and a board."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bus = Deaf()
        self.store = Store()
        self.view = MemoryView(self.bus, CUSTOMER_MODELS)
        self.board = ProgressBoard(self.bus)
        self.sent: dict[int, list[Record]] = {partition: [] for partition in range(PARTITIONS)}

    @asynccontextmanager
    async def analyzer(self) -> AsyncIterator[None]:
        settings = AnalyzerSettings(data_dir=self.folder, kafka="")
        bus = Deaf()
        bus._broker = self.bus._broker
        Deaf.deaf = False
        service = create_service(
            settings, bus=bus, store=self.store, clock=ManualClock(NOW), random=Random(1)
        )
        async with running(service):
            yield

    async def post(self, *customers: str) -> None:
        for customer in customers:
            records = self.sent[partition_of(customer)]
            headers = (("spool", SPOOL.encode()), ("seq", b"%d" % (len(records) + 1)))
            event = Touchpoint(
                id=f"{customer}-{len(records)}",
                source="shop",
                customer=customer,
                occurred_at=NOW,
                recorded_at=NOW,
                type="page_viewed",
                channel="web",
                properties={},
            )
            records.append(Record(customer.encode(), encode_event(event), headers))
            await self.bus.producer().send(CUSTOMER_EVENTS, partition_of(customer), records[-1:])

    async def ship_again(self) -> None:
        for partition, records in self.sent.items():
            if records:
                await self.bus.producer().send(CUSTOMER_EVENTS, partition, records)

    async def lose(self, cluster: str) -> None:
        self.bus.replace_cluster(cluster)
        await self.bus.ensure_topics(TOPICS)
        await until(lambda: self.view.cluster == cluster)

    @property
    def applied(self) -> int:
        return sum(self.board.applied(SPOOL).values())

    @property
    def posted(self) -> int:
        return sum(map(len, self.sent.values()))

    def stored(self) -> dict[bytes, bytes]:
        return {model_key(row.customer, row.part): row.body for row in self.store.rows.values()}

    async def whole(self) -> None:
        """Wait until everything is applied, and the view has what the store has, and nothing else."""
        await until(lambda: self.applied == self.posted and self.view.outstanding() == 0)
        await until(lambda: dict(self.view.scan()) == self.stored())
        totals = sum(event.kind == "touchpoint" for event in self.store.stored)
        assert totals == self.posted


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(follower, "_PAUSE", 0.01)
    monkeypatch.setattr(follower, "_POLL", 0.02)
    monkeypatch.setattr("libs.common.progress._PAUSE", 0.01)
    monkeypatch.setattr(consumer, "MODELS_AT_ONCE", 2)
    made = Rig(tmp_path)
    await made.bus.ensure_topics(TOPICS)
    await made.view.start()
    await made.board.start()
    yield made
    await made.board.stop()
    await made.view.stop()


PEOPLE = tuple(f"u-{n}" for n in range(60))


async def test_marker_closes_each_partition_before_its_progress(rig: Rig) -> None:
    async with rig.analyzer():
        await rig.post(*PEOPLE)
        await rig.whole()
        await rig.lose("memory-2")
        await rig.ship_again()
        await rig.whole()
        assert rig.view.cluster == "memory-2"
    for partition in range(PARTITIONS):
        messages = rig.bus.records(CUSTOMER_MODELS, partition)
        [place] = [at for at, message in enumerate(messages) if message.key == MARKER_KEY]
        keys = {row.customer: row.part for row in rig.store.rows.values() if row.partition == partition}
        assert {model_key(*key) for key in keys.items()} <= {message.key for message in messages[:place]}
        assert decode_marker(messages[place].value or b"").number == rig.store.states[partition].losses == 1
        progress = rig.board.of(partition)
        assert progress is not None
        assert (progress.cluster, progress.models_offset > place) == ("memory-2", True)


async def test_progress_is_silent_until_the_models_are_published_again(rig: Rig) -> None:
    async with rig.analyzer():
        await rig.post(*PEOPLE)
        await rig.whole()
        rig.store.going.clear()
        await rig.lose("memory-2")
        await until(lambda: rig.store.waiting > 3)
        stuck = [p for p in range(PARTITIONS) if rig.board.of(p) is None]
        assert stuck
        assert rig.bus.records(PROGRESS) == [] or len(stuck) < PARTITIONS
        assert len(dict(rig.view.scan())) == len(rig.stored()), "the old content is served on"
        rig.store.going.set()
        await rig.ship_again()
        await rig.whole()


async def test_takeover_half_way_through_publishes_everything(rig: Rig) -> None:
    async with rig.analyzer():
        await rig.post(*PEOPLE)
        await rig.whole()
        rig.store.going.clear()
        await rig.lose("memory-2")
        await until(lambda: rig.store.waiting > 3)
        async with rig.analyzer():
            await rig.post(*PEOPLE[:10])
            rig.store.going.set()
            await rig.ship_again()
            await rig.whole()


async def test_crash_half_way_and_a_second_loss_end_right(rig: Rig) -> None:
    async with rig.analyzer():
        await rig.post(*PEOPLE)
        await rig.whole()
        rig.store.going.clear()
        await rig.lose("memory-2")
        await until(lambda: rig.store.waiting > 3)
    rig.store.waiting = 0
    async with rig.analyzer():
        await until(lambda: rig.store.waiting > 3)
        await rig.lose("memory-3")
        rig.store.going.set()
        await rig.ship_again()
        await rig.whole()


async def test_customer_erased_meanwhile_does_not_come_back(rig: Rig) -> None:
    async with rig.analyzer():
        await rig.post(*PEOPLE)
        await rig.whole()
    gone = [key for key in rig.store.rows if key[0] == "u-7"]
    for key in gone:
        del rig.store.rows[key]
    await rig.lose("memory-2")
    assert rig.view.get(model_key("u-7", "profile")) is not None
    async with rig.analyzer():
        await rig.ship_again()
        await rig.whole()
    assert rig.view.get(model_key("u-7", "profile")) is None
    assert rig.view.swept == len(gone)


async def test_journal_made_anew_on_the_same_cluster_is_read_from_its_start(rig: Rig) -> None:
    async with rig.analyzer():
        await rig.post(*PEOPLE, *PEOPLE)
        await rig.whole()
        rig.bus.recreate(CUSTOMER_EVENTS)
        # What was not applied is shipped again, with what was: it is recognised.
        await rig.ship_again()
        await rig.post(*PEOPLE[:5])
        await rig.whole()
    rig.bus.recreate(CUSTOMER_EVENTS)
    await rig.post(*PEOPLE[:5])
    async with rig.analyzer():
        await rig.whole()


async def test_models_topic_made_anew_on_the_same_cluster_is_filled_again(rig: Rig) -> None:
    async with rig.analyzer():
        await rig.post(*PEOPLE)
        await rig.whole()
        rig.bus.recreate(CUSTOMER_MODELS)
        # Noticed when a model is published, acted upon with the next record of any partition (a tick).
        await rig.post("u-1")
        await until(lambda: rig.applied == rig.posted or bool(rig.bus.records(CUSTOMER_MODELS)))
        await asyncio.sleep(0.02)
        await rig.post("u-2")
        await until(lambda: len({m.partition for m in rig.bus.records(CUSTOMER_MODELS)}) == PARTITIONS)
        await rig.whole()
    fresh = MemoryView(rig.bus, CUSTOMER_MODELS)
    await fresh.start()
    await until(lambda: dict(fresh.scan()) == rig.stored())
    await fresh.stop()


async def test_models_that_the_bus_does_not_take_are_bounded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "MOST_WAITING", 3)
    most = 0
    room = publisher.BusPublisher.room

    async def quick(self: publisher.BusPublisher, partition: int, timeout: float = 0.01) -> bool:
        nonlocal most
        most = max(most, *(len(lane.models) for lane in self._lanes.values()))
        return await room(self, partition, 0.01)

    monkeypatch.setattr(publisher.BusPublisher, "room", quick)
    same = [name for name in (f"v-{n}" for n in range(400)) if partition_of(name) == 0]
    async with rig.analyzer():
        await rig.post("v-1")
        await rig.whole()
        Deaf.deaf = True
        for name in same:
            await rig.post(name)
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.05)
        # A slice may add what it holds, none begins while there is too much.
        assert 0 < most < 2 * len(same)
        assert rig.applied < rig.posted
        Deaf.deaf = False
        await rig.whole()
