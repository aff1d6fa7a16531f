"""The demo's figures in one structure: what the screen, the report and metrics.json all show."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from deploy.local.demo.data import Journey
from deploy.local.demo.feed import CHANNEL, iso
from deploy.local.demo.replay import BASKET, Pulse, Replay
from deploy.local.demo.scores import MEASURES, Interval

RANKINGS = {"learned": "learned ranking", "habit": "personal habit", "popular": "popularity"}
MEASURE_NAMES = {"ndcg": "NDCG@10", "recall": "recall@10", "hit": "would-have-hit rate"}
HABIT_MARGIN = 0.005
POPULAR_FACTOR = 1.5
HALF_FACTOR = 1.2
COMPLEMENTS = 12
COMMONPLACE = 20


@dataclass(frozen=True)
class Bar:
    """A promise of the demo and whether this run kept it.

    ``high`` is the upper end of the figure's interval, where few households leave it open whether it is met:
    then the promise is broken only where the whole interval says so.
    """

    what: str
    figure: float
    at_least: float
    high: float | None = None

    @property
    def met(self) -> bool:
        return (self.figure if self.high is None else self.high) >= self.at_least


@dataclass(frozen=True)
class Complement:
    """What goes with a product, as the platform says it."""

    product: str
    goes_with: str
    reason: str


@dataclass(frozen=True)
class Figures:
    """Everything measured in one run.

    Parameters
    ----------
    means:
        ranking → measure → interval over households.
    paired:
        ``learned - habit`` and ``learned - popular`` on the same baskets, by measure.
    weekly:
        week → ranking → measure → mean; ``baskets`` counts them.
    halves:
        NDCG@10 of the other half of a basket: ``with`` one half given, ``without`` it (the same request but
        for the basket), and ``masked``: without it too, but with its products excluded; the ratios of the
        first to the others.
    speed:
        How fast it went.
    """

    households: int
    scored_households: int
    scored_baskets: int
    weeks: tuple[int, int]
    scored_from: int
    seed: int
    means: dict[str, dict[str, Interval]]
    paired: dict[str, dict[str, Interval]]
    weekly: dict[int, dict[str, dict[str, float]]]
    halves: dict[str, float]
    live: Interval
    speed: dict[str, float]
    complements: list[Complement]

    @property
    def bars(self) -> list[Bar]:
        """What the demo promises."""
        learned, popular = self.means["learned"]["ndcg"].mean, self.means["popular"]["ndcg"].mean
        return [
            Bar(
                f"NDCG@10 of the learned ranking, less that of personal habit (at least -{HABIT_MARGIN})",
                self.paired["learned - habit"]["ndcg"].mean,
                -HABIT_MARGIN,
            ),
            Bar(
                f"NDCG@10 of the learned ranking over that of popularity (at least {POPULAR_FACTOR})",
                learned / popular if popular else math.inf,
                POPULAR_FACTOR,
            ),
            Bar(
                f"NDCG@10 of the other half of a basket, one half given over not (at least {HALF_FACTOR}, "
                f"or that within the interval up to {self.halves['ratio_high']:.2f})",
                self.halves["ratio"],
                HALF_FACTOR,
                self.halves["ratio_high"],
            ),
        ]

    def as_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        plain = asdict(self)
        for group in ("means", "paired"):
            plain[group] = {
                name: {measure: interval._asdict() for measure, interval in measures.items()}
                for name, measures in getattr(self, group).items()
            }
        plain["live"] = self.live._asdict()
        plain["weekly"] = {str(week): row for week, row in self.weekly.items()}
        plain["bars"] = [{**asdict(bar), "met": bar.met} for bar in self.bars]
        return plain


def figures_of(
    replay: Replay,
    journey: Journey,
    households: int,
    weeks: tuple[int, int],
    seconds: float,
    complements: list[Complement],
) -> Figures:
    """Sum up a finished replay."""
    board = replay.board
    return Figures(
        households=households,
        scored_households=len(set(board.customers)),
        scored_baskets=len(board),
        weeks=weeks,
        scored_from=journey.score_from,
        seed=replay.seed,
        means={name: {m: board.interval(name, m) for m in MEASURES} for name in RANKINGS},
        paired={
            f"learned - {other}": {m: board.interval("learned", m, minus=other) for m in MEASURES}
            for other in ("habit", "popular")
        },
        weekly={
            week: {name: {m: board.mean(name, m, week) for m in MEASURES} for name in RANKINGS}
            for week in sorted(set(board.weeks))
        },
        halves=_halves(replay),
        live=replay.live.interval("live", "ndcg"),
        speed=_speed(replay.pulse, seconds),
        complements=complements,
    )


def _halves(replay: Replay) -> dict[str, float]:
    given, bare, masked = (replay.halves.mean(name, "ndcg") for name in ("with", "without", "masked"))
    return {
        "baskets": len(replay.halves),
        "with": given,
        "without": bare,
        "masked": masked,
        "ratio": given / bare if bare > 0 else math.inf,
        "ratio_high": replay.halves.ratio("with", "without", "ndcg").high if bare > 0 else math.inf,
        "ratio_masked": given / masked if masked > 0 else math.inf,
    }


def _speed(pulse: Pulse, seconds: float) -> dict[str, float]:
    return {
        "seconds": seconds,
        "events": pulse.events,
        "history_events_per_second": pulse.history_events / max(pulse.history_seconds, 1e-9),
        "recommendations": pulse.recommendations,
        "recommendations_per_second": pulse.recommendations / max(pulse.recommending_seconds, 1e-9),
        "loop_ms_p50": 1_000 * quantile(pulse.loop_seconds, 0.50),
        "loop_ms_p99": 1_000 * quantile(pulse.loop_seconds, 0.99),
        "loop_samples": len(pulse.loop_seconds),
        "loop_not_fresh": pulse.stale_probes,
    }


def quantile(values: list[float], share: float) -> float:
    """The value below which ``share`` of the values lie; not a number where there are none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def ask_complements(replay: Replay) -> list[Complement]:
    """What goes with the products bought most, asked like any page of a shop would ask.

    What is in everybody's basket goes with everything; it is excluded, so that the answers tell something.
    """
    journey = replay.journey
    popular = replay.popular(COMMONPLACE + 10 * COMPLEMENTS)
    at = iso(journey.baskets[-1].at)
    asked = [
        {
            "placement": BASKET,
            "channel": CHANNEL,
            "context": {"product_id": product},
            "kinds": ["cross_sell"],
            "exclude": popular[:COMMONPLACE],
            "limit": 10,
            "at": at,
            "dry_run": True,
        }
        for product in popular
    ]
    found: dict[frozenset[str], Complement] = {}
    for product, answer in zip(popular, await replay.calls.recommend(asked), strict=True):
        told = [offer for offer in answer["offers"] if offer["reasons"][0].startswith("Goes with")]
        if told:
            pair = frozenset((product, told[0]["product_id"]))
            names = journey.names[product], journey.names[told[0]["product_id"]]
            found.setdefault(pair, Complement(*names, told[0]["reasons"][0]))
    return list(found.values())[:COMPLEMENTS]
