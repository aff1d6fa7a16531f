"""`closedloop verify`: what balances, hop by hop, and what it waits for."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.local.ledger import broken_hop, hops, in_order, rows, settle, spool_of

LEDGER = {
    "accepted": 10,
    "applied": 7,
    "duplicate": 1,
    "rejected": 1,
    "dead_lettered": 1,
    "erased": 0,
    "in_flight": 0,
    "balanced": True,
    "by_source": [{"source": "shop", "accepted": 10, "applied": 7, "duplicate": 2, "dead_lettered": 1}],
}


def test_ledger_is_in_order_only_when_all_ends_are_known() -> None:
    assert in_order(LEDGER)
    assert not in_order({**LEDGER, "balanced": False})
    assert not in_order({**LEDGER, "in_flight": 1, "applied": 6})
    assert not in_order({**LEDGER, "applied": 6})


def test_verify_waits_until_nothing_is_in_flight_or_time_is_up() -> None:
    busy = [{**LEDGER, "accepted": 2, "applied": 2}, {**LEDGER, "in_flight": 3, "applied": 4}]
    answers = iter([*busy, *[LEDGER] * 20])
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    told = settle(lambda: next(answers), monotonic=lambda: now[0], sleep=sleep)
    assert told == {**LEDGER, "watched": now[0]}
    assert 1.5 <= now[0] <= 3.0
    stuck = {**LEDGER, "in_flight": 3, "applied": 4}
    told = settle(lambda: stuck, seconds=30, monotonic=lambda: now[0], sleep=sleep)
    assert told["in_flight"] == 3
    assert now[0] >= 30


def test_verify_waits_for_what_was_in_a_spool_before_it_looked() -> None:
    """The ledger knows nothing of it: what a spool accepted is told on the very bus that hangs."""
    now, applied_at = [0.0], 6.0

    def ask() -> dict[str, Any]:
        hung = {"records": 62, "unshipped": 62, "age": now[0] + 0.2}
        return {**LEDGER, "spools": {"collector": hung if now[0] < applied_at else QUIET}}

    def sleep(seconds: float) -> None:
        now[0] += seconds

    assert in_order(settle(ask, seconds=30, monotonic=lambda: now[0], sleep=sleep))
    assert applied_at <= now[0] <= applied_at + 1
    now[0], applied_at = 0.0, 60.0
    left = settle(ask, seconds=4, monotonic=lambda: now[0], sleep=sleep)
    assert (broken_hop(left) or "").startswith("collector → bus: 62 ")


def test_ledger_table_has_a_row_for_each_hop() -> None:
    head, *body = rows(LEDGER)
    assert head == ("", "all", "shop", "meaning")
    assert [row[0] for row in body][:3] == ["accepted", "applied", "duplicate"]
    assert body[0][1:3] == ("10", "10")


QUIET = {"records": 12, "unshipped": 12, "age": 0.4}


@pytest.mark.parametrize(
    ("change", "hop"),
    [
        ({}, None),
        ({"spools": {"collector": QUIET}}, None),
        ({"spools": {"collector": {"records": 90, "unshipped": 80, "age": 9.0}}}, "collector → bus: 80 "),
        ({"spools": {"feedback": {"records": 90, "unshipped": 0, "age": 9.0}}}, "bus → analyzer: 90 "),
        (
            {"balanced": False, "unbalanced": [{"spool": "ab", "partition": 3, "applied": 9, "fates": 8}]},
            "analyzer: 9 numbers of spool ab are applied in partition 3, and 8 of them",
        ),
        ({"in_flight": 1, "applied": 6}, "bus → analyzer: 1 events of all"),
        ({"applied": 6}, "analyzer: 10 events of all are accepted, 9 have a fate"),
        ({"balanced": False}, "analyzer: the ledger says"),
    ],
)
def test_hop_that_does_not_balance_is_named(change: dict[str, Any], hop: str | None) -> None:
    by_source = [{**LEDGER, "source": "shop"}]
    found = broken_hop({**LEDGER, "watched": 5.0, "by_source": by_source, **change})
    assert (found or "").startswith(hop or "")
    assert (found is None) == (hop is None)


def test_hops_tell_of_spools_from_their_metrics() -> None:
    metrics = {
        "closedloop_collector_spool_records": 90.0,
        "closedloop_collector_spool_unshipped_records": 80.0,
        "closedloop_collector_spool_age_seconds": 2.5,
    }
    spool = spool_of("collector", metrics)
    assert spool == {"records": 90, "unshipped": 80, "age": 2.5}
    lines = hops({**LEDGER, "spools": {"collector": spool}})
    assert [line.split()[:4] for line in lines[1:3]] == [
        ["in", "the", "spool", "80"],
        ["on", "the", "bus", "10"],
    ]
