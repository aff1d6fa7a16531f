"""One trial: a world of its own, load, a fault, rest, judgement. Time-boxed; cleans up by process id."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.survival.faults import Fault
from tests.survival.injection import CannotInject
from tests.survival.judge import Count, Verdict, judge_events, judge_ledger, judge_poison
from tests.survival.ledger import Books, Fate
from tests.survival.load import Load, Mix
from tests.survival.probe import Probe
from tests.survival.reader import Stored, read_models, read_tables
from tests.survival.world import ROOT, Shape, World, mkdtemp

REST_SECONDS = 90.0
ALL_AT_REST = 600.0
LOGS = "CLOSEDLOOP_SURVIVAL_LOGS"


@dataclass(frozen=True)
class Trial:
    """What is done to which world, under which load, for how long."""

    name: str
    fault: Fault
    shape: Shape = field(default_factory=Shape)
    mix: Mix = field(default_factory=Mix)
    seconds: float = 20.0
    rebuild: bool = True
    world: type[World] = World
    bites: str = ""
    """A status that must come at least once, or the fault did not do what it is there for."""


@dataclass
class Outcome:
    """What became of a trial; ``error`` where it could not be judged at all."""

    trial: Trial
    seed: int
    verdict: Verdict = field(default_factory=dict)
    error: str = ""
    skipped: str = ""
    kills: int = 0
    posted: int = 0
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return bool(self.error) or any(count.failures for count in self.verdict.values())

    def describe(self) -> str:
        """One line, and one more for each thing that went wrong."""
        state = "FAILED" if self.failed else f"skipped, {self.skipped}" if self.skipped else "ok"
        lines = [
            f"{self.trial.name} (seed {self.seed}, {self.trial.shape.broker}): {state}, {self.posted} ids, "
            f"{self.kills} signals, {self.seconds:.0f} s"
        ]
        for name, count in self.verdict.items():
            if count.failures:
                lines.append(f"    {name}: {count.failures} of {count.n}: {'; '.join(count.examples)}")
        if self.error:
            lines.append("    " + self.error.replace("\n", "\n    "))
        return "\n".join(lines)


def run(trial: Trial, seed: int) -> Outcome:
    """Do it; never raises."""
    outcome = Outcome(trial, seed)
    began = time.monotonic()
    base = Path(mkdtemp())
    world = trial.world(base, Shape(**{**vars(trial.shape), "seed": seed}))
    try:
        with world:
            _run(world, trial, seed, outcome)
    except CannotInject as reason:
        outcome.skipped = str(reason)
    except Exception:
        outcome.error = traceback.format_exc(limit=4)
        outcome.verdict.setdefault("recovery", Count()).add(1, ["the trial could not be finished"])
    finally:
        outcome.kills = len(world.keeper.kills)
        outcome.seconds = time.monotonic() - began
        _keep_logs(world, outcome)
        shutil.rmtree(base, ignore_errors=True)
    return outcome


def _run(world: World, trial: Trial, seed: int, outcome: Outcome) -> None:
    books = Books()
    load = Load(lambda: world.port("collector"), world.key, seed, trial.mix, books)
    probe = Probe(world, seed)
    probe.prepare()
    load.start()
    probe.start()
    try:
        _break(world, trial, seed)
    finally:
        probe.stop()
        load.stop()
    outcome.posted = len(books.posted)
    outcome.verdict = judge(world, books, probe, trial.rebuild)
    if trial.bites:
        missing = [] if books.statuses[trial.bites] else [f"no {trial.bites} among {dict(books.statuses)}"]
        outcome.verdict["answers"].add(1, missing)


def _break(world: World, trial: Trial, seed: int) -> None:
    """Run the fault in a thread of its own, within a time; what it raises is raised here."""
    raised: list[BaseException] = []

    def fault() -> None:
        try:
            trial.fault(world, Random(seed), trial.seconds)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=fault, daemon=True)
    thread.start()
    thread.join(trial.seconds * 3 + 240)
    assert not thread.is_alive(), "the fault does not end"
    if raised:
        raise raised[0]


def judge(world: World, books: Books, probe: Probe, rebuild: bool) -> Verdict:
    """Wait until the platform is at rest, then compare."""
    recovered = at_rest(world, len(books.of(Fate.ACCEPTED)))
    stored, published = read_both(world)
    verdict = judge_events(books, stored, published)
    verdict["buried"] = judge_poison(world.poisoned, stored.dead_letters)
    ledger = world.get("analyzer", "/v1/ledger")
    verdict["ledger"] = judge_ledger(books, ledger and of_source(ledger, "dev"))
    verdict["answers"] = Count()
    verdict["answers"].add(books.answers, books.wrong)
    verdict["serving"] = probe.verdict()
    verdict["recovery"] = Count()
    verdict["recovery"].add(1, [] if recovered else [f"not at rest after {REST_SECONDS:.0f} s: {ledger}"])
    if rebuild:
        verdict["rebuilt"] = Count()
        verdict["rebuilt"].add(1, compare_rebuild(world))
    return verdict


def read_both(world: World, tries: int = 5) -> tuple[Stored, dict[str, bytes]]:
    """Tables and topic of one state: read again where a late decision changed the tables meanwhile."""
    stored = read_tables(world.postgres)
    while True:
        published = read_models(world.kafka)
        before, stored = stored, read_tables(world.postgres)
        tries -= 1
        if stored.bodies == before.bodies or not tries:
            return stored, published


def of_source(ledger: dict[str, object], source: str) -> dict[str, object]:
    """The line of one source, with the balance of the whole."""
    lines: list[dict[str, object]] = ledger["by_source"]  # type: ignore[assignment]
    line = next((line for line in lines if line["source"] == source), None)
    return {**ledger, **(line or {}), "balanced": ledger["balanced"]}


def at_rest(world: World, known: int, seconds: float = REST_SECONDS) -> bool:
    """Wait until ``known`` events are applied, nothing is in flight and nothing changes any more.

    False where that takes longer than ``seconds``.

    What is asked is only when to look, never what to find: the judge reads for itself afterwards.
    """
    deadline = time.monotonic() + seconds
    last, since = None, time.monotonic()
    while time.monotonic() < deadline:
        ledger = world.get("analyzer", "/v1/ledger")
        now = ledger and (ledger["accepted"], ledger["in_flight"], ledger["balanced"])
        if now is None or now != last:
            last, since = now, time.monotonic()
            time.sleep(0.25)
            continue
        still = last[1] == 0 and last[2] and time.monotonic() - since > 3.0
        if still and ledger["applied"] >= known and world.owned() == 12:
            return True
        time.sleep(0.25)
    return False


def compare_rebuild(world: World) -> list[str]:
    """Fold all stored events anew beside the live models, and switch nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "services.analyzer.rebuild", "--check"],
        env={**os.environ, **world.environment("analyzer-1"), "CLOSEDLOOP_POSTGRES": world.postgres},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=180,
        check=False,
    )
    if done.returncode == 0:
        found = json.loads(done.stdout)
        if found["live"] == found["rebuilt"]:
            return []
    return [done.stdout + done.stderr[-300:]]


def _keep_logs(world: World, outcome: Outcome) -> None:
    """Where a folder is named by the environment, the logs of failed trials go there."""
    folder = os.environ.get(LOGS)
    if folder and outcome.failed:
        place = Path(folder) / f"{outcome.trial.name.replace(' ', '-')}-{outcome.seed}"
        shutil.copytree(world.data_dir / "logs", place, dirs_exist_ok=True)
        (place / "outcome.txt").write_text(outcome.describe())
