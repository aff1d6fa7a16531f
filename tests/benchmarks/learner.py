"""The learner on orders of nine lines: lessons are put where slices put them, and learned."""

from __future__ import annotations

import json
import re
import time
import urllib.request

import asyncpg
import numpy as np
import uvloop
from msgspec.structs import replace

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_model import Decayed, Item, Items
from libs.common.contracts.identity import PARTITIONS
from services.analyzer.model.lessons import ORDER, LessonLine, OrderLesson, encode_lesson
from tests.benchmarks.rig import Rig
from tests.benchmarks.rows import Row

ORDERS = 40_000
LINES = 9
HISTORIES = 5_000
"""So many different ones; of more customers several have the same."""
KNOWN = 60
"""Products in what was known of each customer."""

Lesson = tuple[int, int, int, str, bytes]


def learner(rig: Rig, products: int, customers: int) -> Row:
    """The learner alone on one core, from the commit of the lessons until all of them are learned."""
    noted = json.loads((rig.data_dir / "platform.json").read_text())
    shelf = [_product(n) for n in range(products)]
    for first in range(0, products, 1_000):
        rig.call("recommender", "/v1/products", shelf[first : first + 1_000])
    rig.alone("learner")
    uvloop.run(_write(noted["postgres"], _lessons(int(time.time() * 1000) - 3_600_000, products, customers)))
    before, began = rig.cpu_seconds("learner"), time.perf_counter()
    while (done := _learned(rig)) < ORDERS:
        if time.perf_counter() - began > 120:
            raise RuntimeError(f"the learner took {done} of {ORDERS} orders in 120 s")
        time.sleep(0.1)
    rate = ORDERS / (time.perf_counter() - began)
    micros = 1e6 * (rig.cpu_seconds("learner") - before) / ORDERS
    return Row(
        f"learner, orders of {LINES} lines, {products:,} products, {customers:,} customers, "
        "solves, choices and publications included",
        f"{rate:,.0f} orders/s, {micros:.0f} µs CPU an order",
        "–",
        None,
        "≥ 2,000/s",
        rate >= 2_000,
    )


def _lessons(first: int, products: int, customers: int) -> list[Lesson]:
    """Orders over an hour, of products as unevenly popular as a supermarket's."""
    draw = np.random.default_rng(1)
    known = [_items(f"c{n}", first, products, draw) for n in range(min(customers, HISTORIES))]
    share = np.cumsum(1 / np.arange(1, products + 1) ** 0.8)
    found: list[Lesson] = []
    for n in range(ORDERS):
        at = first + n * 3_000_000 // ORDERS
        chosen: dict[int, None] = {}
        while len(chosen) < LINES:
            chosen[int(np.searchsorted(share, draw.random() * share[-1]))] = None
        lines = [LessonLine(f"p{product}", 1.0, 2.5) for product in chosen]
        before = replace(known[n % len(known)], customer=f"c{n % customers}")
        lesson = OrderLesson(
            customer=before.customer,
            at=at,
            occurred_at=at,
            order_id=f"o{n}",
            lines=lines,
            channel="web",
            before=before,
        )
        found.append((n % PARTITIONS, n + 1, at // 1000, ORDER, encode_lesson(lesson)))
    return found


def _items(customer: str, now: Millis, products: int, draw: np.random.Generator) -> Items:
    """What was known of a customer: products he bought over the last months, some of them often."""
    times = draw.geometric(0.5, KNOWN).tolist()
    ages = (draw.random(KNOWN) * 120 * DAY).astype(int).tolist()
    chosen = draw.choice(products, KNOWN, replace=False).tolist()
    items = {
        f"p{product}": Item(
            orders=orders,
            bought=Decayed(float(orders), now - age),
            last_bought_at=now - age,
            cycle=float(14 * DAY) if orders > 1 else 0.0,
            quantity=1.0,
            price=2.5,
        )
        for product, orders, age in zip(chosen, times, ages, strict=True)
    }
    return Items(customer=customer, items=items)


def _product(n: int) -> dict[str, object]:
    return {
        "product_id": f"p{n}",
        "name": f"Product {n}",
        "category": f"category {n % 150}",
        "price": 1.0 + n % 37,
        "currency": "EUR",
    }


async def _write(postgres: str, lessons: list[Lesson]) -> None:
    connection = await asyncpg.connect(postgres)
    columns = ["partition", "number", "second", "kind", "body"]
    await connection.copy_records_to_table(
        "lessons", schema_name="analyzer", columns=columns, records=lessons
    )
    await connection.close()


def _learned(rig: Rig) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{rig.port('learner')}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(r"^closedloop_learner_orders_folded_rows (\S+)$", text, re.MULTILINE)
    return int(float(found.group(1))) if found else 0
