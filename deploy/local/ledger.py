"""`closedloop verify`: waits until nothing is in flight, then shows the ledger hop by hop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

PATIENCE = 30.0
STILL = 1.5
"""Seconds for which nothing may change: services report what they accepted at most once a second."""
PUBLISHERS = ("collector", "recommender", "feedback")
"""Services with a spool."""
ENDS = (
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
    """Ask for the ledger until it balances and everything is applied that was accepted before the first look.

    Returns the last one after ``seconds`` whatever it says. ``watched`` is for how many seconds spools had
    been looked at when it was asked for: what has waited longer than that was there before.
    """
    began = monotonic()
    deadline = began + seconds
    accepted, since = -1, began
    while True:
        # Trap: taken before asking, so that nothing older than the first look can seem younger.
        watched = monotonic() - began
        ledger = {**ask(), "watched": watched}
        if ledger.get("accepted") != accepted:
            accepted, since = int(ledger.get("accepted", 0)), monotonic()
        done = in_order(ledger) and monotonic() - since >= STILL
        if done or monotonic() >= deadline:
            return ledger
        sleep(0.25)


def in_order(ledger: dict[str, Any]) -> bool:
    """Whether every accepted event has come to an end, and the sums agree."""
    return broken_hop(ledger) is None


def broken_hop(ledger: dict[str, Any]) -> str | None:
    """The first hop at which something is missing or waits, in an event's order; None if all is well.

    ``spools``, where it is there, holds what each service says of its spool, see `spool_of`. A record in it
    waits if it is older than the watch (`settle`): younger ones, such as ticks, are always on their way.
    """
    for service, spool in ledger.get("spools", {}).items():
        if spool["records"] and spool["age"] >= ledger.get("watched", 0.0):
            hop = f"{service} → bus" if spool["unshipped"] else "bus → analyzer"
            what = "not acknowledged by the broker" if spool["unshipped"] else "on the bus and not applied"
            count = spool["unshipped"] or spool["records"]
            return f"{hop}: {count:,} records of the {service}'s spool are {what}, for {spool['age']:.0f} s"
    for line in ledger.get("unbalanced", []):
        return (
            f"analyzer: {line['applied']:,} numbers of spool {line['spool']} are applied in partition "
            f"{line['partition']}, and {line['fates']:,} of them have a fate"
        )
    for line in [*ledger.get("by_source", []), ledger]:
        source = line.get("source", "all")
        ends = sum(int(line.get(end, 0)) for end, _ in ENDS[1:])
        if line.get("in_flight"):
            return f"bus → analyzer: {line['in_flight']:,} events of {source} are accepted and have no fate"
        if ends != line.get("accepted"):
            return f"analyzer: {line['accepted']:,} events of {source} are accepted, {ends:,} have a fate"
    return None if ledger.get("balanced") else "analyzer: the ledger says that it does not balance"


def spool_of(service: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """What a service's metrics say of its spool: records not applied, of these unshipped, age in seconds."""
    name = f"closedloop_{service}_spool_"
    return {
        "records": int(metrics.get(f"{name}records", 0)),
        "unshipped": int(metrics.get(f"{name}unshipped_records", 0)),
        "age": metrics.get(f"{name}age_seconds", 0.0),
    }


def hops(ledger: dict[str, Any]) -> list[str]:
    """The way of an event, a line for each hop: how much was accepted, where it is, what became of it."""
    sources = ", ".join(f"{line['source']} {line['accepted']:,}" for line in ledger.get("by_source", []))
    lines = [f"accepted         {ledger['accepted']:>12,}  {sources}"]
    for service, spool in ledger.get("spools", {}).items():
        lines.append(
            f"in the spool     {spool['unshipped']:>12,}  {service}: records of any kind, ticks included"
        )
        on_bus = spool["records"] - spool["unshipped"]
        lines.append(f"on the bus       {on_bus:>12,}  {service}: records of any kind, not applied yet")
    decided = int(ledger["accepted"]) - int(ledger["in_flight"])
    lines.append(f"with a fate      {decided:>12,}  as below; {ledger['in_flight']:,} in flight")
    return lines


def rows(ledger: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table: a row for each hop; columns: all, then each source."""
    sources = ledger.get("by_source", [])
    table = [("", "all", *(str(source.get("source", "?")) for source in sources), "meaning")]
    for end, meaning in ENDS:
        counts = [ledger.get(end, 0), *(source.get(end, 0) for source in sources)]
        table.append((end.replace("_", " "), *(f"{count:,}" for count in counts), meaning))
    return table
