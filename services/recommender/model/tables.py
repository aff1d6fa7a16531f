"""Catalogue and learned models side by side, made anew when either changed, but not at every change."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from libs.common.scoring.features import ScoringTables, Shelf
from libs.common.scoring.learned import LearnedModels
from services.recommender.model.assortment import Assortment
from services.recommender.model.authored import Authored
from services.recommender.model.signs import Signs

MOST_PAUSE = 0.4
"""Seconds that a change may wait at most: what is stored is served within one."""
REST = 10.0
"""A rebuild may take at most 1 / REST of the time."""


class Tables(NamedTuple):
    """Everything a decision reads about products."""

    scoring: ScoringTables
    authored: Authored
    signs: Signs


class TableMaker:
    """Keeps `Tables` of an assortment and the newest learned models.

    ``monotonic`` (seconds) is asked so that a stream of price changes does not mean a rebuild each.
    """

    def __init__(
        self, assortment: Assortment, learned: Callable[[], LearnedModels], monotonic: Callable[[], float]
    ) -> None:
        self._assortment = assortment
        self._learned = learned
        self._monotonic = monotonic
        self._facts = -1
        self._tables: Tables | None = None
        self._made_at = 0.0
        self._pause = 0.0

    def now(self) -> Tables:
        """The tables, at most `MOST_PAUSE` older than catalogue and models."""
        tables, learned = self._tables, self._learned()
        stale = tables is None or self._facts != self._assortment.facts
        if tables is None or ((stale or tables.scoring.learned is not learned) and self._rested()):
            tables = self._make(tables, stale, learned)
        if tables.authored.changes != self._assortment.changes:
            # Cheap next to the rest, and a withdrawn offer must not be made again.
            tables = tables._replace(authored=Authored(self._assortment, tables.authored))
        self._tables = tables
        return tables

    def _rested(self) -> bool:
        return self._monotonic() - self._made_at >= self._pause

    def _make(self, before: Tables | None, stale: bool, learned: LearnedModels) -> Tables:
        began = self._monotonic()
        if before is None or stale:
            self._facts = self._assortment.facts
            shelf = Shelf(self._assortment.products)
            authored = Authored(self._assortment, before and before.authored)
            tables = Tables(ScoringTables.align(shelf, learned), authored, Signs.of(shelf))
        else:
            shelf = before.scoring.shelf
            tables = before._replace(scoring=ScoringTables.align(shelf, learned, before.scoring))
        self._made_at = self._monotonic()
        self._pause = min(MOST_PAUSE, REST * (self._made_at - began))
        return tables
