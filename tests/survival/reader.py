"""The independent reader: confluent-kafka and plain SQL, with nothing of the product's own code.

Formats are read as documented: models as msgpack maps, journal records as JSON, headers as text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import asyncpg
import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

MARKER = "\x00marker"
"""Closes a republication; says nothing about a customer."""
SILENCE = 2.5
PATIENCE = 60.0


@dataclass
class Model:
    """One customer as the topic or the table has him: `totals` by type, `items` by product."""

    totals: dict[str, int] = field(default_factory=dict)
    purchases: tuple[int, float] = (0, 0.0)
    bought: dict[str, int] = field(default_factory=dict)
    viewed: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """Everything the judge needs at one moment.

    ``bodies`` are the parts of all models by ``customer/part``; ``events`` are (customer, kind, id).
    """

    bodies: dict[str, bytes]
    events: list[tuple[str, str, str]]
    dead_letters: int

    @property
    def digest(self) -> str:
        """SHA-256 over all parts in order."""
        return digest_of(self.bodies)


def digest_of(bodies: dict[str, bytes]) -> str:
    """Equal digests mean equal models."""
    total = sha256()
    for key in sorted(bodies):
        for piece in (key.encode(), bodies[key]):
            total.update(len(piece).to_bytes(8, "big"))
            total.update(piece)
    return total.hexdigest()


def models_of(bodies: dict[str, bytes]) -> dict[str, Model]:
    """Customers by key."""
    found: dict[str, Model] = {}
    for key, body in bodies.items():
        customer, _, part = key.rpartition("/")
        model = found.setdefault(customer, Model())
        data: dict[str, Any] = msgspec.msgpack.decode(body)
        if part == "profile":
            model.totals = data.get("totals", {})
            bought = data.get("purchases") or (0, 0.0)
            model.purchases = (bought[0], bought[1])
        else:
            for product, item in data.get("items", {}).items():
                model.bought[product] = item[0]
                model.viewed[product] = item[6][0]
    return found


def read_tables(postgres: str) -> Stored:
    """Models, events and dead letters as PostgreSQL has them."""
    return asyncio.run(_read_tables(postgres))


async def _read_tables(postgres: str) -> Stored:
    connection = await asyncpg.connect(postgres, timeout=30)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            models = await connection.fetch("SELECT customer, part, body FROM analyzer.models", timeout=120)
            events = await connection.fetch("SELECT customer, kind, id FROM analyzer.events", timeout=120)
            dead = await connection.fetchval("SELECT count(*) FROM analyzer.dead_letters", timeout=60)
    finally:
        await connection.close(timeout=5)
    bodies = {f"{row['customer']}/{row['part']}": bytes(row["body"]) for row in models}
    return Stored(bodies, [(row["customer"], row["kind"], row["id"]) for row in events], dead)


def read_models(kafka: str) -> dict[str, bytes]:
    """The newest model parts on ``customer-models``, by revision, as every reader must take them."""
    newest: dict[str, tuple[int, bytes | None]] = {}
    for message in read_topic(kafka, "customer-models"):
        headers = {name: bytes(value) for name, value in message.headers() or [] if value is not None}
        revision = int(headers.get("revision", b"0"))
        key = message.key().decode()
        if key == MARKER:
            continue
        if key not in newest or newest[key][0] <= revision:
            newest[key] = (revision, message.value())
    return {key: body for key, (_, body) in newest.items() if body is not None}


def read_topic(kafka: str, *topics: str) -> Iterator[Message]:
    """Every record of ``topics``, partition by partition, to its end.

    Trap: the embedded broker says too low where the end is, so the end is also where nothing more comes.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "survival-judge",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    try:
        found = consumer.list_topics(timeout=20).topics
        starts = [TopicPartition(topic, number, 0) for topic in topics for number in found[topic].partitions]
        consumer.assign(starts)
        last = begin = time.monotonic()
        while time.monotonic() - last < SILENCE and time.monotonic() - begin < PATIENCE:
            for message in consumer.consume(2_000, timeout=0.3):
                if message.error() is not None:
                    raise KafkaException(message.error())
                last = time.monotonic()
                yield message
    finally:
        consumer.close()
