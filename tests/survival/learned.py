"""One journal folded by 1, 2 and 4 analyzers, under kill -9 and by a rebuild: one digest of what was learned.

A market is played once on a whole platform: orders, decisions with ghosts among them, outcomes, returns. What
stands in the journal then is put onto the bus of further worlds, record by record, each partition in its
order. Compared to the byte are the learner's checkpoint and what readers find on ``learned-models``.

Trap: the market itself is not played anew for each world. Its decisions are made with what was learned by
then, so another moment of a publication is another journal; equal lessons are promised equal models.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import asyncpg
import msgspec
from confluent_kafka import Producer

from deploy.local.demo.calls import Calls
from deploy.local.demo.feed import iso
from deploy.local.demo.replay import Pulse
from deploy.local.market.play import BEGIN, Play
from deploy.local.market.world import CURRENCY, Size
from deploy.local.market.world import World as Market
from libs.common.clock import DAY, SECOND, Millis
from tests.survival.poison import PARTITIONS
from tests.survival.poison import TOPIC as JOURNAL
from tests.survival.reader import MARKER, read_topic
from tests.survival.world import ROOT, Shape, World, mkdtemp, wait

SHORT = Size(customers=80, history=3, days=5)
LONG = Size(customers=400, history=14, days=24)
CATALOGUE, LEARNED = "catalogue", "learned-models"
LATER = 70 * DAY
"""After the last day: every trial is judged by then, and what came back is known."""
PATIENCE = 180.0
VICTIMS = {1: (), 2: ("analyzer-2", "learner"), 4: ("analyzer-3", "learner", "learner")}
"""Who is killed one after the other, by how many analyzers there are."""
ENVIRONMENT = {
    "CLOSEDLOOP_CURRENCY": CURRENCY,
    "CLOSEDLOOP_HOLDOUT": "0.1,0.1",
    # Not the default: a rebuild must learn as the learner was told to.
    "CLOSEDLOOP_LEARNER_HALF_LIFE_DAYS": "90",
    # Often, so that who is killed goes on from one in the middle.
    "CLOSEDLOOP_LEARNER_CHECKPOINT_SECONDS": "0.1",
}


class Kept(NamedTuple):
    """A record of a topic as it was, without its place."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]
    at: Millis


class Journal(NamedTuple):
    """What a market left: the journal by partition, the catalogue, and the last journal time."""

    events: list[list[Kept]]
    catalogue: list[Kept]
    ends: Millis

    def until(self, at: Millis) -> list[int]:
        """How many records of each partition come before journal time ``at`` has passed."""
        return [
            sum(reached <= at for reached in accumulate((record.at for record in records), max))
            for records in self.events
        ]

    def reached(self, placed: Sequence[int]) -> Millis:
        """The journal time that every partition has reached with so many records of each."""
        return min(
            max((record.at for record in records[:count]), default=0)
            for records, count in zip(self.events, placed, strict=True)
        )


class Learned(NamedTuple):
    """Digests of the learner's checkpoint and of what it has published, and what the models were made of."""

    state: str
    published: str
    orders: int
    trials: int


@dataclass
class Run:
    """What became of the journal in one world."""

    name: str
    learned: Learned
    kills: int = 0
    resumed: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """One line."""
        learned = self.learned
        disturbed = f", {self.kills} kills, gone on from a checkpoint {self.resumed} times" * bool(self.kills)
        return (
            f"{self.name}: {learned.orders:,} orders, {learned.trials:,} trials, {self.seconds:.0f} s"
            f"{disturbed}; learner {learned.state[:16]}, published {learned.published[:16]}"
            + "".join(f"; WRONG: {one}" for one in self.wrong)
        )


class Readers(World):
    """A world in which nobody writes the journal. Its learner begins when the catalogue is there."""

    @property
    def services(self) -> list[str]:
        return self.analyzers

    def stock(self, catalogue: Sequence[Kept]) -> None:
        """Publish the catalogue, then have a learner."""
        produce(self.kafka, CATALOGUE, [catalogue])
        self._add_service("learner")
        wait(lambda: self.ready("learner"), PATIENCE, self.logs)


def record(size: Size, seed: int) -> Journal:
    """Play a market, and take its journal."""
    with world_of(World, 1, seed) as world:
        urls = {name: f"http://127.0.0.1:{world.port(name)}" for name in (*world.services, "analyzer")}
        ends = BEGIN + (size.last + 1) * DAY + LATER

        async def play() -> None:
            async with Calls(urls, world.key) as calls:
                market = Play(calls, Market.make(size, seed), Pulse())
                await market.run()
                last = {"id": "last", "type": "page_viewed", "channel": "web", "customer_id": "c00000"}
                await calls.post("collector", "/v1/touchpoints", [{**last, "occurred_at": iso(ends)}])

        asyncio.run(play())
        reach(world, ends)
        events: list[list[Kept]] = [[] for _ in range(PARTITIONS)]
        for message in read_topic(world.kafka, JOURNAL):
            events[message.partition()].append(kept(message))
        catalogue = [kept(message) for message in read_topic(world.kafka, CATALOGUE)]
    return Journal(events, [one for one in catalogue if one.key != MARKER.encode()], ends)


def kept(message: Any) -> Kept:
    """A record without its place; of the journal with the time its event was recorded at."""
    headers = [(name, bytes(value)) for name, value in message.headers() or [] if value is not None]
    at = json.loads(message.value()).get("recorded_at", 0) if message.topic() == JOURNAL else 0
    return Kept(message.key(), message.value(), headers, at)


def fold(
    journal: Journal, analyzers: int, seed: int, victims: Sequence[str] = (), *, rebuild: bool = False
) -> Iterator[Run]:
    """Put the journal into a world of its own, killing ``victims`` one after the other; then ``rebuild``."""
    began = time.monotonic()
    with world_of(Readers, analyzers, seed) as world:
        world.stock(journal.catalogue)
        disturb(world, journal, victims, Random(seed))
        world.keeper.stop("learner")
        name = f"{analyzers} analyzer{'s' * (analyzers > 1)}" + ", killed" * bool(victims)
        run = Run(name, read_learned(world), len(world.keeper.kills) - 1, resumed(world))
        run.seconds = time.monotonic() - began
        if run.kills < len(victims):
            run.wrong.append(f"only {run.kills} kills")
        if "learner" in victims and not run.resumed:
            run.wrong.append("no learner went on from a checkpoint")
        yield run
        if rebuild:
            yield rebuilt(world)


def disturb(world: World, journal: Journal, victims: Sequence[str], random: Random) -> None:
    """The journal in parts, and a kill while each but the last is being folded."""
    kills = len(victims)
    begin, placed, before = BEGIN + DAY, [0] * PARTITIONS, 0
    for turn in range(kills + 1):
        # The last part is all there is: what comes after the market's days are ticks and timers alone.
        share = (turn + 1) / (kills + 1)
        upto = journal.ends if turn == kills else begin + int(share * (journal.ends - LATER - begin))
        following = journal.until(upto)
        parts = zip(journal.events, placed, following, strict=True)
        produce(world.kafka, JOURNAL, [records[first:last] for records, first, last in parts])
        if turn < kills:
            reach(world, before)
            time.sleep(0.3 * random.random())
            # A small part is folded by others while the last one killed is still on its way back.
            wait(partial(world.alive, victims[turn]), PATIENCE, world.logs)
            world.kill(victims[turn])
        placed, before = following, journal.reached(following)
    reach(world, journal.ends)


def rebuilt(world: World) -> Run:
    """Fold the stored events anew, first beside what the learner knows, then where it knows nothing any more:
    read what it is handed."""
    run, began = Run("rebuilt", read_learned(world)), time.monotonic()
    beside = rebuild(world, "--check")
    if beside["learned"] is not True:
        run.wrong.append(f"learned anew it is not what the learner knows: {beside}")
    asyncio.run(execute(world, "UPDATE analyzer.learner_state SET body = NULL, second = -1, partition = -1"))
    said = rebuild(world)
    if said["live"] != said["rebuilt"] or said["refused"] or "failed" in said:
        run.wrong.append(f"customer models differ: {said}")
    handed = asyncio.run(execute(world, "SELECT body FROM analyzer.learner_state"))
    before = published(world)[0]["version"]
    world.keeper.start("learner")
    # A learner that begins says what it knows.
    wait(lambda: published(world)[0]["version"] > before, PATIENCE, world.logs)
    world.keeper.stop("learner")
    run.learned, run.seconds = read_learned(world), time.monotonic() - began
    if hashlib.sha256(handed or b"").hexdigest() != run.learned.state:
        run.wrong.append("the learner did not go on from what was learned anew")
    return run


def rebuild(world: World, *options: str) -> dict[str, Any]:
    """What the command prints, or what failed."""
    done = subprocess.run(
        [sys.executable, "-m", "services.analyzer.rebuild", *options],
        env={**os.environ, **world.environment("analyzer-1")},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
        check=False,
    )
    if done.returncode:
        failed = f"{done.stdout[-200:]} {done.stderr[-400:]}"
        return {"failed": failed, "live": "", "rebuilt": "", "refused": 0, "learned": None}
    return dict(json.loads(done.stdout))


def reach(world: World, at: Millis) -> None:
    """Wait until the learner has learned and published all before the second of ``at``."""

    def reached() -> bool:
        models = world.get("analyzer", "/v1/models")
        return models is not None and models["learned"]["journal_time"] >= at // SECOND * SECOND

    wait(reached, PATIENCE, lambda: f"{world.get('analyzer', '/v1/models')}, wanted {at}; {world.logs()}")


def published(world: World) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest on ``learned-models``, and the newest parts by key."""
    newest: dict[str, tuple[int, bytes]] = {}
    for message in read_topic(world.kafka, LEARNED):
        revision = int(dict(message.headers() or []).get("revision", b"0"))
        key = message.key().decode()
        if key != MARKER and (key not in newest or newest[key][0] <= revision):
            newest[key] = revision, message.value()
    manifest = msgspec.msgpack.decode(newest.pop("manifest")[1])
    return manifest, {key: body for key, (_, body) in newest.items()}


def read_learned(world: World) -> Learned:
    """What a learner that was stopped has left."""
    state = asyncio.run(execute(world, "SELECT body FROM analyzer.learner_state"))
    manifest, parts = published(world)
    total = hashlib.sha256()
    for key, body in sorted(parts.items()):
        name, _, number = key.rpartition("/")
        # Parts beyond those of the manifest are of an earlier version that had more.
        if int(number) < manifest["parts"].get(name, 0):
            part = msgspec.msgpack.decode(body)
            del part["version"]
            total.update(key.encode() + msgspec.msgpack.encode(part, order="deterministic"))
    return Learned(
        hashlib.sha256(state or b"").hexdigest(), total.hexdigest(), manifest["orders"], manifest["trials"]
    )


async def execute(world: World, statement: str) -> Any:
    """The one value of a statement."""
    connection = await asyncpg.connect(world.postgres, timeout=30)
    try:
        return await connection.fetchval(statement, timeout=60)
    finally:
        await connection.close(timeout=5)


def resumed(world: World) -> int:
    """How often a learner was elected that knew something already."""
    lines = (world.data_dir / "logs" / "learner.log").read_text().splitlines()
    elected = [json.loads(line) for line in lines if '"elected"' in line]
    return sum(line["orders"] > 0 for line in elected)


def produce(kafka: str, topic: str, partitions: Sequence[Sequence[Kept]]) -> None:
    """Append records, of each partition one after the other."""
    refused: list[str] = []

    def told(error: object, _message: object) -> None:
        if error is not None:
            refused.append(str(error))

    producer = Producer(
        {"bootstrap.servers": kafka, "acks": "all", "max.in.flight": 1, "log_level": 0, "linger.ms": 20}
    )
    for partition, records in enumerate(partitions):
        for one in records:
            producer.produce(topic, one.value, one.key, partition, on_delivery=told, headers=one.headers)
            producer.poll(0)
    assert producer.flush(60) == 0, "the broker does not take the journal"
    assert not refused, refused[0]


@contextmanager
def world_of(kind: type[World], analyzers: int, seed: int) -> Iterator[Any]:
    """A world on a journal clock, and its folder removed."""
    base = Path(mkdtemp())
    shape = Shape(broker="embedded", analyzers=analyzers, clock="journal", seed=seed, environment=ENVIRONMENT)
    try:
        with kind(base, shape) as world:
            yield world
    finally:
        shutil.rmtree(base, ignore_errors=True)


def prove_learned(
    size: Size, seed: int, rounds: int, say: Callable[[str], None], worlds: Sequence[int] = tuple(VICTIMS)
) -> list[str]:
    """Record, fold in worlds of so many analyzers, each victim killed ``rounds`` times, rebuild in the last
    one; returns what is wrong."""
    journal = record(size, seed)
    say(
        f"recorded: {sum(map(len, journal.events)):,} records of {size.customers} customers, {size.last} days"
    )
    runs: list[Run] = []
    for analyzers in worlds:
        for run in fold(
            journal, analyzers, seed, VICTIMS[analyzers] * rounds, rebuild=analyzers == worlds[-1]
        ):
            runs.append(run)
            say(run.describe())
    wrong = [f"{run.name}: {one}" for run in runs for one in run.wrong]
    for what in ("state", "published"):
        found = {getattr(run.learned, what) for run in runs}
        if len(found) != 1:
            wrong.append(f"{len(found)} different digests of the {what}")
    if not (runs[0].learned.orders and runs[0].learned.trials):
        wrong.append("nothing was learned")
    return wrong
