"""Insights: what came of it all, counted from the facts whenever somebody asks. Reads only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from services.analyzer.model.facts import FactRow
from services.analyzer.model.lift import LiftTally, LiftView
from services.analyzer.model.margins import Margins


class FactStore(Protocol):
    """Where facts are. `Transient` when the database is away."""

    def facts(self) -> AsyncIterator[Sequence[FactRow]]:
        """All facts as of one moment, some thousand at a time, as `facts.KINDS` orders them; of decisions of
        a customer that say the same only the first is needed."""
        ...


class Insights:
    """Counts one question at a time: each holds every customer who was decided for in memory."""

    def __init__(self, store: FactStore, margins: Margins) -> None:
        self._store = store
        self._margins = margins
        self._one = asyncio.Lock()

    async def lift(self, placement: str | None, level: float) -> LiftView:
        """Margin per customer of treatment against the control groups, at ``placement`` or at each.

        Exact: the same facts and catalogue give the same figures to the bit. In threads, because of some
        hundred thousand customers it takes seconds.
        """
        async with self._one:
            tally = LiftTally(self._margins)
            async for rows in self._store.facts():
                await asyncio.to_thread(tally.take, rows)
            return await asyncio.to_thread(tally.result, placement, level)
