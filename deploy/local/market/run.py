"""Runs a market on a platform of its own, with groups of a quarter and a fixed salt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.local.demo.calls import Calls
from deploy.local.demo.figures import Bar
from deploy.local.demo.live import watching
from deploy.local.demo.replay import Pulse
from deploy.local.demo.show import REPORT, Encore, Show, clear, keep, perform
from deploy.local.market import report
from deploy.local.market.figures import MarketFigures, market_figures
from deploy.local.market.play import Play
from deploy.local.market.world import CURRENCY, Size, World
from deploy.local.platform import Options, Platform
from deploy.local.up import quiet_libraries
from libs.common.secrets import make_private_folder

HOLDOUT = "0.25,0.25"
SHORT = Size(customers=400, history=7, days=12)
"""What follows the replay of `closedloop demo`; its ports come after those of the replay's platform."""
PORTS_FURTHER = 10


def play(show: Show) -> int:
    """`closedloop demo --scenario shop`; the exit status of the process."""
    quiet_libraries()
    clear(show.data_dir)
    console = Console()
    platform = market_platform(show.data_dir, show.port_base, show.seed, console)

    async def act() -> list[Bar]:
        figures = await trade(platform, Size(), show.seed, console)
        keep(show.data_dir, report.html(figures), figures.as_json())
        console.print(f"The whole report: {(show.data_dir / REPORT).absolute()}")
        return figures.bars

    return asyncio.run(perform(platform, act, show.keep, show.check, console))


def encore(data_dir: Path, port_base: int, seed: int) -> Callable[[Console], Awaitable[Encore]]:
    """A short market, to be played after the replay, in a directory of its own under the demo's."""

    async def market(console: Console) -> Encore:
        platform = market_platform(data_dir / "market", port_base + PORTS_FURTHER, seed, console)
        try:
            figures = await trade(platform, SHORT, seed, console)
        finally:
            await platform.stop()
        return Encore(report.section(figures), figures.as_json(), figures.bars)

    return market


def market_platform(data_dir: Path, port_base: int, seed: int, console: Console) -> Platform:
    """A platform whose groups are the same at each run of ``seed``."""
    # Trap: with a salt made at random a market that is right at 99 of 100 salts would be wrong at some runs.
    folder = data_dir / "secrets"
    make_private_folder(folder)
    (folder / "salt.key").write_bytes(blake2b(f"market {seed}".encode(), digest_size=32).digest())
    options = Options(
        data_dir=data_dir, port_base=port_base, clock="journal", holdout=HOLDOUT, currency=CURRENCY
    )
    return Platform(options, console.print)


async def trade(platform: Platform, size: Size, seed: int, console: Console) -> MarketFigures:
    """Start ``platform`` and let the market live on it; shows what came of it, and leaves it running."""
    began = time.monotonic()
    console.print(f"A market opens on a platform of its own. {report.TRUTH}")
    world, _ = await asyncio.gather(asyncio.to_thread(World.make, size, seed), platform.start())
    pulse = Pulse()
    async with Calls(platform.urls, platform.key) as calls:
        play = Play(calls, world, pulse)
        playing = asyncio.create_task(_watched(play, console))
        failing = asyncio.create_task(platform.failure())
        try:
            await asyncio.wait({playing, failing}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done() and not playing.done():
                raise failing.result()
            await playing
        finally:
            playing.cancel()
            failing.cancel()
            await asyncio.gather(playing, failing, return_exceptions=True)
        figures = await market_figures(play, time.monotonic() - began)
    _print(figures, console)
    return figures


async def _watched(play: Play, console: Console) -> None:
    async with watching(play.pulse, console):
        await play.run()


def _print(figures: MarketFigures, console: Console) -> None:
    for head, rows in report.tables(figures):
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in report.lines(figures):
        console.print(line)
