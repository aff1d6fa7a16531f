"""All trials: the short ones of the gate, and the round that `make survive` repeats with new seeds."""

from __future__ import annotations

from tests.survival.faults import (
    clock_steps,
    full_disk,
    killing,
    lost_twice,
    nothing,
    outage,
    poisoning,
    power_cuts,
    rebalances,
    restart,
    silence,
    storm,
    together,
    truncation,
    zombie,
)
from tests.survival.load import Mix
from tests.survival.supervised import UpWorld, supervisor_killed
from tests.survival.trial import Trial
from tests.survival.world import Shape

EMBEDDED = Shape(broker="embedded")
TWO = Shape(analyzers=2)
FOUR = Shape(analyzers=4)
SERVICES = ("collector", "analyzer", "learner", "recommender", "feedback")
ALL = (*SERVICES, "broker", "postgres")
COPIES = Mix(repeats=5, posters=8)
DISK = Shape(disk=24, environment={"CLOSEDLOOP_SPOOL_FREE_BYTES": "4000000"})
STEADY = Mix(rate=300, posters=8, give_up=1.0)
DISORDER = Mix(late=0.5, repeats=3)

ROUND = (
    Trial("no fault", nothing, seconds=10),
    Trial("kill collector", killing("collector", every=2)),
    Trial("kill analyzer", killing("analyzer", every=3)),
    Trial("kill analyzers of 2", killing("analyzer", every=2), TWO),
    Trial("kill analyzers of 4", killing("analyzer", every=1.5), FOUR),
    Trial("kill learner, recommender, feedback", killing("learner", "recommender", "feedback", every=2)),
    Trial("kill broker", killing("broker", every=8, down=2), seconds=25),
    Trial("kill database", killing("postgres", every=5, down=2), seconds=25),
    Trial("kill anything", killing(*ALL, every=2.5), TWO, COPIES, seconds=30),
    Trial("kill anything, embedded", killing(*ALL, every=2.5), EMBEDDED, COPIES, seconds=30),
    Trial("kill the supervisor, embedded", supervisor_killed, EMBEDDED, seconds=24, world=UpWorld),
    Trial("restart broker and database", together(restart("broker"), restart("postgres")), seconds=25),
    Trial("broker away", outage("broker"), seconds=40),
    Trial("embedded broker away", outage("broker"), EMBEDDED, seconds=30),
    Trial("database away", outage("postgres"), TWO, seconds=40),
    Trial("embedded broker lost while the database is away", lost_twice, EMBEDDED, seconds=20),
    Trial("journal lost records", truncation, seconds=24),
    Trial("broker silent", silence("broker"), seconds=40),
    Trial("database silent", silence("postgres"), seconds=40),
    Trial("zombie of 2", zombie, TWO, seconds=20),
    Trial("zombie of 4, kills beside", together(zombie, killing("analyzer", every=5)), FOUR, seconds=25),
    Trial("rebalances of 1", rebalances, seconds=25),
    Trial("rebalances of 2", rebalances, TWO, seconds=30),
    Trial("rebalances of 4", rebalances, FOUR, seconds=30),
    Trial("resets and latency", storm("broker", "postgres"), seconds=25),
    Trial(
        "resets and latency, 2 analyzers killed",
        together(storm("broker", "postgres"), killing("analyzer")),
        TWO,
    ),
    Trial("disk full", full_disk, DISK, seconds=25, bites="503"),
    Trial("broker away 60 s, disk full", full_disk, DISK, STEADY, seconds=86, bites="503"),
    Trial("power cut", power_cuts, Shape(shim=True), seconds=25),
    Trial("clock steps", clock_steps, Shape(shim=True), seconds=25),
    Trial("poison 1 % and a burst", poisoning(3, 200), TWO),
    Trial("poison, embedded", poisoning(3, 200), EMBEDDED),
    Trial("duplicates", killing("collector", "analyzer", every=4), TWO, COPIES),
    Trial("late and out of order", killing("collector", "analyzer", every=4), TWO, DISORDER),
)

SHORT = (
    Trial("kill anything", killing(*ALL, every=2.5), TWO, COPIES, seconds=15),
    Trial("kill anything, embedded", killing(*ALL, every=2.5), EMBEDDED, COPIES, seconds=12),
    Trial("zombie, poison", together(zombie, poisoning(3, 100)), TWO, seconds=14),
    Trial(
        "resets, power cuts", together(storm("broker", "postgres"), power_cuts), Shape(shim=True), seconds=12
    ),
    Trial("disk full", full_disk, DISK, seconds=12, bites="503"),
)
