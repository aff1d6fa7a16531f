"""Over HTTP: what is answered at an hour of the day and by a channel, once orders have told of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np

from libs.common.bus.ports import Message
from libs.common.clock import DAY, HOUR
from libs.common.contracts.catalogue import Product, encode_entry, entry_key
from libs.common.contracts.customer_model import Items
from libs.common.contracts.topics import CATALOGUE
from libs.common.times import format_time
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.model.lessons import LessonLine, OrderLesson
from tests.contract.recommender_world import NOW, SHELF, ask, products, stocked

MIDNIGHT = NOW // DAY * DAY
WANTED = {("web", 8): "bread", ("web", 20): "tea", ("phone", 8): "honey", ("phone", 20): "honey"}
"""Bread in the morning, tea in the evening, honey by phone."""


def catalogue() -> Catalogue:
    known = Catalogue()
    for name, (category, price) in SHELF.items():
        entry = Product(product_id=name, name=name, category=category, price=price, currency="EUR")
        key = entry_key("product", name)
        known.on_batch([Message(CATALOGUE, 0, 0, key, encode_entry(entry), (), 0)])
    return known


def orders(many: int) -> Iterator[OrderLesson]:
    """Of customers who come once; six in ten take what their occasion asks for, the others anything."""
    random, names = np.random.default_rng(2), list(SHELF)
    for n in range(many):
        channel, hour = list(WANTED)[int(random.choice(4, p=[0.35, 0.35, 0.15, 0.15]))]
        wanted = WANTED[channel, hour] if random.random() < 0.6 else names[int(random.integers(len(names)))]
        at = MIDNIGHT - (many // 10 - n // 10) * DAY + hour * HOUR
        yield OrderLesson(
            customer=f"c{n}",
            at=at,
            occurred_at=at,
            order_id=f"o{n}",
            lines=[LessonLine(wanted, 1.0, 1.0)],
            channel=channel,
            before=Items(customer=f"c{n}"),
        )


async def best(client: httpx.AsyncClient, hour: int, channel: str) -> str:
    at = format_time(MIDNIGHT - DAY + hour * HOUR)
    return products(await ask(client, at=at, dry_run=True, limit=3, channel=channel))[0]


async def test_hour_and_channel_of_the_request_decide_and_the_decision_says_so(tmp_path: Path) -> None:
    world = await stocked(tmp_path)
    async with world.up() as client:
        world.progress()
        before = {await best(client, hour, channel) for channel, hour in WANTED}
        assert len(before) == 1
        world.learns(orders(600), catalogue())
        found = {(channel, hour): await best(client, hour, channel) for channel, hour in WANTED}
        # A channel no order ever came by speaks for nothing, and the hour still does.
        unheard = [await best(client, hour, "sign") for hour in (8, 20)]
        answer = await ask(client, decision_id="d1", channel="phone")
        decision = (await client.get("/v1/decisions/d1")).json()
    assert found == WANTED
    assert unheard == ["bread", "tea"]
    assert products(answer)[0] == "honey"
    told = {
        one["product_id"]: one["contributions"] for one in decision["candidates"] if "contributions" in one
    }
    assert told["honey"]["channel_fit"] > 0.2
    assert set(told["honey"]) >= {"hour_fit", "channel_fit"}
