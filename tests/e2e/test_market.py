"""A small market on a real platform: what the platform tells is what the market knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from deploy.local.demo.calls import Calls
from deploy.local.demo.replay import Pulse
from deploy.local.market import report
from deploy.local.market.figures import MarketFigures, market_figures
from deploy.local.market.play import Play
from deploy.local.market.world import Size, World
from tests.e2e.rig import Up

SIZE = Size(customers=150, history=3, days=6)


def test_platform_tells_the_margins_that_the_market_knows(start: Callable[..., Up]) -> None:
    up = start("--ephemeral", "--clock", "journal", "--holdout", "0.25,0.25").wait_ready()
    play, figures, rows = asyncio.run(_played(up))
    assert set(play.groups.values()) == {"treatment", "baseline", "none"}
    assert not play.not_fresh
    # To the cent: every order and return arrived once, and counts from the first decision on.
    for row in rows:
        control = row["against"]
        for told, group in ((row["treatment"], "treatment"), (row["control"], control)):
            known = margins_since_first_decision(play, group)
            assert told["customers"] == len(known)
            assert told["mean"] == pytest.approx(np.mean(known), abs=0.005)
    assert {lift.against for lift in figures.lifts} == {"none", "baseline"}
    assert all(lift.truth > 0 for lift in figures.lifts if lift.against == "none")
    assert not any(
        trade.decisions and trade.worth.sum() == 0 for trade in play.days if trade.day > SIZE.drift
    )
    assert figures.audit.draws > 300
    assert figures.audit.off < 4
    section = report.section(figures)
    assert "no offers" in section
    assert "looked at" in section


def margins_since_first_decision(play: Play, group: str) -> list[float]:
    """What each customer of a group bought and kept from his first visit in the days of trade."""
    world, shoppers = play.world, play.shoppers
    kept = np.stack([shoppers._kept(day) @ world.margin for day in range(world.size.last)])
    found = []
    for customer, of in play.groups.items():
        if of == group:
            days = np.arange(world.size.last)
            first = days[world.visits[:, customer] & (days >= world.size.history)][0]
            found.append(float(kept[first:, customer].sum()))
    return found


async def _played(up: Up) -> tuple[Play, MarketFigures, list[dict[str, object]]]:
    services = ("collector", "analyzer", "recommender", "feedback", "learner")
    async with Calls({name: up.url(name) for name in services}, up.printed("key")) as calls:
        play = Play(calls, World.make(SIZE, seed=5), Pulse())
        await play.run()
        figures = await market_figures(play, 1.0)
        rows = (await calls.get("analyzer", "/v1/insights/lift?placement=shop"))["rows"]
        return play, figures, rows
