"""`closedloop verify`: waits until nothing is in flight, then shows the ledger hop by hop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 30.0
STILL = 1.5
"""Seconds for which nothing may change: services report what they accepted at most once a second."""
HOPS = (
    ("accepted", "answered 202"),
    ("applied", "counted in a model"),
    ("duplicate", "known already"),
    ("rejected", "refused by a rule"),
    ("dead_lettered", "could not be processed"),
    ("erased", "erased on request"),
    ("in_flight", "still on the way"),
)


def settle(
    ask: Callable[[], dict[str, Any]],
    seconds: float = PATIENCE,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Ask for the ledger until it balances, nothing is in flight and nothing new comes; then return it.

    Returns the last one after ``seconds`` whatever it says.
    """
    deadline = monotonic() + seconds
    accepted, since = -1, monotonic()
    while True:
        ledger = ask()
        if ledger.get("accepted") != accepted:
            accepted, since = int(ledger.get("accepted", 0)), monotonic()
        done = ledger.get("balanced") and ledger.get("in_flight") == 0 and monotonic() - since >= STILL
        if done or monotonic() >= deadline:
            return ledger
        sleep(0.25)


def in_order(ledger: dict[str, Any]) -> bool:
    """Whether every accepted event has come to an end, and the sums agree."""
    ends = sum(int(ledger.get(hop, 0)) for hop, _ in HOPS[1:])
    return bool(ledger.get("balanced")) and ledger.get("in_flight") == 0 and ends == ledger.get("accepted")


def rows(ledger: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table: a row for each hop; columns: all, then each source."""
    sources = ledger.get("by_source", [])
    table = [("", "all", *(str(source.get("source", "?")) for source in sources), "meaning")]
    for hop, meaning in HOPS:
        counts = [ledger.get(hop, 0), *(source.get(hop, 0) for source in sources)]
        table.append((hop.replace("_", " "), *(f"{count:,}" for count in counts), meaning))
    return table
