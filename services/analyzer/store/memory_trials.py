"""What falls due in memory: the twin of `store.trials`."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey
from services.analyzer.model.idle import IdleTimer
from services.analyzer.model.trials.record import NEVER, TRIALS
from services.analyzer.model.trials.rows import Due, TrialRow
from services.analyzer.ports import ModelRow


@dataclass
class MemoryTrials:
    """The rows of all partitions, by customer and decision, and the timers of visitors."""

    rows: dict[tuple[CustomerKey, str], TrialRow] = field(default_factory=dict)
    timers: dict[CustomerKey, IdleTimer] = field(default_factory=dict)

    def put(self, rows: Iterable[TrialRow], timers: Iterable[IdleTimer]) -> None:
        """Keep ``rows`` and ``timers``; rows without a body go, and timers that are over."""
        for timer in timers:
            if timer.due:
                self.timers[timer.customer] = timer
            else:
                self.timers.pop(timer.customer, None)
        for row in rows:
            if row.body:
                self.rows[row.customer, row.decision] = row
            else:
                self.rows.pop((row.customer, row.decision), None)

    def erase(self, customer: CustomerKey) -> None:
        """Forget all decisions of ``customer``, and his timer."""
        self.timers.pop(customer, None)
        self.rows = {key: row for key, row in self.rows.items() if row.customer != customer}

    def parts(self, customers: Container[CustomerKey]) -> list[ModelRow]:
        """As parts of the models of ``customers``."""
        return [
            ModelRow(row.partition, row.customer, TRIALS + row.decision, row.number, row.body)
            for row in self.rows.values()
            if row.customer in customers
        ]

    def in_partition(self, partition: int) -> list[ModelRow]:
        """As parts of the models of ``partition``."""
        return self.parts({row.customer for row in self.rows.values() if row.partition == partition})

    def due(self, partition: int, before: Millis, limit: int) -> Due:
        """As `ports.SliceStore.due`."""
        trials = sorted((row.due, row.customer) for row in self.rows.values() if row.partition == partition)
        timers = sorted((row.due, row.customer) for row in self.timers.values() if row.partition == partition)
        if len(times := [due for due, _ in trials if due < before]) >= limit:
            before = times[limit - 1] + 1
        looks = [timer for timer in timers if timer[0] < before]
        if len(looks) > limit:
            looks = looks[:limit]
            before = looks[-1][0] + 1
        visitors = {customer: due for due, customer in looks}
        return Due(
            sorted(visitors.keys() | {customer for due, customer in trials if due < before}),
            before,
            min(
                [
                    NEVER,
                    *(due for due, _ in trials if due >= before),
                    *(due for due, _ in timers[len(looks) :]),
                ]
            ),
            visitors,
        )
