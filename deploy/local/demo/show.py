"""`closedloop demo`: starts a platform of its own, replays the year, shows and keeps what came of it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from deploy.local.demo import report
from deploy.local.demo.calls import Calls
from deploy.local.demo.data import CURRENCY, Journey, load
from deploy.local.demo.figures import MEASURE_NAMES, Bar, Figures, ask_complements, figures_of
from deploy.local.demo.live import watching
from deploy.local.demo.mission import Mission, curls, missions
from deploy.local.demo.replay import Pulse, Replay
from deploy.local.demo.scores import MEASURES
from deploy.local.platform import Options, Platform
from deploy.local.running import LOCK, claim, read_record, stop_leftovers
from deploy.local.supervisor import GaveUp
from deploy.local.up import first_of, quiet_libraries, stop_signal
from libs.common.errors import ClosedloopError, Misconfigured

MARKER = "demo.txt"
REPORT = "report.html"
METRICS = "metrics.json"
KEPT = frozenset({MARKER, REPORT, METRICS, LOCK})


class Encore(NamedTuple):
    """What is played after the replay: its part of the report, its figures and promises."""

    section: str
    figures: dict[str, Any]
    bars: list[Bar]


@dataclass(frozen=True)
class Show:
    """What a person can choose about the demo.

    Parameters
    ----------
    check:
        End with an error where the figures miss what the demo promises.
    encore:
        What follows while the platform of the replay still runs, on another port base.
    """

    data_dir: Path
    households: int
    weeks: tuple[int, int]
    keep: bool
    seed: int
    port_base: int
    check: bool
    encore: Callable[[Console], Awaitable[Encore]] | None = None


def play(show: Show) -> int:
    """Run the demo; the exit status of the process."""
    quiet_libraries()
    clear(show.data_dir)
    options = Options(
        data_dir=show.data_dir,
        port_base=show.port_base,
        clock="journal",
        holdout="0,0",
        currency=CURRENCY,
    )
    console = Console()
    platform = Platform(options, console.print)
    return asyncio.run(
        perform(platform, lambda: _act(show, platform, console), show.keep, show.check, console)
    )


def clear(data_dir: Path) -> None:
    """Empty the demo's directory of the run before, but never a directory that is not the demo's."""
    if data_dir.exists() and any(data_dir.iterdir()) and not (data_dir / MARKER).exists():
        raise Misconfigured(f"{data_dir} holds something other than a demo: choose another --data-dir")
    lock = claim(data_dir)
    try:
        if read_record(data_dir) is not None:
            stop_leftovers(data_dir)
        for path in data_dir.iterdir():
            if path.name in KEPT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        (data_dir / MARKER).write_text("Made by closedloop demo, which empties this directory at each run.\n")
    finally:
        lock.close()


async def perform(
    platform: Platform, act: Callable[[], Awaitable[list[Bar]]], keep: bool, check: bool, console: Console
) -> int:
    """``act`` on a platform that it starts; the exit status by the promises that were kept.

    Parameters
    ----------
    keep:
        Hold the platform up afterwards, until a signal.
    check:
        Whether a promise that was missed is an error.
    """
    stop = stop_signal()
    try:
        acting = asyncio.ensure_future(_bars(act))
        if not await first_of(acting, stop):
            console.print("stopping")
            return 1
        if keep:
            console.print("The platform is kept up: try the curl lines of the report; Ctrl-C stops it.")
            failing = asyncio.create_task(platform.failure())
            if await first_of(failing, stop):
                raise failing.result()
        missed = [bar for bar in acting.result() if not bar.met]
        for bar in missed:
            console.print(f"missed: {bar.what}: {bar.figure:.3f}")
        return 1 if missed and check else 0
    except GaveUp as gave_up:
        console.print(gave_up.tail().rstrip(), markup=False)
        console.print(f"closedloop stops: {gave_up}")
        return 1
    except ClosedloopError as error:
        console.print(f"Error: {error}", markup=False)
        return 1
    finally:
        await platform.stop()


async def _bars(act: Callable[[], Awaitable[list[Bar]]]) -> list[Bar]:
    return await act()


async def _act(show: Show, platform: Platform, console: Console) -> list[Bar]:
    began = time.monotonic()
    console.print(f"A platform starts in {show.data_dir}, and the data is prepared. {report.PROVENANCE}")
    journey, _ = await asyncio.gather(
        asyncio.to_thread(load, show.households, show.weeks, show.seed), platform.start()
    )
    console.print(
        f"{len(journey.baskets):,} baskets of {show.households} households, {len(journey.products):,} "
        f"products; ready after {time.monotonic() - began:.0f} s"
    )
    pulse = Pulse()
    async with Calls(platform.urls, platform.key) as calls:
        replay = Replay(calls, journey, pulse, show.seed)
        replaying = asyncio.create_task(_replay(replay, pulse, console))
        failing = asyncio.create_task(platform.failure())
        try:
            await asyncio.wait({replaying, failing}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done() and not replaying.done():
                raise failing.result()
            await replaying
        finally:
            replaying.cancel()
            failing.cancel()
            await asyncio.gather(replaying, failing, return_exceptions=True)
        if len(replay.board) == 0:
            raise Misconfigured("no basket could be scored: choose more households or weeks")
        complements = await ask_complements(replay)
    seconds = time.monotonic() - began
    figures = figures_of(replay, journey, show.households, show.weeks, seconds, complements)
    _print(figures, console)
    encore = None if show.encore is None else await show.encore(console)
    await asyncio.to_thread(_keep_report, show, platform, figures, journey, encore)
    console.print(f"The whole report: {(show.data_dir / REPORT).absolute()}")
    return figures.bars + (encore.bars if encore is not None else [])


async def _replay(replay: Replay, pulse: Pulse, console: Console) -> None:
    async with watching(pulse, console):
        await replay.run()


def _keep_report(
    show: Show, platform: Platform, figures: Figures, journey: Journey, encore: Encore | None
) -> None:
    lines = _curls(platform, journey)
    text = report.html(figures, missions(lines), lines, encore.section if encore is not None else "")
    told = {**figures.as_json(), **({"market": encore.figures} if encore is not None else {})}
    keep(show.data_dir, text, told)


def keep(data_dir: Path, text: str, figures: dict[str, Any]) -> None:
    """Write the report and its figures into the demo's directory."""
    (data_dir / REPORT).write_text(text)
    (data_dir / METRICS).write_bytes(msgspec.json.format(msgspec.json.encode(figures)))


def _curls(platform: Platform, journey: Journey) -> dict[str, str]:
    last = next(basket for basket in reversed(journey.baskets) if basket.customer in journey.scored)
    return curls(platform.urls, platform.key, last.customer, last.products[0])


def _print(figures: Figures, console: Console) -> None:
    scores = Table("", *(MEASURE_NAMES[measure] for measure in MEASURES), title="On the very same baskets")
    for row in report.score_rows(figures):
        scores.add_row(*row)
    console.print(scores)
    console.print(report.NO_LIFT, report.halves_line(figures))
    goes = Table("who takes", "often takes", title="What goes with what")
    for each in figures.complements[:6]:
        goes.add_row(each.product, each.goes_with)
    console.print(goes)
    _print_missions(missions({name: name for name in curls(dict.fromkeys(_URLS, ""), "", "", "")}), console)
    console.print(report.speed_line(figures))


_URLS = ("collector", "recommender", "analyzer", "feedback")


def _print_missions(rows: list[Mission], console: Console) -> None:
    table = Table("", "closed-loop marketing asks for", "", title="The mission")
    for row in rows:
        table.add_row(row.number, row.loop, "works" if row.curl else "not yet")
    console.print(table)
