"""The demo's report: one file, honest words, figures where they belong."""

from __future__ import annotations

import json
import re
from collections import deque
from pathlib import Path

import msgspec
import pytest

from deploy.local.demo.data import Basket, Journey
from deploy.local.demo.feed import iso, order
from deploy.local.demo.figures import Bar, Complement, Figures, figures_of, quantile
from deploy.local.demo.live import line, rate
from deploy.local.demo.mission import curls, missions
from deploy.local.demo.replay import Pulse, Replay, bought_outcomes, requests_for, shown_outcomes
from deploy.local.demo.report import html
from deploy.local.demo.scores import score
from deploy.local.demo.show import MARKER, clear
from libs.common.errors import Misconfigured

URLS = {name: f"http://127.0.0.1:{8000 + n}" for n, name in enumerate(("collector", "analyzer"), 1)}
URLS |= {"recommender": "http://127.0.0.1:8003", "feedback": "http://127.0.0.1:8004"}
BASKET = Basket("basket-1", "household-9", 1_500_000_000_000, 40, ("a", "b", "c"), (1, 2, 1), (1.0, 2.5, 3.0))


def journey() -> Journey:
    products = [{"product_id": name, "name": f"Product {name}"} for name in "abc"]
    return Journey(products, [BASKET], frozenset({"household-9"}), 40)


def figures() -> Figures:
    replay = Replay(calls=None, journey=journey(), pulse=Pulse(), seed=1)  # type: ignore[arg-type]
    for week in (40, 41):
        for household in range(5):
            rankings = {"learned": ["a", "b"], "habit": ["b"], "popular": ["x", "a"]}
            scores = {name: score(ranked, ["a", "b"]) for name, ranked in rankings.items()}
            replay.board.add(f"h{household}", week, scores)
            replay.live.add(f"h{household}", week, {"live": scores["learned"]})
            lists = {"with": ["c"], "without": ["x", "c"], "masked": ["c"]}
            pair = {name: score(ranked, ["c"]) for name, ranked in lists.items()}
            replay.halves.add(f"h{household}", week, pair)
    replay.pulse.loop_seconds = [0.010, 0.020, 0.5]
    found = [Complement("Pasta <dry>", "Sauce", "often bought together")]
    return figures_of(replay, journey(), 400, (1, 52), 100.0, found)


def test_report_is_one_file_that_needs_nothing_else() -> None:
    lines = curls(URLS, "sk_key", "household-9", "a")
    text = html(figures(), missions(lines), lines)
    assert "<script" not in text
    assert not re.search(r"""(src|href)=["']https?:""", text)
    assert text.count("<svg") == 4
    assert "Pasta &lt;dry&gt;" in text


def test_report_says_what_it_does_not_show() -> None:
    lines = curls(URLS, "sk_key", "household-9", "a")
    text = html(figures(), missions(lines), lines)
    assert "would-have-hit" in text
    assert "This is no lift" in text
    assert "simulated from real shopping patterns" in text
    assert all(f"<td>M{number}</td>" in text for number in range(1, 15))
    assert "not yet" in text
    assert "Bearer sk_key" in text


def test_figures_are_plain_json_with_their_bars() -> None:
    plain = json.loads(msgspec.json.encode(figures().as_json()))
    assert plain["means"]["learned"]["ndcg"]["mean"] == 1.0
    assert plain["halves"]["ratio"] == pytest.approx(1.585, abs=0.001)
    assert plain["halves"]["ratio_masked"] == 1.0
    assert [bar["met"] for bar in plain["bars"]] == [True, True, True]
    assert plain["speed"]["loop_ms_p50"] == 20.0
    assert set(plain["weekly"]) == {"40", "41"}


def test_half_a_basket_is_compared_over_the_same_products() -> None:
    plain, live, given, bare = requests_for(BASKET, ["a"])
    assert (plain["placement"], live["placement"]) == ("basket", "basket-live")
    assert given["context"] == {"basket": ["a"]}
    assert bare["exclude"] == ["a"]
    assert given["dry_run"]
    assert bare["dry_run"]
    assert "dry_run" not in plain
    assert len(requests_for(BASKET, [])) == 2


def test_outcomes_are_what_was_truly_bought() -> None:
    answer = {"offers": [{"product_id": "a", "token": "t1"}, {"product_id": "z", "token": "t2"}]}
    assert [each["token"] for each in shown_outcomes([BASKET], [answer])] == ["t1", "t2"]
    assert [(each["token"], each["outcome"]) for each in bought_outcomes([BASKET], [answer])] == [
        ("t1", "converted")
    ]


def test_order_is_a_touchpoint_with_an_id_of_its_own() -> None:
    posted = order(BASKET)
    assert posted["id"] == "basket-1"
    assert posted["occurred_at"] == "2017-07-14T02:40:00.000Z" == iso(BASKET.at)
    assert [each["quantity"] for each in posted["properties"]["products"]] == [1, 2, 1]


def test_live_line_tells_rate_latency_and_hits() -> None:
    pulse = Pulse(loop_seconds=[0.01, 0.03])
    pulse.hit(40, 0.0)
    pulse.hit(41, 1.0)
    pulse.hit(41, 0.0)
    assert rate(deque([(0.0, 0), (2.0, 500)])) == 250.0
    assert line(pulse, 250.0) == (
        "250 events/s  ·  loop p50 30 ms, p99 30 ms  ·  would have hit 50% of baskets in week 41"
    )


def test_quantile_of_few_values() -> None:
    assert [quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]


def test_demo_empties_its_own_directory_only(tmp_path: Path) -> None:
    mine = tmp_path / "demo"
    clear(mine)
    (mine / "postgres").mkdir()
    (mine / "report.html").write_text("kept")
    clear(mine)
    assert not (mine / "postgres").exists()
    assert (mine / "report.html").read_text() == "kept"
    assert (mine / MARKER).exists()
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_text("precious")
    with pytest.raises(Misconfigured, match="other than a demo"):
        clear(foreign)
    assert (foreign / "holiday.jpg").exists()


def test_a_promise_is_broken_where_the_whole_interval_says_so() -> None:
    assert Bar("few households", 1.19, 1.2, high=1.25).met
    assert not Bar("few households", 1.1, 1.2, high=1.19).met
    assert not Bar("no interval", 1.19, 1.2).met
