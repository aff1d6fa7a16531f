"""Calls of Segment's HTTP API, for contract tests."""

from __future__ import annotations

from typing import Any

from libs.common.contracts.customer_event import Touchpoint
from tests.contract.collector_world import Collector

TRACK = {
    "userId": "c1",
    "event": "Fitting Room Booked",
    "properties": {"room": 7},
    "messageId": "m1",
    "timestamp": "2025-10-09T08:00:00Z",
}
BATCH = {"batch": [{"type": "track", **TRACK}], "sentAt": "2025-10-09T08:53:20Z", "writeKey": "dev-key"}


async def only(collector: Collector, message: dict[str, Any], path: str = "/v1/track") -> Touchpoint:
    """The one touchpoint a message becomes."""
    answer = await collector.post(message, path)
    assert answer.status_code == 200, answer.text
    (event,) = collector.touchpoints
    return event
