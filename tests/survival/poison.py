"""Records that no service of ours would write, put straight onto the journal."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

from confluent_kafka import Producer

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
