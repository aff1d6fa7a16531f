"""The market's figures: the truth is put beside the right claim, and the audit finds what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploy.local.demo.replay import Pulse
from deploy.local.market import report
from deploy.local.market.figures import (
    MarketFigures,
    audit,
    calibration,
    caused,
    daily,
    lifts,
    possible_by_part,
    sampled,
)
from deploy.local.market.play import Play, Slate, placement, possible, showings_of
from deploy.local.market.world import EXAMINED, Size, World, product_id
from libs.common.contracts.catalogue import KINDS

SIZE = Size(customers=60, history=2, days=8)


@pytest.fixture(scope="module")
def played() -> Play:
    """A play without a platform: the treated are shown the best, the baseline whatever comes first."""
    play = Play(calls=None, world=World.make(SIZE, 4), pulse=Pulse())  # type: ignore[arg-type]
    for day in range(SIZE.history, SIZE.last):
        worth = play.shoppers.worth(day)
        slates = []
        for customer in np.flatnonzero(play.world.visits[day]).tolist():
            group = ("treatment", "baseline", "none")[customer % 3]
            play.groups[customer] = group
            best = (-worth[customer]).argsort()[:3].tolist() if group == "treatment" else [0, 3, 6]
            offers = [
                {
                    "product_id": product_id(product),
                    "kind": "cross_sell",
                    "score": float(worth[customer, product]),
                    "propensity": 0.5,
                }
                for product in (best if group != "none" else [])
            ]
            slates.append(Slate(f"d{day}-{customer}", customer, group, offers))
        showings = showings_of(slates)
        reaction = play.shoppers.show(day, showings)
        for group in ("treatment", "baseline"):
            play.days.append(play._noted(day, group, slates, showings, reaction, worth))
    return play


def figures(play: Play) -> MarketFigures:
    row = {
        "against": "none",
        "treatment": {"customers": 20, "mean": 9.0},
        "control": {"customers": 20, "mean": 4.0},
        "difference": 5.0,
        "interval": [1.0, 9.0],
    }
    return MarketFigures(
        seed=4,
        customers=60,
        days=8,
        lifts=lifts([row], play),
        audit=audit([decision([0.5, 0.5], 0)] * 20),
        caused=caused(play, {"cross_sell": 0.4}),
        calibration=calibration(play.days),
        possible=possible_by_part(play),
        daily={"treatment": daily(play.days, "treatment")},
        decisions=1,
        events=2,
        not_fresh=0,
        seconds=3.0,
    )


def decision(chances: list[float], chosen: int, ghosts: tuple[int, ...] = ()) -> dict[str, Any]:
    pool = [{"offer_id": str(at), "propensity": chance} for at, chance in enumerate(chances)]

    def drawn(at: int) -> dict[str, Any]:
        return {"rank": 1, "offer_id": str(at), "propensity": chances[at], "pool": pool}

    return {"slots": [drawn(chosen)], "ghosts": [drawn(at) for at in ghosts]}


def test_truth_of_a_lift_is_that_of_the_two_groups_compared(played: Play) -> None:
    rows = [
        {
            "against": against,
            "treatment": {"customers": 20},
            "control": {"customers": 20},
            "difference": 1.0,
            "interval": None,
        }
        for against in ("none", "baseline")
    ]
    none, baseline = lifts(rows, played)
    effect = played.shoppers.effect
    mean = {
        group: np.mean([effect[c] for c, of in played.groups.items() if of == group])
        for group in ("treatment", "baseline", "none")
    }
    assert mean["none"] == 0.0
    assert none.truth == pytest.approx(mean["treatment"])
    assert baseline.truth == pytest.approx(mean["treatment"] - mean["baseline"])
    assert none.covers
    assert not none.excludes_nothing


def test_audit_passes_for_stated_chances_and_fails_for_others() -> None:
    draw = np.random.default_rng(1)
    chances = [0.9, 0.06, 0.04]
    honest = audit(decision(chances, int(draw.choice(3, p=chances))) for _ in range(4_000))
    assert honest.off < 3
    assert honest.draws == 4_000
    greedier = [0.97, 0.02, 0.01]
    lying = audit(decision(chances, int(draw.choice(3, p=greedier))) for _ in range(4_000))
    assert lying.off > 3


def test_audit_takes_ghosts_for_the_draws_they_are() -> None:
    """One of three is a ghost and drawn again: only with its draws does the mean weight stay 1."""
    draw = np.random.default_rng(2)
    chances, rest = [0.6, 0.3, 0.1], [0.0, 0.75, 0.25]
    found = []
    for _ in range(4_000):
        first = int(draw.choice(3, p=chances))
        one = decision(chances, first) if first else decision(rest, int(draw.choice(3, p=rest)))
        if first == 0:
            one["ghosts"] = decision(chances, 0)["slots"]
        found.append(one)
    assert audit(found).off < 3
    assert audit([{**one, "ghosts": []} for one in found]).off > 3


def test_share_caused_is_what_would_not_have_been_bought(played: Play) -> None:
    whole = [t for t in played.days if t.group == "treatment" and t.day + 4 <= SIZE.last]
    seen = [(t.day, t.showings.where(t.reaction.examined)) for t in whole]
    before = caused(played, {"cross_sell": 0.4})
    assert [(row.kind, row.learned) for row in before] == [("cross_sell", 0.4)]
    assert before[0].trials == sum(len(rows.customer) for _, rows in seen)
    bought = sum(
        bool(played.shoppers.bought[day : day + 4, customer, product].any())
        for day, rows in seen
        for customer, product in zip(rows.customer, rows.product, strict=True)
    )
    day, rows = seen[0]
    place = (day + 1, int(rows.customer[0]), int(rows.product[0]))
    assert before[0].truth == 1.0
    had = bool(played.shoppers.bought[day : day + 4, place[1], place[2]].any())
    played.world.anyway[place] = played.shoppers.bought[place] = True
    try:
        (row,) = caused(played, {})
    finally:
        played.world.anyway[place] = False
    assert row.learned is None
    assert row.truth == pytest.approx(1 - 1 / (bought + (not had)))


def test_scores_that_are_the_truth_are_calibrated(played: Play) -> None:
    (row,) = calibration(played.days)
    assert row.kind == KINDS[0]
    assert row.expected == pytest.approx(row.truth)


def test_best_slates_are_all_that_is_possible(played: Play) -> None:
    parts = possible_by_part(played)
    assert list(parts) == ["at the beginning", "before the drift", "after the drift", "at the end"]
    for shares in parts.values():
        assert shares["treatment"] == pytest.approx(1.0)
        assert shares["baseline"] < 0.6
        assert shares["evenly"] < 0.6
    worth, sold = np.array([[3.0, 2.0, 1.0, 9.0]]), np.array([True, True, True, False])
    best, even = possible(worth, sold, [0])
    assert best == pytest.approx(3 * EXAMINED[0] + 2 * EXAMINED[1] + EXAMINED[2])
    assert even == pytest.approx(2 * EXAMINED.sum())


def test_report_of_a_market_says_what_was_claimed_and_what_is_true(played: Play) -> None:
    text = report.html(figures(played))
    assert "<script" not in text
    for words in ("no offers", "+5.00", "cross_sell", "mean weight", "tastes moved on"):
        assert words in text
    assert {bar.what for bar in figures(played).bars} >= {"market: the lift against no offers excludes 0"}
    assert figures(played).as_json()["lifts"][0][0] == "none"


def test_at_most_some_hundred_decisions_are_looked_up_evenly() -> None:
    ids = [str(n) for n in range(6_000)]
    chosen = sampled(ids)
    assert len(chosen) == 600
    assert (chosen[0], chosen[-1]) == ("0", "5999")
    assert sampled(ids[:5]) == ids[:5]
    assert sampled([]) == []


def test_the_market_has_ghosts_and_a_window_of_its_own() -> None:
    said = placement()
    assert said["ghosts"] > 0.02
    assert said["window"] == 4 * 86_400
    assert said["limit"] == len(EXAMINED)
