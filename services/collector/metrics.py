"""Metrics of the collector."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.contracts.customer_event import CustomerEvent, SpoolReported, Tick, Touchpoint
from libs.common.contracts.touchpoint import CHANNELS, TYPED
from libs.common.personal import Screen
from libs.common.telemetry import OTHER, Metrics, Names

SOURCES = 32
"""Keys that metrics tell apart: their names are the operator's, so few, but nothing else bounds them."""

NO_CHANNEL = "none"
KINDS = ("touchpoint", "identity", "consent", "erasure", "asset", "segment", "cloudevent")
CODES = (
    "missing",
    "wrong_type",
    "too_large",
    "too_deep",
    "bad_time",
    "not_finite",
    "bad_string",
    "unknown_field",
    "not_supported",
)


class CollectorMetrics:
    """Everything the collector counts, declared in one registry."""

    def __init__(self, registry: Metrics) -> None:
        self.registry = registry
        self.accepted = registry.counter(
            "items_accepted_total", "Items answered as accepted", {"kind": KINDS}
        )
        self.rejected = registry.counter(
            "items_rejected_total", "Items refused, by reason", {"kind": KINDS, "code": CODES}
        )
        sources = Names(SOURCES)
        self._events = registry.counter(
            "events_total",
            "Events accepted, by key and channel; links and consents have the channel none",
            {"source": sources, "channel": (*sorted(CHANNELS - {OTHER}), NO_CHANNEL)},
        )
        self._last = registry.gauge(
            "last_accepted_timestamp_seconds",
            "When a key was last used to post an event",
            {"source": sources},
        )
        self._unknown = registry.counter(
            "unknown_types_total", "Touchpoints of types outside the vocabulary: kept, with free properties"
        )
        self._withheld = registry.counter(
            "personal_withheld_total", "Fields dropped and texts masked because they identify a person"
        )
        self.unsigned = registry.counter(
            "unsigned_customers_total", "userIds of messages from browsers left out for want of a signature"
        )
        self.misfits = registry.counter(
            "misfits_dropped_total", "Optional properties of Segment's messages left out: not of our type"
        )
        self.ticks = registry.counter("ticks_total", "Ticks written, one per partition")
        self.ticks_withheld = registry.counter(
            "ticks_withheld_total", "Times a tick waited for the one before it to reach the bus"
        )

    def watch(self, screen: Screen) -> None:
        """Show at each scrape what ``screen`` has kept out."""
        told = 0

        def look() -> None:
            nonlocal told
            self._withheld.add(screen.dropped - told)
            told = screen.dropped

        self.registry.before_scrape(look)

    def count(self, source: str, events: Sequence[CustomerEvent]) -> None:
        """Count the accepted ``events`` of one request, echoes and owner records left out."""
        channels: dict[str, int] = {}
        unknown = 0
        for event in events:
            if type(event) is Touchpoint:
                channel = event.channel
                unknown += event.type not in TYPED
            elif type(event) is Tick or type(event) is SpoolReported:
                continue
            else:
                channel = NO_CHANNEL
            if not event.internal:
                channels[channel] = channels.get(channel, 0) + 1
        for channel, amount in channels.items():
            self._events.add(amount, source, channel)
        if unknown:
            self._unknown.add(unknown)
        self._last.set(events[-1].recorded_at / 1000, source)
