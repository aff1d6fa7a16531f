"""What goes wrong, each drawn from a seed: a fault gets a world, a generator and the time it has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from random import Random

from tests.survival.injection import fill
from tests.survival.poison import lose_records, poison
from tests.survival.proxy import FAIR, Weather
from tests.survival.world import World

Fault = Callable[[World, Random, float], None]
SESSION = 10.0
"""Seconds after which Apache Kafka gives the partitions of a silent analyzer to another."""


def nothing(world: World, random: Random, seconds: float) -> None:
    """No fault at all: what the judge finds here is the judge's."""
    time.sleep(seconds)


def killing(*names: str, every: float = 4.0, down: float = 0.5) -> Fault:
    """kill -9 of one of ``names`` at random moments, about one each ``every`` seconds."""

    def fault(world: World, random: Random, seconds: float) -> None:
        chosen = [role for role in world.keeper.roles if role.partition("-")[0] in names]
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            time.sleep(min(rest, every * (0.3 + 1.4 * random.random())))
            world.kill(random.choice(chosen), down * random.random())

    return fault


def outage(name: str, share: float = 0.5) -> Fault:
    """The server ``name`` is gone for ``share`` of the time, in one piece."""

    def fault(world: World, random: Random, seconds: float) -> None:
        time.sleep(seconds * (1 - share) * random.random())
        world.kill(name, seconds * share)
        time.sleep(seconds * share)

    return fault


def restart(name: str) -> Fault:
    """The server ``name`` is shut down in order and started again, twice."""

    def fault(world: World, random: Random, seconds: float) -> None:
        for _ in range(2):
            time.sleep(seconds / 4 * (0.5 + random.random()))
            world.keeper.stop(name)
            time.sleep(random.random())
            world.keeper.start(name)

    return fault


def zombie(world: World, random: Random, seconds: float) -> None:
    """An analyzer is stopped until others own its partitions, and then goes on where it was."""
    time.sleep(2 + random.random())
    name = random.choice(world.analyzers)
    world.keeper.pause(name)
    time.sleep(max(SESSION + 4, seconds - 6))
    world.keeper.resume(name)
    time.sleep(3)


def rebalances(world: World, random: Random, seconds: float) -> None:
    """Analyzers leave and come back every few seconds, in order and by kill -9 in turn."""
    end = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < end:
        name = random.choice(world.analyzers)
        if turn % 2:
            world.kill(name, random.random())
        else:
            world.keeper.stop(name)
            world.keeper.start(name)
        turn += 1
        time.sleep(2 + 3 * random.random())


def storm(*ways: str, resets: float = 0.01, latency: float = 0.003) -> Fault:
    """Latency and resets between the services and ``ways`` (broker, postgres); now and then all is cut."""

    def fault(world: World, random: Random, seconds: float) -> None:
        end = time.monotonic() + seconds
        proxies = [world.proxies[way] for way in ways]
        while time.monotonic() < end:
            for proxy in proxies:
                kind = random.random()
                if kind < 0.25:
                    proxy.cut()
                proxy.weather = Weather(latency, 4 * latency, resets, stall=kind > 0.9)
            time.sleep(1.5)
        for proxy in proxies:
            proxy.weather = FAIR

    return fault


def silence(way: str) -> Fault:
    """Nothing moves between the services and ``way``, and no connection is closed."""

    def fault(world: World, random: Random, seconds: float) -> None:
        time.sleep(seconds * 0.2)
        world.proxies[way].weather = Weather(stall=True)
        time.sleep(seconds * 0.6)
        world.proxies[way].weather = FAIR
        time.sleep(seconds * 0.2)

    return fault


def poisoning(rate: float, burst: int) -> Fault:
    """Records nobody can read, straight onto the journal: ``rate`` a second, and once ``burst`` together."""

    def fault(world: World, random: Random, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.5)
            poison(world, random, max(1, round(rate / 2)))
        poison(world, random, burst, partition=random.randrange(12))

    return fault


def truncation(world: World, random: Random, seconds: float) -> None:
    """While no analyzer is there the broker loses all records it holds, twice; the topic stays."""
    for _ in range(2):
        time.sleep(seconds / 6)
        for name in world.analyzers:
            world.kill(name, seconds / 4)
        time.sleep(seconds / 8)
        lose_records(world.kafka)
        time.sleep(seconds / 4)


def lost_twice(world: World, random: Random, seconds: float) -> None:
    """The database is away, and meanwhile the broker dies and comes back with nothing."""
    time.sleep(seconds / 5)
    world.kill("postgres", seconds / 2)
    time.sleep(seconds / 4)
    world.kill("broker", 1)
    time.sleep(seconds / 2)


def full_disk(world: World, random: Random, seconds: float) -> None:
    """The disk of the spool is filled to the last byte while the broker is away, and emptied again."""
    time.sleep(2)
    world.kill("broker", seconds * 0.7)
    filler = fill(world.spools)
    end = time.monotonic() + seconds * 0.6
    while time.monotonic() < end:
        time.sleep(0.5)
        fill(world.spools)
    filler.unlink()
    time.sleep(seconds * 0.3)


def power_cuts(world: World, random: Random, seconds: float) -> None:
    """The collector's machine loses power: what was not fsynced is gone from its disk.

    The broker stands still for a moment before: what it has already, no disk needs to have.
    """
    assert world.power is not None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(3 + 2 * random.random())
        world.keeper.pause("broker")
        time.sleep(1)
        world.power.armed = True
        world.kill("collector", 0.3)
        world.keeper.resume("broker")


def clock_steps(world: World, random: Random, seconds: float) -> None:
    """Clocks of all services jump forward by a day and back, with collectors killed in between."""
    assert world.clock is not None
    for offset in (-200.0, 86_400.0, 0.0, 3_600.0, -240.0, 0.0):
        time.sleep(seconds / 7)
        world.clock.step(offset + random.random())
        if random.random() < 0.5:
            world.kill("collector", 0.2)
    time.sleep(seconds / 7)


def together(*faults: Fault) -> Fault:
    """Several at once."""

    def fault(world: World, random: Random, seconds: float) -> None:
        threads = [
            threading.Thread(target=each, args=(world, Random(random.random()), seconds), daemon=True)
            for each in faults
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return fault
