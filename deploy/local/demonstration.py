"""`closedloop demo`: the replay of a year, and the market, as one command."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from deploy.local.options import DATA_DIR
from libs.common.errors import Misconfigured


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DATA_DIR / "demo",
    show_default=True,
    help="Directory of the demo's platform, made anew at each run.",
)
@click.option("--households", type=click.IntRange(2, 2469), default=400, show_default=True)
@click.option("--weeks", default="1-52", show_default=True, metavar="FROM-TO")
@click.option("--keep", is_flag=True, help="Hold the platform up afterwards, until Ctrl-C.")
@click.option(
    "--seed",
    type=int,
    default=7,
    show_default=True,
    help="Which households, which half of a basket, which market.",
)
@click.option("--port-base", type=click.IntRange(0, 65530), default=8000, show_default=True)
@click.option(
    "--scenario",
    type=click.Choice(["all", "groceries", "shop"]),
    default="all",
    show_default=True,
    help="The replay of groceries, a market with known truth, or the replay and then a short market.",
)
@click.option("--assert", "check", is_flag=True, help="Exit with an error when the figures miss the bars.")
def demo(
    data_dir: Path,
    households: int,
    weeks: str,
    keep: bool,
    seed: int,
    port_base: int,
    scenario: str,
    check: bool,
) -> None:
    """Watch the loop learn from a year of shopping, then in a market of known truth (some minutes)."""
    from deploy.local.demo.show import Show, play
    from deploy.local.market import run as market

    first, _, last = weeks.partition("-")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last) <= 53):
        raise Misconfigured("--weeks wants FROM-TO between 1 and 53, for example 1-52")
    show = Show(
        data_dir=data_dir,
        households=households,
        weeks=(int(first), int(last)),
        keep=keep,
        seed=seed,
        port_base=port_base,
        check=check,
        encore=market.encore(data_dir, port_base, seed) if scenario == "all" else None,
    )
    sys.exit(market.play(show) if scenario == "shop" else play(show))
