"""What a dialect costs: the same facts in batches of 100, in Segment's words, as CloudEvents, and in ours."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import uvloop

from tests.benchmarks.load import Result, request, saturate
from tests.benchmarks.rig import KEY, Rig
from tests.benchmarks.rows import Row

BATCH = 100
ROUNDS = 5
SECONDS = 2.0
THROUGH = b"Closedloop-Durability: bus\r\n"
PAGE = {"path": "/coffee", "url": "https://shop.example/coffee", "title": "Coffee", "referrer": ""}
LIBRARY = {"name": "analytics-python", "version": "2.4.0"}


@dataclass
class Tongue:
    """A way of saying it: path, what one event looks like, and what a body is made of."""

    path: str
    event: Callable[[str, str, str], dict[str, Any]]
    body: Callable[[list[dict[str, Any]]], object] = list
    rates: list[float] = field(default_factory=list)
    micros: list[float] = field(default_factory=list)
    failed: int = 0


def native(event_id: str, visitor: str, product: str) -> dict[str, Any]:
    """In our words."""
    return {
        "id": event_id,
        "type": "product_viewed",
        "channel": "web",
        "anonymous_id": visitor,
        "occurred_at": _now(),
        "properties": {"product_id": product, "price": 7.5, "category": "grocery/coffee"},
        "context": {"page": PAGE},
    }


def segment(event_id: str, visitor: str, product: str) -> dict[str, Any]:
    """As a client of Segment says it."""
    return {
        "integrations": {},
        "anonymousId": visitor,
        "properties": {"product_id": product, "price": 7.5, "category": "grocery/coffee"},
        "timestamp": _now(),
        "context": {"page": PAGE, "library": LIBRARY},
        "type": "track",
        "event": "Product Viewed",
        "messageId": event_id,
    }


def cloudevent(event_id: str, visitor: str, product: str) -> dict[str, Any]:
    """As a CloudEvent."""
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "https://shop.example/web",
        "type": "example.shop.product_viewed",
        "anonymousid": visitor,
        "channel": "web",
        "time": _now(),
        "data": {"product_id": product, "price": 7.5, "category": "grocery/coffee"},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def dialects(rig: Rig) -> list[Row]:
    """Batches in each tongue by turns; medians of the rounds."""
    rig.alone("collector")
    numbers = itertools.count()
    tongues = {
        "native": Tongue("/v1/touchpoints", native),
        "Segment": Tongue(
            "/v1/batch", segment, lambda events: {"batch": events, "sentAt": _now(), "writeKey": KEY}
        ),
        "CloudEvents": Tongue("/v1/events", cloudevent),
    }
    for _ in range(ROUNDS):
        for tongue in tongues.values():
            _measure(rig, tongue, numbers)
    ours = tongues.pop("native")
    base, least = statistics.median(ours.rates), statistics.median(ours.micros)
    rows = []
    for name, tongue in tongues.items():
        rate, micros = statistics.median(tongue.rates), statistics.median(tongue.micros)
        failed = tongue.failed + ours.failed
        rows.append(
            Row(
                f"collector, batches of 100 in the words of {name}, through to Kafka",
                f"{rate:,.0f} events/s, {micros:.0f} µs CPU an event"
                + (f", {failed} FAILED" if failed else ""),
                f"the same in ours {base:,.0f} events/s, {least:.0f} µs",
                rate / base,
                "≥ 0.5 ×",
                rate / base >= 0.5 and not failed,
            )
        )
    return rows


def _measure(rig: Rig, tongue: Tongue, numbers: itertools.count[int]) -> None:
    bodies = []
    for _ in range(600):
        n = next(numbers)
        events = [tongue.event(f"d{n}-{i}", f"v{(n * 100 + i) % 1000}", f"p{i}") for i in range(BATCH)]
        body = request(tongue.path, msgspec.json.encode(tongue.body(events)), KEY)
        bodies.append(body.replace(b"Content-Type", THROUGH + b"Content-Type", 1))
    left = itertools.cycle(bodies)
    before = rig.cpu_seconds("collector")
    full: Result = uvloop.run(saturate(rig.port("collector"), lambda: next(left), 8, SECONDS))
    events = BATCH * len(full.latencies)
    tongue.rates.append(events / full.seconds)
    tongue.micros.append(1e6 * (rig.cpu_seconds("collector") - before) / events)
    tongue.failed += full.failed
