"""What is done to the journal behind the platform's back: bad records written, good ones lost."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:
    from tests.survival.world import World

TOPIC = "customer-events"
PARTITIONS = 12


def bad_values(random: Random) -> list[bytes | None]:
    """One of each kind."""
    order = {"type": "touchpoint", "id": "x", "customer": "c1", "source": "dev", "occurred_at": "yesterday"}
    return [
        random.randbytes(random.randint(1, 400)),
        b"",
        None,
        b"{}",
        b"[" * 3_000,
        b'{"type": "no_such_event"}',
        json.dumps(order).encode(),
        b'{"type": "touchpoint", "id": "\\ud800"}',
        b"x" * 300_000,
        b'{"kind": 1e400}',
    ]


def poison(world: World, random: Random, amount: int, partition: int | None = None) -> None:
    """Write ``amount`` of them; what the broker does not take is not counted."""
    taken = 0

    def told(error: object, _message: object) -> None:
        nonlocal taken
        taken += error is None

    producer = Producer(
        {"bootstrap.servers": world.kafka, "acks": "all", "log_level": 0, "message.timeout.ms": 20_000}
    )
    for _ in range(amount):
        place = random.randrange(PARTITIONS) if partition is None else partition
        key = random.choice([None, b"c1", random.randbytes(9)])
        producer.produce(TOPIC, random.choice(bad_values(random)), key, place, on_delivery=told)
    producer.flush(25)
    world.poisoned += taken


def lose_records(kafka: str) -> None:
    """Delete every record of the journal that is there now, as a broker does that lost its disk."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "survival-loss", "log_level": 0})
    try:
        ends = []
        for number in range(PARTITIONS):
            place = TopicPartition(TOPIC, number)
            place.offset = consumer.get_watermark_offsets(place, timeout=20)[1]
            ends.append(place)
    finally:
        consumer.close()
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    for deleted in admin.delete_records(ends, request_timeout=20).values():
        deleted.result(20)
