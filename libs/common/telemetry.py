"""Logs as JSON on stderr, and a closed registry of metrics: what was not declared cannot be emitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def set_up_logs(service: str, level: str = "info") -> None:
    """Write JSON lines to stderr: time, level, logger, service, message and ``extra`` fields. Call once.

    Never log keys, tokens, ids of customers or parts of bodies; codes and counts are enough.
    """


class Counter:
    """A number that only grows."""

    def add(self, amount: float = 1, *labels: str) -> None:
        """Count ``amount`` under label values in the order they were declared; unknown values are ``other``."""


class Gauge:
    """A number that goes up and down."""

    def set(self, value: float, *labels: str) -> None:
        """Set the number under these label values."""


class Histogram:
    """How values are spread."""

    def observe(self, value: float, *labels: str) -> None:
        """Note one value under these label values."""


class Metrics:
    """All metrics of one process, in a registry of its own.

    Names are ``closedloop_<service>_<noun>_<unit|total>``; the part before the noun is added here, so
    ``Metrics("collector").counter("touchpoints_total", "...")``. Labels have closed sets of values.
    """

    def __init__(self, service: str) -> None: ...

    def counter(self, name: str, help: str, labels: Mapping[str, Sequence[str]] | None = None) -> Counter:
        """Declare a counter; ``name`` ends in ``_total``."""
        ...

    def gauge(self, name: str, help: str, labels: Mapping[str, Sequence[str]] | None = None) -> Gauge:
        """Declare a gauge; ``name`` ends in a unit (seconds, bytes, rows, records, …)."""
        ...

    def histogram(
        self,
        name: str,
        help: str,
        labels: Mapping[str, Sequence[str]] | None = None,
        buckets: Sequence[float] | None = None,
    ) -> Histogram:
        """Declare a histogram; ``name`` ends in a unit."""
        ...

    def render(self) -> bytes:
        """Everything in the text format of Prometheus."""
        ...
