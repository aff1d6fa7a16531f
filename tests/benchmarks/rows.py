"""The rows: what is measured, against which yardstick, with which bar."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import uvloop
from aiokafka import AIOKafkaProducer

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import TopicSpec
from libs.common.contracts.identity import PARTITIONS, partition_of
from tests.benchmarks.analyzer import rates
from tests.benchmarks.load import Result, pace, request, saturate
from tests.benchmarks.rig import KEY, Rig, free_port_base, platform

SECONDS = 6.0


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    measured: str
    yardstick: str
    ratio: float | None
    bar: str
    holds: bool


@contextmanager
def bare() -> Iterator[int]:
    """The bare endpoint on the measured core; yields its port."""
    port = free_port_base() + 15
    process = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, "-m", "tests.benchmarks.bare", str(port)]
    )
    try:
        for _ in range(100):
            try:
                uvloop.run(saturate(port, lambda: request("/bare", b"{}"), 1, 0.1))
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def touchpoints() -> Callable[[], bytes]:
    """Requests with one touchpoint each, of ever new ids and a thousand visitors."""
    numbers = itertools.count()

    def make() -> bytes:
        n = next(numbers)
        body = {
            "id": f"b{n}",
            "type": "product_viewed",
            "channel": "web",
            "anonymous_id": f"v{n % 1000}",
            "properties": {"product_id": f"p{n % 500}"},
        }
        return request("/v1/touchpoints", msgspec.json.encode(body), KEY)

    return make


def collector_single(rig: Rig, connections: int) -> Row:
    """Single events, durable 202, against the bare endpoint with the same body."""
    rig.alone("collector")
    make = touchpoints()
    port = rig.port("collector")
    with bare() as yardstick:
        sample = make().split(b"\r\n\r\n", 1)[1]
        constant = request("/bare", sample)
        base = uvloop.run(saturate(yardstick, lambda: constant, connections, SECONDS))
    full = uvloop.run(saturate(port, make, connections, SECONDS))
    half = uvloop.run(pace(port, make, connections, full.rate / 2, SECONDS))
    ratio = full.rate / base.rate
    p99 = half.quantile(0.99)
    return Row(
        f"collector, single event, durable 202, {connections} connections",
        f"{full.rate:,.0f}/s, p99 {p99:.1f} ms at half load{_failures(full, half)}",
        f"bare {base.rate:,.0f}/s",
        ratio,
        "≥ 0.8 ×, p99 ≤ 20 ms",
        ratio >= 0.8 and p99 <= 20 and not full.failed + half.failed,
    )


def collector_batches(rig: Rig) -> Row:
    """Batches of 100 through to Kafka, against msgspec decode + send_batch in a bare loop."""
    rig.alone("collector")
    numbers = itertools.count()

    def body() -> bytes:
        n = next(numbers)
        items = [
            {
                "id": f"g{n}-{i}",
                "type": "product_viewed",
                "channel": "web",
                "anonymous_id": f"v{(n * 100 + i) % 1000}",
                "properties": {"product_id": f"p{i}"},
            }
            for i in range(100)
        ]
        return msgspec.json.encode(items)

    bodies = [body() for _ in range(4000)]
    left = iter(bodies)
    head = b"Closedloop-Durability: bus\r\nContent-Type"

    def make() -> bytes:
        return request("/v1/touchpoints", next(left), KEY).replace(b"Content-Type", head, 1)

    before = rig.cpu_seconds("collector")
    full = uvloop.run(saturate(rig.port("collector"), make, 8, SECONDS))
    cpu = rig.cpu_seconds("collector") - before
    events = 100 * len(full.latencies)
    base = uvloop.run(_bare_sender(_kafka_of(rig), bodies[:500]))
    rate = events / full.seconds
    ratio, micros = rate / base, 1e6 * cpu / events
    return Row(
        "collector, batches of 100, durable 202, through to Kafka",
        f"{rate:,.0f} events/s, {micros:.0f} µs CPU an event{_failures(full)}",
        f"decode + send_batch {base:,.0f} events/s",
        ratio,
        "≥ 0.5 ×, ≤ 20 µs",
        ratio >= 0.5 and micros <= 20 and not full.failed,
    )


async def _bare_sender(kafka: str, bodies: list[bytes]) -> float:
    """Events a second of the least that could be done: decode, one batch a partition, send."""
    bus = KafkaBus(kafka)
    await bus.ensure_topics([TopicSpec("bench", PARTITIONS, {})])
    await bus.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", compression_type="zstd")
    await producer.start()
    try:
        begin = time.perf_counter()
        for body in bodies:
            batches = {}
            for item in msgspec.json.decode(body):
                partition = partition_of(item["anonymous_id"])
                if partition not in batches:
                    batches[partition] = producer.create_batch()
                batches[partition].append(
                    key=item["anonymous_id"].encode(), value=msgspec.json.encode(item), timestamp=None
                )
            sent = [await producer.send_batch(b, "bench", partition=p) for p, b in batches.items()]
            await asyncio.wait_for(asyncio.gather(*sent), 10)
        return 100 * len(bodies) / (time.perf_counter() - begin)
    finally:
        await asyncio.wait_for(producer.stop(), 5)


def _kafka_of(rig: Rig) -> str:
    noted = json.loads((rig.data_dir / "platform.json").read_text())
    return str(noted["kafka"])


def recommender(rig: Rig, products: int, customers: int) -> Row:
    """10 offers for any of the customers, against the bare endpoint."""
    prepare_shop(rig, products, customers)
    rig.alone("recommender")
    rng = random.Random(1)

    def make() -> bytes:
        body = {
            "placement": "basket",
            "customer_id": f"c{rng.randrange(customers)}",
            "limit": 10,
            "context": {"basket": [f"p{rng.randrange(products)}"]},
        }
        return request("/v1/recommendations", msgspec.json.encode(body), KEY)

    port = rig.port("recommender")
    with bare() as yardstick:
        constant = request("/bare", make().split(b"\r\n\r\n", 1)[1])
        base = uvloop.run(saturate(yardstick, lambda: constant, 64, SECONDS))
    uvloop.run(saturate(port, make, 64, 1.0))
    full = uvloop.run(saturate(port, make, 64, SECONDS))
    half = uvloop.run(pace(port, make, 64, full.rate / 2, SECONDS))
    ratio, p99 = full.rate / base.rate, half.quantile(0.99)
    return Row(
        f"recommender, {products:,} products, {customers:,} customers, 10 offers",
        f"{full.rate:,.0f}/s, p99 {p99:.1f} ms at half load{_failures(full, half)}",
        f"bare {base.rate:,.0f}/s",
        ratio,
        "≥ 0.2 ×, p99 ≤ 10 ms",
        ratio >= 0.2 and p99 <= 10 and not full.failed + half.failed,
    )


def prepare_shop(rig: Rig, products: int, customers: int) -> None:
    """Fill the platform over HTTP: a catalogue, and three orders of four products for each customer."""
    rng = random.Random(0)
    shelf = [
        {
            "product_id": f"p{n}",
            "name": f"Product {n}",
            "category": f"shop/c{n % 25}",
            "price": round(rng.uniform(1, 50), 2),
            "currency": "EUR",
        }
        for n in range(products)
    ]
    for start in range(0, len(shelf), 1_000):
        rig.call("recommender", "/v1/products", {"products": shelf[start : start + 1_000]})
    orders = [
        {
            "id": f"o{c}-{k}",
            "type": "order_completed",
            "channel": "web",
            "customer_id": f"c{c}",
            "properties": {
                "order_id": f"o{c}-{k}",
                "products": [
                    {"product_id": f"p{int(products * rng.random() ** 2)}", "quantity": 1, "price": 5}
                    for _ in range(4)
                ],
            },
        }
        for c in range(customers)
        for k in range(3)
    ]
    for start in range(0, len(orders), 1000):
        rig.call("collector", "/v1/touchpoints", {"touchpoints": orders[start : start + 1000]})
    deadline = time.monotonic() + 60 + len(orders) / 500
    while rig.call("analyzer", "/v1/ledger")["in_flight"] or _orders_learned(rig) < len(orders):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the shop's {len(orders)} orders are not all learned")
        time.sleep(0.5)
    time.sleep(5)


def _orders_learned(rig: Rig) -> int:
    learned = rig.call("analyzer", "/v1/models")["learned"]
    assert isinstance(learned, dict)
    return int(learned["orders"])


def analyzer(rig: Rig) -> Row:
    """A mixed journal into models, against consume, decode and upsert in a bare loop."""
    rate, base = rates(rig)
    return Row(
        "analyzer, mixed events",
        f"{rate:,.0f} events/s",
        f"consume + decode + upsert {base:,.0f} events/s",
        rate / base,
        "≥ 0.35 ×",
        rate / base >= 0.35,
    )


def loop_closure(rig: Rig) -> Row:
    """From a 202 to a recommendation whose model includes the event, at 200 events/s background."""
    samples = uvloop.run(_closures(rig, 300))
    p50, p99 = statistics.median(samples), sorted(samples)[int(0.99 * len(samples))]
    return Row(
        "loop closure: 202 → the next recommendation has seen it",
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms at 200 events/s",
        "–",
        None,
        "p99 ≤ 150 ms",
        p99 <= 150,
    )


async def _closures(rig: Rig, samples: int) -> list[float]:
    stop = asyncio.Event()
    background = asyncio.create_task(_background(rig, stop))
    took: list[float] = []
    try:
        for n in range(samples):
            who = f"loop{n % 50}"
            touch = {
                "type": "product_viewed",
                "channel": "web",
                "customer_id": who,
                "properties": {"product_id": "p1"},
            }
            answer = await exchange(
                rig.port("collector"), request("/v1/touchpoints", msgspec.json.encode(touch), KEY)
            )
            begin = time.perf_counter()
            ask = {
                "placement": "basket",
                "customer_id": who,
                "after": answer["position"],
                "wait_ms": 1000,
                "dry_run": True,
            }
            reply = await exchange(
                rig.port("recommender"), request("/v1/recommendations", msgspec.json.encode(ask), KEY)
            )
            took.append((time.perf_counter() - begin) * 1000 if reply["fresh"] else 1000.0)
            await asyncio.sleep(0.02)
    finally:
        stop.set()
        await background
    return took


async def _background(rig: Rig, stop: asyncio.Event) -> None:
    make = touchpoints()
    while not stop.is_set():
        await pace(rig.port("collector"), make, 8, 200, 1.0)


async def exchange(port: int, data: bytes) -> dict[str, object]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    body = await reader.readexactly(length)
    writer.close()
    decoded: dict[str, object] = msgspec.json.decode(body)
    return decoded


def start() -> Row:
    """From the command to `closedloop is ready`, three times."""
    times: list[float] = []
    for _ in range(3):
        with platform() as rig:
            times.append(rig.seconds_to_ready)
    median = statistics.median(times)
    return Row(
        "`closedloop up` to ready",
        f"{median:.1f} s (of {', '.join(f'{t:.1f}' for t in times)})",
        "–",
        None,
        "≤ 12 s",
        median <= 12,
    )


def _failures(*results: Result) -> str:
    failed = sum(result.failed for result in results)
    return f", {failed} FAILED" if failed else ""
