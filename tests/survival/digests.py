"""One year of real shopping, three times: undisturbed, under faults, rebuilt. All models must be the same.

The platform lives on a journal clock, so times of events are those of the data. Customers keep to a lane and
every chunk is accepted as a whole before the next begins: one order for each customer, whatever dies.
What differs between runs, order numbers and the places of ticks, must change no bit. Learned models hang on
the order of different customers too: those are proven by `learned`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

from deploy.local.demo.data import load
from deploy.local.demo.feed import iso, order
from tests.survival.load import Caller
from tests.survival.reader import digest_of, read_models, read_tables
from tests.survival.trial import ALL_AT_REST, at_rest
from tests.survival.world import ROOT, Shape, World, mkdtemp

LANES = 4
CHUNK = 2_000
BODY = 250
KILLS = 30
ROLES = ("collector", "analyzer-1", "analyzer-2", "learner", "recommender", "feedback", "broker", "postgres")
LOOK_BEFORE = 120_000


@dataclass
class Run:
    """What one run left behind: digests of the topic and of the tables, and what was done to it."""

    name: str
    topic: str = ""
    tables: str = ""
    touchpoints: int = 0
    customers: int = 0
    kills: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def touchpoints(amount: int) -> list[dict[str, Any]]:
    """The first ``amount`` touchpoints of the year, by time: baskets, and looks at what was then bought."""
    baskets = load(10_000, (1, 53), 1).baskets
    looks = max(0, amount - len(baskets))
    events = [(basket.at, order(basket)) for basket in baskets]
    for basket in [basket for basket in baskets if len(basket.products) > 2][:looks]:
        at = basket.at - LOOK_BEFORE
        body = {
            "id": f"look-{basket.order_id}",
            "type": "product_viewed",
            "channel": "web",
            "customer_id": basket.customer,
            "occurred_at": iso(at),
            "properties": {"product_id": basket.products[0]},
        }
        events.append((at, body))
    events.sort(key=lambda event: (event[0], event[1]["id"]))
    return [body for _, body in events[:amount]]


def prove(amount: int, seed: int, say: Callable[[str], None]) -> list[str]:
    """All three runs; what is wrong with them."""
    events = touchpoints(amount)
    runs, wrong = [], []
    for name, disturb in (("undisturbed", False), ("faulted", True)):
        base = Path(mkdtemp())
        shape = Shape(clock="journal", analyzers=2 if disturb else 1, seed=seed)
        shape = replace(shape, environment={"CLOSEDLOOP_CURRENCY": "USD"})
        try:
            with World(base, shape) as world:
                run = _replay(world, name, events, disturb, seed)
                runs.append(run)
                say(describe(run))
                if run.touchpoints != amount:
                    wrong.append(f"{name}: {run.touchpoints} touchpoints stored, should be {amount}")
                if disturb:
                    runs += _rebuilt(world, say)
        finally:
            shutil.rmtree(base, ignore_errors=True)
    found = {digest for run in runs for digest in (run.topic, run.tables) if digest}
    if len(found) != 1:
        wrong.append(f"{len(found)} different digests")
    if runs[1].kills < KILLS:
        wrong.append(f"only {runs[1].kills} kills")
    return wrong


def _replay(world: World, name: str, events: Sequence[dict[str, Any]], disturb: bool, seed: int) -> Run:
    run = Run(name)
    began = time.monotonic()
    done = threading.Event()
    disturber = threading.Thread(target=_disturb, args=(world, Random(seed), done, run), daemon=True)
    if disturb:
        disturber.start()
    chunks = [events[first : first + CHUNK] for first in range(0, len(events), CHUNK)]
    for number, chunk in enumerate(chunks):
        while disturb and run.kills < KILLS * (number + 1) / len(chunks):
            time.sleep(0.1)
        _post(world, chunk)
    done.set()
    if disturb:
        disturber.join(60)
    if not at_rest(world, len(events), ALL_AT_REST):
        run.notes.append("NOT AT REST")
    stored, published = read_tables(world.postgres), read_models(world.kafka)
    run.topic, run.tables = digest_of(published), stored.digest
    run.touchpoints = len([1 for _, kind, _ in stored.events if kind == "touchpoint"])
    run.customers = len({key.rpartition("/")[0] for key in stored.bodies})
    run.seconds = time.monotonic() - began
    return run


def _post(world: World, chunk: Sequence[dict[str, Any]]) -> None:
    """All of ``chunk``, each customer in order; returns when everything has been accepted."""
    lanes: list[list[dict[str, Any]]] = [[] for _ in range(LANES)]
    for body in chunk:
        lanes[crc32(body["customer_id"].encode()) % LANES].append(body)
    failures: list[str] = []
    threads = [threading.Thread(target=_post_lane, args=(world, lane, failures)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def _post_lane(world: World, lane: Sequence[dict[str, Any]], failures: list[str]) -> None:
    caller = Caller(lambda: world.port("collector"), world.key)
    for first in range(0, len(lane), BODY):
        deadline = time.monotonic() + 180
        while True:
            reply = caller.call("POST", "/v1/touchpoints", lane[first : first + BODY])
            if reply.status == 202 and not reply.body["rejected"]:
                break
            if reply.status not in (0, 202, 503) or time.monotonic() > deadline:
                failures.append(f"{reply.status} {str(reply.body)[:200]} {reply.why}")
                return
            time.sleep(0.2)
    caller.close()


def _disturb(world: World, random: Random, done: threading.Event, run: Run) -> None:
    """Kills all the while; between them, one after the other, what takes longer."""
    longer = [_zombie, _broker_restart, _database_restart, _broker_away, _database_away]
    turn = 0
    while not done.wait(1.0 + 1.5 * random.random()):
        turn += 1
        if turn % 6 == 0 and longer:
            longer.pop(0)(world, run)
        elif world.kill(random.choice(ROLES), 0.5 * random.random()):
            run.kills += 1
    world.keeper.resume("analyzer-1")


def _zombie(world: World, run: Run) -> None:
    world.keeper.pause("analyzer-1")
    time.sleep(14)
    world.keeper.resume("analyzer-1")
    run.notes.append("zombie")


def _broker_restart(world: World, run: Run) -> None:
    world.keeper.stop("broker")
    world.keeper.start("broker")
    run.notes.append("broker restarted")


def _database_restart(world: World, run: Run) -> None:
    world.keeper.stop("postgres")
    world.keeper.start("postgres")
    run.notes.append("database restarted")


def _broker_away(world: World, run: Run) -> None:
    world.kill("broker", 10)
    time.sleep(10)
    run.kills += 1
    run.notes.append("broker away for 10 s")


def _database_away(world: World, run: Run) -> None:
    world.kill("postgres", 10)
    time.sleep(10)
    run.kills += 1
    run.notes.append("database away for 10 s")


def _rebuilt(world: World, say: Callable[[str], None]) -> list[Run]:
    """Rebuild the faulted platform beside its services, switch, and read everything once more."""
    run = Run("rebuilt")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "services.analyzer.rebuild"],
        env={**os.environ, **world.environment("analyzer-1")},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=1_200,
        check=False,
    )
    if done.returncode != 0:
        run.notes.append(f"FAILED: {done.stdout[-200:]} {done.stderr[-400:]}")
    else:
        said = json.loads(done.stdout)
        run.notes.append("live and rebuilt " + ("equal" if said["live"] == said["rebuilt"] else "DIFFER"))
    time.sleep(5)
    stored, published = read_tables(world.postgres), read_models(world.kafka)
    run.topic, run.tables = digest_of(published), stored.digest
    run.touchpoints = len([1 for _, kind, _ in stored.events if kind == "touchpoint"])
    run.customers = len({key.rpartition("/")[0] for key in stored.bodies})
    run.seconds = time.monotonic() - began
    say(describe(run))
    return [run]


def describe(run: Run) -> str:
    """One line."""
    what = f", {run.kills} kills, {', '.join(run.notes)}" if run.kills or run.notes else ""
    return (
        f"{run.name}: {run.touchpoints:,} touchpoints of {run.customers:,} customers,"
        f" {run.seconds:.0f} s{what}; topic {run.topic[:16]}, tables {run.tables[:16]}"
    )
