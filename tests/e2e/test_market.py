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
from libs.common.clock import DAY
from libs.common.times import format_time
from tests.e2e.rig import Up, eventually

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
    assert_idle_visitors_are_dropped(up)
    section = report.section(figures)
    assert "no offers" in section
    assert "looked at" in section


def assert_idle_visitors_are_dropped(up: Up) -> None:
    """Ninety days of the journal's clock go by: who does not come back is unknown, what he did is kept."""

    def look(visitor: str, at: int) -> None:
        seen = {"type": "page_viewed", "channel": "web", "anonymous_id": visitor}
        answer = up.post("collector", "/v1/touchpoints", {**seen, "occurred_at": format_time(at)})
        assert answer.json()["accepted"] == 1

    def status(visitor: str) -> int:
        return up.get("analyzer", f"/v1/customers/anon:{visitor}").status_code

    now = int(up.get("analyzer", "/v1/models").json()["learned"]["journal_time"]) + 10 * DAY
    look("v-gone", now)
    look("v-refused", now)
    refusal = {"anonymous_id": "v-refused", "purpose": "marketing", "granted": False}
    up.post("collector", "/v1/consents", refusal)
    eventually(lambda: (status("v-gone"), status("v-refused")) == (200, 200))
    look("v-later", now + 89 * DAY)
    eventually(lambda: status("v-later") == 200)
    assert status("v-gone") == 200
    look("v-later", now + 92 * DAY)
    eventually(lambda: status("v-gone") == 404)
    assert (status("v-refused"), status("v-later")) == (200, 200)
    line = up.get("analyzer", "/v1/customers/anon:v-gone/timeline").json()
    assert [entry["type"] for entry in line] == ["page_viewed"]
    look("v-gone", now + 93 * DAY)
    eventually(lambda: status("v-gone") == 200)
    assert up.get("analyzer", "/v1/customers/anon:v-gone").json()["totals"] == {"page_viewed": 1}


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
