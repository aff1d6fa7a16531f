"""Logs as JSON on stderr, and a closed registry of metrics: what was not declared cannot be emitted."""

from __future__ import annotations

import inspect
import itertools
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest
from pythonjsonlogger.json import JsonFormatter

OTHER = "other"
"""Label value of everything that is not in the declared set."""

DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Buckets of durations in seconds."""

_BORN_AT_ZERO = 64
"""Most label combinations of a counter that are shown before they first happen."""


_ATTEMPTS = (
    "Unable connect",
    "Unable to update metadata",
    "Failed fetch",
    "Group Coordinator Request failed",
    "Heartbeat send request failed",
)
_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+\Z|[a-z][a-z0-9]*_total\Z")
_LABEL = re.compile(r"[a-z][a-z0-9_]*\Z")

P = TypeVar("P", prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)


def set_up_logs(service: str, level: str = "info") -> None:
    """Write JSON lines to stderr: time, level, logger, service, message and ``extra`` fields. Call once.

    Never log keys, tokens, ids of customers or parts of bodies; codes and counts are enough.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(News())
    handler.setFormatter(
        JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            static_fields={"service": service},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These say too much: every reconnect of a client, every request.
    logging.getLogger("aiokafka").setLevel(max(root.level, logging.ERROR))
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(max(root.level, logging.WARNING))


class Names:
    """A label set of names that the operator gives, such as those of keys: the first ``limit`` are kept.

    Closed all the same: whoever comes later is ``other``. Never for what callers of an API choose. Two
    metrics that share one instance know the same names.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __contains__(self, name: object) -> bool:
        """Whether ``name`` has its own label value; takes it in while there is room."""
        if name in self._known:
            return True
        if len(self._known) >= self._limit or not isinstance(name, str):
            return False
        self._known.add(name)
        return True

    def label(self, name: str) -> str:
        """``name``, or `OTHER`."""
        return name if name in self else OTHER

    def __str__(self) -> str:
        return f"the first {self._limit} names given by the operator"


Labels = Mapping[str, "Sequence[str] | Names"]
"""By label: its closed set of values."""


class News(logging.Filter):
    """Lets through one line when a broker goes away and one when it is back, however often clients try.

    Lines about a broker carry ``broker`` (its address) and ``answers``; what aiokafka says of each of its
    attempts to connect is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._away: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record`` says something new."""
        broker = getattr(record, "broker", None)
        if broker is None:
            return not (record.name.startswith("aiokafka") and str(record.msg).startswith(_ATTEMPTS))
        if getattr(record, "answers", False):
            news = broker in self._away
            self._away.discard(broker)
        else:
            news = broker not in self._away
            self._away.add(broker)
        return news


class _Metric(Generic[P]):
    """A declared metric with its closed label sets; children are looked up once per set of values."""

    def __init__(self, metric: P, labels: Labels) -> None:
        self._metric: P = metric
        self._allowed = tuple(
            values if isinstance(values, Names) else frozenset(values) for values in labels.values()
        )
        self._children: dict[tuple[str, ...], P] = {}
        if not labels:
            self._children[()] = metric

    def born(self, labels: Labels) -> None:
        """Show every combination of closed values from the start: what never was has a rate of 0."""
        sets = [() if isinstance(values, Names) else tuple(values) for values in labels.values()]
        combinations = list(itertools.product(*sets))
        if len(combinations) <= _BORN_AT_ZERO:
            for values in combinations:
                self._child(values)

    def _child(self, labels: tuple[str, ...]) -> P:
        child = self._children.get(labels)
        if child is None:
            child = self._metric.labels(*self._closed(labels))
            # Only declared values are remembered, so that this table cannot grow with what callers send.
            if all(value in allowed for value, allowed in zip(labels, self._allowed, strict=True)):
                self._children[labels] = child
        return child

    def _closed(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(labels) != len(self._allowed):
            raise ValueError(f"{len(self._allowed)} label values expected, {len(labels)} given")
        return tuple(
            value if value in allowed else OTHER for value, allowed in zip(labels, self._allowed, strict=True)
        )


class Counter(_Metric[prometheus_client.Counter]):
    """A number that only grows."""

    def add(self, amount: float = 1, *labels: str) -> None:
        """Count ``amount`` under label values as declared, in that order; unknown values are ``other``."""
        self._child(labels).inc(amount)


class Gauge(_Metric[prometheus_client.Gauge]):
    """A number that goes up and down."""

    def set(self, value: float, *labels: str) -> None:
        """Set the number under these label values."""
        self._child(labels).set(value)


class Histogram(_Metric[prometheus_client.Histogram]):
    """How values are spread."""

    def observe(self, value: float, *labels: str) -> None:
        """Note one value under these label values."""
        self._child(labels).observe(value)


class Declared:
    """A metric as the generated reference lists it."""

    def __init__(self, name: str, kind: str, help: str, labels: Labels) -> None:
        self.name = name
        self.kind = kind
        self.help = help
        self.labels = {
            label: (str(values),) if isinstance(values, Names) else tuple(values)
            for label, values in labels.items()
        }


Hook = Callable[[], "Awaitable[None] | None"]
"""Brings gauges up to date; called before each rendering."""


class Metrics:
    """All metrics of one process, in a registry of its own, those of the process itself included.

    Names are ``closedloop_<service>_<noun>_<unit|total>``; the part before the noun is added here, so
    ``Metrics("collector").counter("touchpoints_total", "...")``. Labels have closed sets of values.
    """

    def __init__(self, service: str) -> None:
        self._prefix = f"closedloop_{service}_"
        self._registry = CollectorRegistry()
        self._hooks: list[Hook] = []
        self.declared: list[Declared] = []
        prometheus_client.ProcessCollector(registry=self._registry)

    def counter(self, name: str, help: str, labels: Labels | None = None) -> Counter:
        """Declare a counter; ``name`` ends in ``_total``."""
        if not name.endswith("_total"):
            raise ValueError(f"the name of a counter ends in _total: {name}")
        full, sets = self._declare(name, "counter", help, labels)
        counter = Counter(prometheus_client.Counter(full, help, tuple(sets), registry=self._registry), sets)
        counter.born(sets)
        return counter

    def gauge(self, name: str, help: str, labels: Labels | None = None) -> Gauge:
        """Declare a gauge; ``name`` ends in a unit (seconds, bytes, rows, records, …)."""
        full, sets = self._declare(name, "gauge", help, labels)
        return Gauge(prometheus_client.Gauge(full, help, tuple(sets), registry=self._registry), sets)

    def histogram(
        self,
        name: str,
        help: str,
        labels: Labels | None = None,
        buckets: Sequence[float] | None = None,
    ) -> Histogram:
        """Declare a histogram; ``name`` ends in a unit."""
        full, sets = self._declare(name, "histogram", help, labels)
        metric = prometheus_client.Histogram(
            full, help, tuple(sets), registry=self._registry, buckets=tuple(buckets or DURATIONS)
        )
        return Histogram(metric, sets)

    def before_scrape(self, hook: Hook) -> None:
        """Have ``hook`` called before each scrape: for gauges that cost nothing while nobody looks."""
        self._hooks.append(hook)

    async def scrape(self) -> bytes:
        """`render`, after everything that is measured only when somebody looks."""
        for hook in self._hooks:
            waiting = hook()
            if inspect.isawaitable(waiting):
                await waiting
        return self.render()

    def render(self) -> bytes:
        """Everything in the text format of Prometheus."""
        rendered: bytes = generate_latest(self._registry)
        return rendered

    def _declare(self, name: str, kind: str, help: str, labels: Labels | None) -> tuple[str, Labels]:
        sets: Labels = dict(labels or {})
        full = self._prefix + name
        if not _NAME.match(name) or any(not _LABEL.match(label) for label in sets):
            raise ValueError(f"names of metrics are <noun>_<unit|total> in snake case: {name}")
        if any(declared.name == full for declared in self.declared):
            raise ValueError(f"metric {full} is declared already")
        self.declared.append(Declared(full, kind, help, sets))
        return full, sets
