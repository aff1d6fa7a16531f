"""A collector that lives in the time of its data: recorded when it occurred, ticks as the data says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from libs.common.bus.memory import MemoryBus
from libs.common.clock import DAY, HOUR, SECOND, JournalClock, WallClock
from libs.common.contracts.customer_event import Tick, Touchpoint
from libs.common.contracts.progress import Progress
from libs.common.progress import ProgressBoard
from libs.common.runtime import running
from libs.common.spool.memory import MemoryJournal
from libs.common.times import format_time, parse_time
from services.collector.app import create_service
from services.collector.settings import CollectorSettings

START = parse_time("2017-03-01T10:00:00Z", "")


class Replay:
    """A caller, and what the collector wrote."""

    def __init__(self, http: httpx.AsyncClient, journal: MemoryJournal, board: ProgressBoard) -> None:
        self.http = http
        self.journal = journal
        self.board = board

    async def post(self, *times: int) -> list[Touchpoint]:
        before = len(self.journal.events)
        items = [
            {
                "type": "visit_completed",
                "channel": "store",
                "customer_id": "c",
                "occurred_at": format_time(at),
            }
            for at in times
        ]
        answer = await self.http.post("/v1/touchpoints", json=items)
        assert answer.status_code == 202
        return [event for event in self.journal.events[before:] if isinstance(event, Touchpoint)]

    def ticks(self, partition: int = 5) -> list[int]:
        ticks = [event for event in self.journal.events if isinstance(event, Tick)]
        return [tick.recorded_at for tick in ticks if tick.partition == partition]

    async def closed(self) -> list[int]:
        """The ticks, once no more come."""
        seen = -1
        while seen != len(self.ticks()):
            seen = len(self.ticks())
            await asyncio.sleep(0.35)
        return self.ticks()


@pytest.fixture
async def replay(tmp_path: Path) -> AsyncIterator[Replay]:
    bus = MemoryBus()
    journal, board = MemoryJournal(bus), ProgressBoard()
    service = create_service(
        CollectorSettings(data_dir=tmp_path, dev_key="dev-key", clock="journal"),
        bus=bus,
        journal=journal,
        board=board,
        clock=JournalClock(),
        wall=WallClock(),
    )
    headers = {"authorization": "Bearer dev-key"}
    async with (
        running(service),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(service.app), base_url="http://c", headers=headers
        ) as http,
    ):
        yield Replay(http, journal, board)


async def test_event_is_recorded_when_it_occurred(replay: Replay) -> None:
    events = await replay.post(START + HOUR, START)
    assert [(e.recorded_at, e.occurred_at, e.learn) for e in events] == [
        (START + HOUR, START + HOUR, True),
        (START, START, True),
    ]


async def test_silence_is_closed_once_and_for_all(replay: Replay) -> None:
    await replay.post(START, START + 30 * SECOND)
    ticks = await replay.closed()
    assert ticks == [START + 30 * SECOND, START + 31 * SECOND]
    replay.board.put(progress(START + 31 * SECOND))
    assert await replay.closed() == ticks


async def test_event_far_ahead_is_kept_flagged_and_moves_nothing(replay: Replay) -> None:
    await replay.post(START)
    closed = await replay.closed()
    (leap,) = await replay.post(START + 402 * DAY)
    assert (leap.learn, leap.flags) == (False, ("out_of_window",))
    assert leap.occurred_at == START + 402 * DAY
    assert leap.recorded_at == closed[-1]
    assert max(await replay.closed()) < START + HOUR


@pytest.mark.parametrize("year", [1, 9999])
async def test_first_and_last_year_move_nothing(replay: Replay, year: int) -> None:
    await replay.post(START, parse_time(f"{year:04}-06-01", ""))
    assert max(await replay.closed()) == START + SECOND


async def test_now_follows_the_greatest_journal_time_in_progress(replay: Replay) -> None:
    await replay.post(START)
    await replay.closed()
    replay.board.put(progress(START + DAY))
    assert (await replay.closed())[-2:] == [START + DAY, START + DAY + SECOND]
    answer = await replay.http.post(
        "/v1/touchpoints", json={"type": "visit_completed", "channel": "web", "customer_id": "c"}
    )
    assert answer.status_code == 202
    event = [event for event in replay.journal.events if isinstance(event, Touchpoint)][-1]
    assert event.recorded_at == event.occurred_at == START + DAY + SECOND


def progress(journal_time: int) -> Progress:
    return Progress(partition=5, cluster="c", epoch=1, applied={}, journal_time=journal_time, models_offset=0)
