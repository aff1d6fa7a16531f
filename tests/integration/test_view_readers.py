"""One process writes a view, many read it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import lmdb

from libs.common.bus.memory import MemoryBus
from libs.common.bus.ports import Record
from libs.common.contracts.topics import CUSTOMER_MODELS, TOPICS
from libs.common.view import View


async def test_other_processes_read_while_the_map_grows(tmp_path: Path) -> None:
    bus = MemoryBus()
    await bus.ensure_topics(TOPICS)
    view = View(bus, CUSTOMER_MODELS, tmp_path, map_size=1 << 16)
    await view.start()
    await bus.producer().send(CUSTOMER_MODELS, 0, [Record(b"ann", b"1")])
    assert await view.reached(0, 1, 5)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_reads, [(str(tmp_path), 1)] * 2) == [True, True]
        records = [Record(b"k%d" % number, bytes(20_000)) for number in range(40)]
        await bus.producer().send(CUSTOMER_MODELS, 0, records)
        assert await view.reached(0, 41, 5)
        assert pool.starmap(_reads, [(str(tmp_path), 41)] * 2) == [True, True]
    await view.stop()


def _reads(path: str, entries: int) -> bool:
    env = lmdb.open(path, readonly=True, create=False, map_size=0)
    try:
        with env.begin() as transaction, transaction.cursor() as cursor:
            return sum(bytes(key).startswith(b"k") for key, _ in cursor) == entries
    finally:
        env.close()
