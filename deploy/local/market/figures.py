"""What a market run shows: the platform's own claims beside what the market knows to be true."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from deploy.local.demo.calls import Calls
from deploy.local.demo.figures import Bar
from deploy.local.market.play import GROUPS, PLACEMENT, WINDOW_DAYS, DayOfTrade, Play
from deploy.local.market.world import EXAMINED
from libs.common.contracts.catalogue import KINDS

AUDITED = 600
"""So many decisions are looked up for the audit of propensities."""
AT_ONCE = 8
LEVEL = 0.99
LEAST_SAMPLE = 0.015
CAUSED_METRIC = "closedloop_learner_caused_ratio"


class Lift(NamedTuple):
    """Margin a treated customer brought more than one of ``against``: as estimated, and in truth."""

    against: str
    customers: tuple[int, int]
    estimate: float
    low: float
    high: float
    truth: float

    @property
    def covers(self) -> bool:
        return self.low <= self.truth <= self.high

    @property
    def excludes_nothing(self) -> bool:
        """Whether the interval says that there is a lift."""
        return self.low > 0.0


class Audit(NamedTuple):
    """The uniform policy judged by what another policy did: its mean weight must be 1."""

    draws: int
    mean_weight: float
    error: float
    sample_share: float

    @property
    def off(self) -> float:
        """How many standard errors the mean weight is from 1."""
        return abs(self.mean_weight - 1.0) / self.error if self.error else 0.0


class Caused(NamedTuple):
    """κ of a kind: as learned (None: not told) and in truth, from so many trials."""

    kind: str
    learned: float | None
    truth: float
    trials: int


class Calibration(NamedTuple):
    """Of a kind: incremental margin that was expected of what was looked at, and what it truly was."""

    kind: str
    shown: int
    expected: float
    truth: float


@dataclass(frozen=True)
class MarketFigures:
    """Everything measured in one market.

    Parameters
    ----------
    possible:
        Share of the best slates' incremental margin by part of the run, for ``treatment``, ``baseline``
        and slates drawn ``evenly``.
    """

    seed: int
    customers: int
    days: int
    lifts: list[Lift]
    audit: Audit
    caused: list[Caused]
    calibration: list[Calibration]
    possible: dict[str, dict[str, float]]
    daily: dict[str, list[float]]
    decisions: int
    events: int
    not_fresh: int
    seconds: float

    @property
    def recovery(self) -> float:
        """How good it is at the end, compared with just before tastes drifted."""
        return self.possible["at the end"]["treatment"] / self.possible["before the drift"]["treatment"]

    @property
    def bars(self) -> list[Bar]:
        """What a market must show."""
        none = next((lift for lift in self.lifts if lift.against == "none"), None)
        found = [
            Bar(
                f"market: lift against {lift.against}: the {LEVEL:.0%} interval covers the truth",
                lift.covers,
                1,
            )
            for lift in self.lifts
        ]
        found.append(
            Bar("market: the lift against no offers excludes 0", none is not None and none.low > 0.0, 1)
        )
        found.append(
            Bar("market: mean weight of the uniform policy, 3 − standard errors off 1", 3 - self.audit.off, 0)
        )
        found.append(
            Bar("market: effective sample of the uniform policy", self.audit.sample_share, LEAST_SAMPLE)
        )
        return found

    def as_json(self) -> dict[str, Any]:
        """For metrics.json."""
        return {**asdict(self), "bars": [{**asdict(bar), "met": bar.met} for bar in self.bars]}


async def market_figures(play: Play, seconds: float) -> MarketFigures:
    """Ask the platform for its claims, and put the truth beside them."""
    rows = (await play.calls.get("analyzer", f"/v1/insights/lift?placement={PLACEMENT}&level={LEVEL}"))[
        "rows"
    ]
    size = play.world.size
    return MarketFigures(
        seed=play.world.seed,
        customers=size.customers,
        days=size.days,
        lifts=lifts(rows, play),
        audit=audit(await looked_up(play.calls, sampled(play.decision_ids))),
        caused=caused(play, await learned_shares(play.calls)),
        calibration=calibration(play.days),
        possible=possible_by_part(play),
        daily={group: daily(play.days, group) for group in ("treatment", "baseline")},
        decisions=play.pulse.recommendations,
        events=play.pulse.events,
        not_fresh=play.not_fresh,
        seconds=seconds,
    )


def lifts(rows: Iterable[dict[str, Any]], play: Play) -> list[Lift]:
    """The platform's rows with the truth of the very customers it compares."""
    truth = {group: true_effect(play, group) for group in GROUPS}
    found = []
    for row in rows:
        low, high = row["interval"] or (-math.inf, math.inf)
        customers = row["treatment"]["customers"], row["control"]["customers"]
        against = row["against"]
        found.append(
            Lift(against, customers, row["difference"], low, high, truth["treatment"] - truth[against])
        )
    return found


def true_effect(play: Play, group: str) -> float:
    """Mean margin that showings caused, over all customers of a group who came."""
    effects = [play.shoppers.effect[customer] for customer, of in play.groups.items() if of == group]
    return float(np.mean(effects)) if effects else 0.0


def sampled(decision_ids: Sequence[str]) -> list[str]:
    """At most `AUDITED` of them, evenly over the run."""
    chosen = np.linspace(0, len(decision_ids) - 1, min(AUDITED, len(decision_ids))).astype(int)
    return [decision_ids[at] for at in chosen.tolist()]


async def looked_up(calls: Calls, decision_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The decisions as the platform tells them, some at a time."""
    found: list[dict[str, Any]] = []
    for first in range(0, len(decision_ids), AT_ONCE):
        some = decision_ids[first : first + AT_ONCE]
        found += await asyncio.gather(*(calls.get("recommender", f"/v1/decisions/{one}") for one in some))
    return found


def audit(decisions: Iterable[dict[str, Any]]) -> Audit:
    """Weights of the uniform policy over every draw's pool; the decision is the unit of the error."""
    # Trap: ghosts are draws too. What stays when they are left out was drawn from no stated distribution.
    draws = ([*decision["slots"], *decision["ghosts"]] for decision in decisions)
    weights = [[_weight(draw) for draw in drawn] for drawn in draws if drawn]
    flat = np.array([weight for slots in weights for weight in slots])
    if not len(flat):
        return Audit(0, math.nan, math.inf, 0.0)
    sums, counts = np.array([sum(slots) for slots in weights]), np.array([len(slots) for slots in weights])
    mean = float(flat.mean())
    error = float(np.sqrt(((sums - mean * counts) ** 2).sum()) / counts.sum())
    return Audit(len(flat), mean, error, float(flat.sum() ** 2 / (flat**2).sum() / len(flat)))


def _weight(draw: dict[str, Any]) -> float:
    """How much likelier an even draw had been."""
    pool = len([each for each in draw["pool"] if each["propensity"] > 0.0])
    return 1.0 / (pool * float(draw["propensity"]))


async def learned_shares(calls: Calls) -> dict[str, float]:
    """κ by kind, as the learner tells it."""
    found = {}
    for line in (await calls.text("learner", "/metrics")).splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith(CAUSED_METRIC + "{"):
            found[name.partition('kind="')[2].partition('"')[0]] = float(value)
    return found


def caused(play: Play, learned: dict[str, float]) -> list[Caused]:
    """κ in truth: of what was bought within the window after a showing, what would not have been without."""
    bought, anyway = play.shoppers.bought, play.world.anyway
    sums = np.zeros((len(KINDS), 3))
    for trade in play.days:
        if trade.group != "treatment" or trade.day + WINDOW_DAYS > play.world.size.last:
            continue
        seen = trade.reaction.examined
        where = (slice(trade.day, trade.day + WINDOW_DAYS), trade.showings.customer, trade.showings.product)
        counts = np.stack((np.ones(len(seen)), bought[where].any(axis=0), anyway[where].any(axis=0)))
        for column, count in enumerate(counts[:, seen]):
            sums[:, column] += np.bincount(trade.kinds[seen], count, len(KINDS))
    return [
        Caused(kind, learned.get(kind), float(1.0 - without / bought_), int(trials))
        for kind, (trials, bought_, without) in zip(KINDS, sums.tolist(), strict=True)
        if bought_ > 0
    ]


def calibration(days: Iterable[DayOfTrade]) -> list[Calibration]:
    """Scores of what was looked at against the margin it truly caused, by kind."""
    sums = np.zeros((len(KINDS), 3))
    for trade in days:
        if trade.group == "treatment":
            seen = trade.reaction.examined
            truth = trade.worth / EXAMINED[trade.showings.slot]
            for column, amount in enumerate((np.ones(len(seen)), trade.scores, truth)):
                sums[:, column] += np.bincount(trade.kinds[seen], amount[seen], len(KINDS))
    return [
        Calibration(kind, int(shown), expected / shown, truth / shown)
        for kind, (shown, expected, truth) in zip(KINDS, sums.tolist(), strict=True)
        if shown
    ]


def daily(days: Iterable[DayOfTrade], group: str) -> list[float]:
    """Share of the best slates' incremental margin, day by day."""
    return [float(each.worth.sum() / each.best) if each.best else 0.0 for each in days if each.group == group]


def possible_by_part(play: Play) -> dict[str, dict[str, float]]:
    """The same over parts of the run: a quarter at its beginning, around the drift, and at its end."""
    size = play.world.size
    quarter = max(1, size.days // 4)
    parts = {
        "at the beginning": range(size.history, size.history + quarter),
        "before the drift": range(size.drift - quarter, size.drift),
        "after the drift": range(size.drift, size.drift + quarter),
        "at the end": range(size.last - quarter, size.last),
    }
    return {name: _shares([each for each in play.days if each.day in part]) for name, part in parts.items()}


def _shares(days: Sequence[DayOfTrade]) -> dict[str, float]:
    found = {}
    for group in ("treatment", "baseline"):
        mine = [each for each in days if each.group == group]
        found[group] = sum(float(each.worth.sum()) for each in mine) / max(sum(e.best for e in mine), 1e-9)
    found["evenly"] = sum(each.even for each in days) / max(sum(each.best for each in days), 1e-9)
    return found
