"""`closedloop report`: what the loop has done so far, from what the services tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deploy.local.client import PlatformClient
from deploy.local.ledger import ENDS
from libs.common.times import format_time


def gather(client: PlatformClient) -> dict[str, Any]:
    """The figures of a report: ``ledger``, ``learned`` and ``lift``, as the analyzer answers them."""
    return {
        "ledger": client.get("analyzer", "/v1/ledger"),
        "learned": client.get("analyzer", "/v1/models")["learned"],
        "lift": client.get("analyzer", "/v1/insights/lift"),
    }


def report_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """The report in plain text, line by line."""
    ledger, learned = figures["ledger"], figures["learned"]
    yield "Events"
    for fate, _ in ENDS:
        yield f"  {fate.replace('_', ' '):<14}{ledger[fate]:>12,}"
    yield f"  the ledger {'balances' if ledger['balanced'] else 'does NOT balance: see closedloop verify'}"
    for source in ledger["by_source"]:
        yield f"  {source['accepted']:,} from {source['source']}"
    yield "Learned"
    if not learned["journal_time"]:
        yield "  nothing yet"
    else:
        until = format_time(learned["journal_time"])
        yield f"  {learned['orders']:,} orders and {learned['trials']:,} trials, until {until}"
    yield "Lift: margin per customer since the first decision there"
    if not figures["lift"]["rows"]:
        yield "  no decisions yet"
    for row in figures["lift"]["rows"]:
        yield f"  {row['placement']} against {row['against']}: {_lift(row)}"


def _lift(row: Mapping[str, Any]) -> str:
    treated, control = row["treatment"], row["control"]
    if row["difference"] is None:
        told = "not known"
    elif row["interval"] is None:
        told = f"{row['difference']:+.2f}, of too few customers to say how sure"
    else:
        low, high = row["interval"]
        told = f"{row['difference']:+.2f} ({low:+.2f} to {high:+.2f}, {row['level']:.0%})"
    return f"{told}; {treated['customers']:,} treated, {control['customers']:,} held out"
