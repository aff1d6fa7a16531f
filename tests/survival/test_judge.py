"""The judge judged: it finds what is lost, doubled, foreign or wrongly summed."""

from __future__ import annotations

import msgspec
import pytest

from tests.survival.bounds import upper_bound
from tests.survival.judge import Verdict, judge_events, judge_ledger, judge_poison
from tests.survival.ledger import Books, Fate, Posted
from tests.survival.load import Reply, settle
from tests.survival.reader import Stored

ORDER = Posted("e1", "c1", "order", "order_completed", "p-e1", 30)
VIEW = Posted("e2", "c1", "view", "product_viewed", "p-e2")


def bodies(orders: int = 1, value: float = 30.0, views: int = 1) -> dict[str, bytes]:
    profile = {
        "customer": "c1",
        "totals": {"order_completed": orders, "product_viewed": views},
        "purchases": [orders, value, 0, 0, [0.0, 0]],
    }
    nothing = [0.0, 0]
    items = {
        "p-e1": [orders, [1.0, 0], 0, 0.0, 1.0, 30.0, nothing, 0],
        "p-e2": [0, nothing, 0, 0.0, 0.0, 0.0, [float(views), 0], 0],
    }
    return {
        "c1/profile": msgspec.msgpack.encode(profile),
        "c1/items": msgspec.msgpack.encode({"customer": "c1", "items": items}),
    }


def judged(
    parts: dict[str, bytes], ids: tuple[str, ...] = ("e1", "e2"), fate: Fate = Fate.ACCEPTED
) -> Verdict:
    books = Books()
    books.note([ORDER], Fate.ACCEPTED)
    books.note([VIEW], fate)
    stored = Stored(parts, [("c1", "touchpoint", id_) for id_ in ids], 0)
    return judge_events(books, stored, parts)


def failures(verdict: Verdict) -> dict[str, int]:
    return {name: count.failures for name, count in verdict.items() if count.failures}


def test_exact_counts_pass() -> None:
    assert failures(judged(bodies())) == {}


def test_lost_event_is_found_in_the_model_and_in_the_table() -> None:
    assert failures(judged(bodies(views=0))) == {"lost": 1, "sums": 1}
    assert failures(judged(bodies(), ids=("e1",))) == {"lost": 1, "sums": 1}


def test_doubled_event_is_found_in_the_model_and_in_the_table() -> None:
    assert failures(judged(bodies(orders=2, value=60.0))) == {"twice": 1, "sums": 1}
    assert failures(judged(bodies(), ids=("e1", "e2", "e2"))) == {"twice": 1}


def test_refused_event_in_the_model_is_found() -> None:
    assert failures(judged(bodies(), fate=Fate.REFUSED)) == {"alien": 1}
    assert failures(judged(bodies(), fate=Fate.UNKNOWN)) == {}
    assert failures(judged(bodies(), ids=("e1", "e2", "e9"))) == {"alien": 1}


def test_wrong_amount_is_found() -> None:
    assert failures(judged(bodies(value=31.0))) == {"sums": 1}


def test_model_that_differs_from_the_topic_is_found() -> None:
    books = Books()
    verdict = judge_events(books, Stored(bodies(), [], 0), bodies(orders=2))
    assert failures(verdict) == {"published": 2}


def test_dead_letters_are_counted_both_ways() -> None:
    assert judge_poison(5, 5).failures == 0
    assert judge_poison(5, 3).failures == 2
    assert judge_poison(3, 5).failures == 2


@pytest.mark.parametrize(
    "change",
    [{"balanced": False}, {"in_flight": 1}, {"applied": 0, "duplicate": 2}, {"accepted": 9}],
)
def test_ledger_that_does_not_agree_is_found(change: dict[str, object]) -> None:
    books = Books()
    books.note([ORDER, VIEW], Fate.ACCEPTED)
    fates = dict.fromkeys(("duplicate", "rejected", "dead_lettered", "erased", "in_flight"), 0)
    ledger: dict[str, object] = {"accepted": 2, "applied": 2, "balanced": True, **fates}
    assert judge_ledger(books, ledger).failures == 0
    assert judge_ledger(books, ledger | change).failures == 1


def test_best_answer_to_an_id_holds() -> None:
    books = Books()
    settle(books, [ORDER], Reply(503, {}, "1"))
    settle(books, [ORDER], Reply(0, why="reset"))
    assert books.fates["e1"] is Fate.UNKNOWN
    settle(books, [ORDER], Reply(202, {"accepted": 1, "rejected": []}))
    settle(books, [ORDER], Reply(503, {}, "1"))
    assert books.fates["e1"] is Fate.ACCEPTED
    assert not books.wrong
    settle(books, [ORDER], Reply(503, {}))
    settle(books, [ORDER], Reply(500, {}))
    settle(books, [ORDER], Reply(202, {"rejected": [{"index": 0}]}))
    assert len(books.wrong) == 3


def test_bound_is_the_rule_of_three_and_exact() -> None:
    assert upper_bound(0, 1_000) == pytest.approx(3 / 1_000, rel=0.01)
    assert upper_bound(0, 1) == pytest.approx(0.95)
    assert upper_bound(2, 10) == pytest.approx(0.5069, abs=1e-4)
    assert upper_bound(10, 10) == 1.0
