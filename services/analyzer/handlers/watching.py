"""What can be seen of the analyzer from outside, brought up to date whenever somebody looks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

from libs.common.errors import Transient
from services.analyzer.handlers.insights import Insights
from services.analyzer.handlers.queries import Queries
from services.analyzer.metrics import BOUNDS, ENDS, MIXED, AnalyzerMetrics
from services.analyzer.model.ledger import Ledger
from services.analyzer.model.lift import TREATMENT, LiftRow

_log = logging.getLogger(__name__)

AT_MOST_EVERY = 0.5
"""Seconds: looking costs three small queries, and anybody may look."""

PATIENCE = 2.0
"""Seconds; a scrape gives up after ten."""

LIFT_EVERY = 60.0
"""Seconds between two counts of the lift, at least."""

LEVEL = 0.95


class LedgerGauges:
    """Shows the ledger as gauges, out of the same computation as ``/v1/ledger``.

    Without the database the last figures stay, and ``database_answers`` says 0.
    """

    def __init__(
        self, queries: Queries, metrics: AnalyzerMetrics, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._queries = queries
        self._metrics = metrics
        self._monotonic = monotonic
        self._looked = float("-inf")

    async def look(self) -> None:
        """Bring the gauges up to date."""
        now = self._monotonic()
        if now - self._looked < AT_MOST_EVERY:
            return
        self._looked = now
        try:
            async with asyncio.timeout(PATIENCE):
                ledger = await self._queries.ledger()
        except (Transient, TimeoutError):
            self._metrics.database.set(0)
            return
        self._metrics.database.set(1)
        self._show(ledger)

    def _show(self, ledger: Ledger) -> None:
        self._metrics.balanced.set(ledger.balanced)
        by_source: dict[tuple[str, str], int] = {}
        for end in ENDS:
            self._metrics.ledger.set(getattr(ledger, end), end)
            for line in ledger.by_source:
                place = self._metrics.sources.label(line.source), end
                by_source[place] = by_source.get(place, 0) + getattr(line, end)
        for place, amount in by_source.items():
            self._metrics.ledger_by_source.set(amount, *place)


class LiftGauges:
    """Shows the lift of the placements in the catalogue, counted anew in the background.

    Trap: not at a scrape. With very many customers it takes longer than a scrape waits.
    """

    def __init__(
        self,
        insights: Insights,
        placements: Collection[str],
        metrics: AnalyzerMetrics,
        ready: Callable[[], bool],
    ) -> None:
        self._insights = insights
        self._placements = placements
        self._metrics = metrics
        self._ready = ready
        self._failing = False

    async def run(self) -> None:
        """Count again and again, for at most a hundredth of the time."""
        while True:
            began = time.monotonic()
            if self._ready():
                await self.look()
            await asyncio.sleep(max(LIFT_EVERY, 100.0 * (time.monotonic() - began)))

    async def look(self) -> None:
        """Count once; where that fails the last figures stay, it is counted, and said the first time."""
        try:
            rows = (await self._insights.lift(None, LEVEL)).rows
        except Transient as error:
            self._metrics.lift_failures.add()
            if not self._failing:
                _log.warning("the lift could not be counted", extra={"reason": error.reason})
            self._failing = True
            return
        self._failing = False
        self._show(rows)

    def _show(self, rows: Sequence[LiftRow]) -> None:
        metrics = self._metrics
        for row in rows:
            if row.placement not in self._placements or row.placement not in metrics.placements:
                continue
            place = row.placement, row.against
            for group, of in ((TREATMENT, row.treatment), (row.against, row.control), (MIXED, row.mixed)):
                metrics.group_customers.set(of.customers, row.placement, group)
            if row.interval is None or row.difference is None:
                continue
            for bound, value in zip(BOUNDS, (row.interval[0], row.difference, row.interval[1]), strict=True):
                metrics.lift.set(value, *place, bound)
