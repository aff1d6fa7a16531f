"""The learner on orders of nine lines: lessons are put where slices put them, and learned."""

from __future__ import annotations

import json
import re
import time
import urllib.request

import asyncpg
import numpy as np
import uvloop

from libs.common.contracts.identity import PARTITIONS
from services.analyzer.model.lessons import ORDER, LessonLine, OrderLesson, encode_lesson
from tests.benchmarks.rig import Rig
from tests.benchmarks.rows import Row

ORDERS = 40_000
PRODUCTS = 3_000
LINES = 9

Lesson = tuple[int, int, int, str, bytes]


def learner(rig: Rig) -> Row:
    """The learner alone on one core, from the commit of the lessons until all of them are learned."""
    noted = json.loads((rig.data_dir / "platform.json").read_text())
    rig.alone("learner")
    uvloop.run(_write(noted["postgres"], _lessons(int(time.time() * 1000) - 3_600_000)))
    before, began = rig.cpu_seconds("learner"), time.perf_counter()
    while (done := _learned(rig)) < ORDERS:
        if time.perf_counter() - began > 120:
            raise RuntimeError(f"the learner took {done} of {ORDERS} orders in 120 s")
        time.sleep(0.1)
    rate = ORDERS / (time.perf_counter() - began)
    micros = 1e6 * (rig.cpu_seconds("learner") - before) / ORDERS
    return Row(
        f"learner, orders of {LINES} lines, {PRODUCTS:,} products, solves and publications included",
        f"{rate:,.0f} orders/s, {micros:.0f} µs CPU an order",
        "–",
        None,
        "≥ 2,000/s",
        rate >= 2_000,
    )


def _lessons(first: int) -> list[Lesson]:
    """Orders over an hour, of products as unevenly popular as a supermarket's."""
    draw = np.random.default_rng(1)
    share = np.cumsum(1 / np.arange(1, PRODUCTS + 1) ** 0.8)
    found: list[Lesson] = []
    for n in range(ORDERS):
        at = first + n * 3_000_000 // ORDERS
        chosen: dict[int, None] = {}
        while len(chosen) < LINES:
            chosen[int(np.searchsorted(share, draw.random() * share[-1]))] = None
        lines = [LessonLine(f"p{product}", 1.0, 2.5) for product in chosen]
        lesson = OrderLesson(customer=f"c{n % 5_000}", at=at, occurred_at=at, order_id=f"o{n}", lines=lines)
        found.append((n % PARTITIONS, n + 1, at // 1000, ORDER, encode_lesson(lesson)))
    return found


async def _write(postgres: str, lessons: list[Lesson]) -> None:
    connection = await asyncpg.connect(postgres)
    await connection.copy_records_to_table("lessons", schema_name="analyzer", records=lessons)
    await connection.close()


def _learned(rig: Rig) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{rig.port('learner')}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(r"^closedloop_learner_orders_folded_rows (\S+)$", text, re.MULTILINE)
    return int(float(found.group(1))) if found else 0
