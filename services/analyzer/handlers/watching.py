"""What can be seen of the analyzer from outside, brought up to date whenever somebody looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from libs.common.errors import Transient
from services.analyzer.handlers.queries import Queries
from services.analyzer.metrics import ENDS, AnalyzerMetrics
from services.analyzer.model.ledger import Ledger

AT_MOST_EVERY = 0.5
"""Seconds: looking costs three small queries, and anybody may look."""

PATIENCE = 2.0
"""Seconds; a scrape gives up after ten."""


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
