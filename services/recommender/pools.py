"""Moves decisions from the spool's local lane into the database, off the path of answers."""

from __future__ import annotations

import asyncio
import logging
from random import Random

import msgspec

from libs.common.bus.sender import Backoff
from libs.common.errors import Transient
from libs.common.journal import LocalJournal, LocalRow
from services.recommender.forgetting import Forgetting
from services.recommender.metrics import RecommenderMetrics
from services.recommender.ports import DecisionStore, KeptDecision, decode_kept

_log = logging.getLogger(__name__)

BATCH = 500
PAUSE = 0.25
EXPIRY_EVERY = 3_600.0
"""Seconds of rest between two looks at what is too old, once nothing is."""
EXPIRY_AGAIN = 60.0
"""Seconds of rest where that failed."""
EXPIRED_AT_ONCE = 2_000


class PoolKeeper:
    """Drains the local lane into a `DecisionStore`; a row leaves the spool once the store has it."""

    def __init__(
        self,
        journal: LocalJournal,
        store: DecisionStore,
        metrics: RecommenderMetrics,
        random: Random,
        days: int,
        forgetting: Forgetting,
    ) -> None:
        self._journal = journal
        self._store = store
        self._metrics = metrics
        self._backoff = Backoff(random)
        self._days = days
        self._forgetting = forgetting
        self._begun = self._done = 0
        self._rested = EXPIRY_EVERY

    async def run(self) -> None:
        """Drain until cancelled, and once an hour drop what is too old, some in each round."""
        while True:
            pause = await self._round()
            self._rested += pause
            await asyncio.sleep(pause)

    async def passed(self, within: float) -> bool:
        """Wait until what is here to be stored or forgotten by now is; False after ``within`` seconds."""
        last = self._begun + 1
        try:
            async with asyncio.timeout(within):
                while self._done < last:
                    await asyncio.sleep(PAUSE / 5)
        except TimeoutError:
            return False
        return True

    async def _round(self) -> float:
        self._begun += 1
        try:
            # Until there was no more for a moment: under load there is always one that has just come.
            while await self.drain() == BATCH:
                pass
            # Trap: in this very loop, never beside it. A decision on its way into the store would be missed.
            await self._forgetting.catch_up()
        except Transient as error:
            _log.warning("decisions not stored yet: %s", error.reason)
            return self._backoff.failed()
        self._backoff.succeeded()
        self._done = self._begun
        if self._rested >= EXPIRY_EVERY:
            await self._expire()
        return PAUSE

    async def _expire(self) -> None:
        """Drop some of what is too old; where that was all, or it cannot be had now, rest."""
        try:
            if await self._store.expire(self._days, EXPIRED_AT_ONCE) < EXPIRED_AT_ONCE:
                self._rested = 0.0
        except Transient as error:
            # Nobody waits for this: the next round must not.
            _log.warning("old decisions not dropped yet: %s", error.reason)
            self._rested = EXPIRY_EVERY - EXPIRY_AGAIN

    async def drain(self) -> int:
        """Move one batch; answers how many rows it had."""
        rows = await self._journal.local_rows(BATCH)
        if not rows:
            return 0
        read = [kept for row in rows if (kept := self._read(row)) is not None]
        decisions = [kept for kept in read if not self._forgetting.is_gone(kept.customer)]
        await self._store.keep(decisions)
        await self._journal.release_local(rows)
        if len(decisions) < len(read):
            kept_ids = {kept.decision_id for kept in decisions}
            self._forgetting.drop([], [kept.decision_id for kept in read if kept.decision_id not in kept_ids])
        self._metrics.kept.add(len(decisions))
        return len(rows)

    def _read(self, row: LocalRow) -> KeptDecision | None:
        try:
            return decode_kept(row.body)
        except msgspec.DecodeError:
            # A row of another version must not keep all later ones in the spool.
            self._metrics.broken.add()
            _log.error("a decision in the spool cannot be read and is dropped")
            return None
