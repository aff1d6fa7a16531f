"""The life of a learner: be elected, fold what every partition has passed, solve, publish, checkpoint."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from libs.common.bus.ports import Bus
from libs.common.clock import SECOND, Millis
from libs.common.errors import Fenced, Transient
from libs.common.scoring.response import EVERYWHERE
from services.analyzer.learner import checkpoint
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.choice import ChoiceLearner
from services.analyzer.learner.drift import DriftWatch
from services.analyzer.learner.fold import Fold, Parameters
from services.analyzer.learner.honesty import Honesty
from services.analyzer.learner.metrics import LearnerMetrics
from services.analyzer.learner.ports import Claim, LearnerStore, LessonRow
from services.analyzer.learner.publish import Publisher
from services.analyzer.learner.threads import in_thread

_log = logging.getLogger(__name__)

ROWS_AT_ONCE = 2_000
RETRY_SECONDS = (0.2, 2.0)
_STOP_SECONDS = 6.0
SHOWN_EVERY = 1.0
"""Seconds between two looks at how honest predictions were: it sorts some thousand of them."""


class Learner:
    """One learner's whole life; `run` never ends by itself.

    Parameters
    ----------
    catalogue, whole:
        The products, followed while the learner lives, and whether all there were at the start are in.
    in_bursts:
        Lessons come in bursts, as in a replay: what one brings is published once it is over, not bit by bit.

    Attributes
    ----------
    elected:
        Whether this process is the learner, or waits to be.
    fold:
        What it knows; None before it was elected.
    """

    def __init__(
        self,
        store: LearnerStore,
        bus: Bus,
        metrics: LearnerMetrics,
        random: Random,
        *,
        catalogue: Catalogue | None = None,
        whole: Callable[[], bool] = lambda: True,
        parameters: Parameters | None = None,
        poll_seconds: float = 0.05,
        publish_seconds: float = 1.0,
        in_bursts: bool = False,
        checkpoint_seconds: float = 30.0,
        watch_seconds: float = 2.0,
    ) -> None:
        self._store = store
        self._bus = bus
        self._metrics = metrics
        self._random = random
        self._catalogue = catalogue or Catalogue()
        self._whole = whole
        self._parameters = parameters or Parameters()
        self._poll = poll_seconds
        self._publish = publish_seconds
        self._in_bursts = in_bursts
        self._checkpoint = checkpoint_seconds
        self._watch = watch_seconds
        self._drift = DriftWatch()
        self._honesty = Honesty(metrics)
        self._shown = float("-inf")
        self._saved = 0.0
        self._saved_place: object = None
        self.elected = False
        self.fold: Fold | None = None
        self.passed: Millis = 0
        self.trouble: str | None = None
        self._leading: asyncio.Task[None] | None = None
        self._stopping = False

    async def run(self) -> None:
        """Be elected and lead; after a fault or the loss of the election, again."""
        while not self._stopping:
            try:
                async with self._store.leadership() as claim:
                    self._leading = asyncio.create_task(self._lead(claim))
                    await self._leading
            except Fenced:
                _log.warning("another learner was elected")
            except Transient as error:
                self.trouble = error.reason
                _log.warning("the learner pauses", extra={"reason": error.reason})
            finally:
                self.elected = False
            await asyncio.sleep(self._random.uniform(*RETRY_SECONDS))

    async def stop(self) -> None:
        """Let go of the election, with a checkpoint where that is possible within a few seconds."""
        self._stopping = True
        if self._leading is not None:
            await asyncio.wait([self._leading], timeout=_STOP_SECONDS)

    async def _lead(self, claim: Claim) -> None:
        fold = await in_thread(checkpoint.restore, claim.checkpoint, self._parameters, self._catalogue)
        self.fold = fold = fold or Fold(self._parameters, self._catalogue)
        fold.response.observer = self._honesty
        await self._stocked(fold)
        self._saved, self._saved_place = time.monotonic(), fold.place
        publisher = Publisher(
            self._bus,
            self._store,
            self._metrics,
            claim.epoch,
            claim.cluster,
            interval=self._publish,
            watch=self._watch,
        )
        self.elected, self.trouble = True, None
        _log.info("elected", extra={"epoch": claim.epoch, "orders": fold.goods.counts.orders})
        try:
            while not self._stopping:
                if not await self._step(fold, publisher, claim.epoch):
                    await asyncio.sleep(self._poll)
        finally:
            self.elected = False
            await self._leave(fold, publisher, claim.epoch)

    async def _stocked(self, fold: Fold) -> None:
        """Wait for the catalogue where none is remembered: without it nothing is learned about choices.

        Trap: for all of it. With what has been read by chance so far, choices would be learned otherwise.
        """
        while not (self._stopping or fold.choice.tables.state.products or self._whole()):
            await asyncio.sleep(self._poll)

    async def _step(self, fold: Fold, publisher: Publisher, epoch: int) -> bool:
        """One look at the lessons; whether there may be more at once."""
        watermark = await self._store.watermark()
        if watermark is None:
            return False
        rows = await self._store.lessons(fold.place, watermark, ROWS_AT_ONCE)
        await self._fold(fold, rows)
        more = len(rows) == ROWS_AT_ONCE
        if more:
            # Not all of the last second need be among the rows.
            self.passed = max(self.passed, rows[-1].place.second * SECOND)
        else:
            if fold.goods.due(watermark * SECOND) is not None:
                await in_thread(self._settle, fold, watermark * SECOND)
            self.passed = max(self.passed, watermark * SECOND)
        await publisher.offer(fold, self.passed, behind=more or (self._in_bursts and bool(rows)))
        if time.monotonic() - self._saved >= self._checkpoint and fold.place != self._saved_place:
            await self._save(fold, epoch)
        return more

    async def _fold(self, fold: Fold, rows: Sequence[LessonRow]) -> None:
        if rows:
            await in_thread(fold.learn_many, rows, partial(self._settle, fold))
            self._metrics.lessons.add(len(rows))
            self._metrics.orders.set(fold.goods.counts.orders)
            self._metrics.products.set(len(fold.goods.counts.products))
            self._metrics.pairs.set(len(fold.goods.counts.pairs))
            self._tell(fold.choice)
            if (now := time.monotonic()) - self._shown >= SHOWN_EVERY:
                self._shown = now
                self._honesty.show(fold.response.caused.shares().get(EVERYWHERE, {}))

    def _tell(self, choice: ChoiceLearner) -> None:
        self._metrics.choices.set(choice.logit.samples)
        self._metrics.choice_loss.set(choice.honest.loss)
        self._metrics.choice_prior_loss.set(choice.honest.prior)
        self._metrics.choice_ndcg.set(choice.honest.ndcg)
        self._honesty.compare("choice", choice.honest.loss, choice.honest.prior)
        self._metrics.drift.add(self._drift.alarms(choice.losses), "choice")
        choice.losses.clear()
        self._metrics.refused.add(choice.logit.refused, "choice", "not_finite")
        choice.logit.refused = 0

    def _settle(self, fold: Fold, now: Millis) -> None:
        if fold.goods.due(now) is not None:
            started = time.monotonic()
            fold.settle(now)
            self._metrics.solve.observe(time.monotonic() - started)

    async def _save(self, fold: Fold, epoch: int) -> None:
        place = fold.place
        body = await in_thread(checkpoint.save, fold)
        await self._store.checkpoint(epoch, place, body)
        self._saved, self._saved_place = time.monotonic(), place

    async def _leave(self, fold: Fold, publisher: Publisher, epoch: int) -> None:
        """Keep what was learned; a state that cannot be kept is learned again."""
        await publisher.close()
        try:
            if fold.place != self._saved_place:
                await self._save(fold, epoch)
        except (Fenced, Transient):
            _log.info("left without a checkpoint")
