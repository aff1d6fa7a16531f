"""The analyzer on a mixed journal, against a bare loop that consumes, decodes and upserts the same rows."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict

import asyncpg
import numpy as np
import uvloop

from libs.common.bus.kafka import KafkaBus
from libs.common.bus.ports import Record
from libs.common.contracts.customer_event import (
    SCHEMA,
    AboutCustomer,
    DecidedOffer,
    Decision,
    Outcome,
    Touchpoint,
    decode_event,
    encode_event,
)
from libs.common.contracts.identity import PARTITIONS, partition_of
from libs.common.contracts.topics import CUSTOMER_EVENTS, HEADER_SCHEMA, HEADER_SEQ, HEADER_SPOOL
from libs.common.contracts.vectors import pack
from tests.benchmarks.rig import REST, SERVED, Rig

EVENTS = 30_000
CUSTOMERS = 2_000
SLICE = 1_000
SOURCE = "bench"
SPOOL = b"be0c00be0c00be0c"
VECTORS = pack(np.where(np.arange(2 * 48).reshape(2, 48) % 3 == 0, 0.1, 0.0))
"""Features of an offer, and those that all offers share: a third of 48 columns says something."""
MODEL_BYTES = 1_500
"""A profile of usual size, for the rows of the bare loop."""


def mixed(count: int, now: int, customers: int = CUSTOMERS) -> list[AboutCustomer]:
    """70 % views, 8 % orders of 8 lines, 7 % decisions, 10 % outcomes, 5 % other, evenly mixed.

    Outcomes are of one of the last decisions: three in four that an offer of it was shown.
    """
    events: list[AboutCustomer] = []
    decided: list[Decision] = []
    for n in range(count):
        who, kind = f"c{n % customers}", (n * 37 + n // 100) % 100
        about = {"id": f"e{n}", "source": SOURCE, "customer": who, "occurred_at": now, "recorded_at": now}
        if kind < 70:
            seen = {"product_id": f"p{n % 500}"}
            events.append(
                Touchpoint(**about, type="product_viewed", channel="web", customer_id=who, properties=seen)
            )
        elif kind < 78:
            lines = [{"product_id": f"p{(n + k) % 500}", "quantity": 1, "price": 5.0} for k in range(8)]
            order = {"order_id": f"o{n}", "products": lines}
            events.append(
                Touchpoint(**about, type="order_completed", channel="web", customer_id=who, properties=order)
            )
        elif kind < 85 or not decided:
            decided.append(_decision(about, n))
            events.append(decided[-1])
        elif kind < 95:
            of = decided[-1 - n * 7 % min(len(decided), 300)]
            about["customer"] = of.customer
            named = {"decision_id": of.id, "offer_id": of.offers[n % 5].offer_id}
            word = "shown" if n % 4 else "clicked"
            events.append(Outcome(**about, **named, outcome=word))
        else:
            events.append(Touchpoint(**about, type="email_opened", channel="email", customer_id=who))
    return events


def _decision(about: dict[str, object], n: int) -> Decision:
    offers = tuple(
        DecidedOffer(
            offer_id=f"product:p{(n + k) % 500}",
            product_id=f"p{(n + k) % 500}",
            kind="cross_sell",
            rank=k + 1,
            score=0.1,
            propensity=0.98,
            mean=0.1,
            source="popular",
            chance=0.1,
            vector=VECTORS[0],
        )
        for k in range(5)
    )
    return Decision(
        **about,
        placement="basket",
        channel="web",
        group="treatment",
        policy_version="bench",
        model_version=1,
        catalogue_version=1,
        seed=n,
        objective="uplift",
        offers=offers,
        shared=VECTORS[1],
        feature_set="bench",
    )


def rates(rig: Rig) -> tuple[float, float]:
    """Events a second: the analyzer alone on one core, then the bare loop on that core."""
    noted = json.loads((rig.data_dir / "platform.json").read_text())
    rig.alone("analyzer")
    journal = records(mixed(EVENTS, int(time.time() * 1000)))
    began = time.perf_counter()
    uvloop.run(send(noted["kafka"], journal))
    while applied(rig) < EVENTS:
        if time.perf_counter() - began > 300:
            raise RuntimeError(f"the analyzer took {applied(rig)} of {EVENTS} events in 300 s")
        time.sleep(0.1)
    analyzer = EVENTS / (time.perf_counter() - began)
    rig.alone("nobody")
    os.sched_setaffinity(0, SERVED)
    try:
        return analyzer, uvloop.run(_bare(noted["kafka"], noted["postgres"]))
    finally:
        os.sched_setaffinity(0, REST)


def records(events: list[AboutCustomer]) -> dict[int, list[Record]]:
    """The events as a spool would ship them, by partition."""
    found: dict[int, list[Record]] = defaultdict(list)
    for event in events:
        of = found[partition_of(event.customer)]
        headers = (
            (HEADER_SCHEMA, SCHEMA),
            (HEADER_SPOOL, SPOOL),
            (HEADER_SEQ, b"%d" % (len(of) + 1)),
        )
        of.append(Record(event.customer.encode(), encode_event(event), headers))
    return found


async def send(kafka: str, journal: dict[int, list[Record]]) -> None:
    """Put the events on the journal."""
    bus = KafkaBus(kafka)
    producer = bus.producer()
    for partition, rows in journal.items():
        await producer.send(CUSTOMER_EVENTS, partition, rows)
    await producer.close()
    await bus.close()


def applied(rig: Rig) -> int:
    """How many of them the analyzer has applied."""
    ledger = rig.call("analyzer", "/v1/ledger")
    rows = ledger["by_source"]
    assert isinstance(rows, list)
    return sum(int(row["applied"]) for row in rows if row["source"] == SOURCE)


async def _bare(kafka: str, postgres: str) -> float:
    """Consume, decode, write event, id and model rows in one transaction a slice; nothing else."""
    bus = KafkaBus(kafka)
    reader = bus.reader(CUSTOMER_EVENTS)
    connection = await asyncpg.connect(postgres)
    await connection.execute(
        "create table bench_events (partition int, customer text, id text, body bytea);"
        "create table bench_ids (id text primary key);"
        "create table bench_models (customer text primary key, body bytea)"
    )
    await reader.start(dict.fromkeys(range(PARTITIONS), 0))
    done, began = 0, time.perf_counter()
    while done < EVENTS:
        for partition, messages in (await reader.poll(SLICE, 1.0)).items():
            rows = [(m, decode_event(m.value or b"")) for m in messages if m.key != b"tick"]
            ours = [(m, e) for m, e in rows if getattr(e, "source", "") == SOURCE]
            if ours:
                await _upsert(connection, partition, ours)
                done += len(ours)
    rate = EVENTS / (time.perf_counter() - began)
    await connection.close()
    await reader.close()
    await bus.close()
    return rate


async def _upsert(connection: asyncpg.Connection, partition: int, rows: list[tuple]) -> None:
    customers = sorted({event.customer for _, event in rows})
    async with connection.transaction():
        await connection.copy_records_to_table(
            "bench_events", records=[(partition, e.customer, e.id, m.value) for m, e in rows]
        )
        await connection.copy_records_to_table("bench_ids", records=[(e.id,) for _, e in rows])
        await connection.execute(
            "insert into bench_models select unnest($1::text[]), $2"
            " on conflict (customer) do update set body = excluded.body",
            customers,
            bytes(MODEL_BYTES),
        )
