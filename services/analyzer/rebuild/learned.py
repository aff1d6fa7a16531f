"""The learner's part of a rebuild: learn all lessons anew, and hand the live learner what came of it."""

from __future__ import annotations

import asyncio
import logging

from libs.common.bus.ports import Bus
from libs.common.clock import SECOND
from libs.common.contracts.topics import CATALOGUE
from libs.common.view import MemoryView
from services.analyzer.learner import checkpoint
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.fold import Fold, Parameters
from services.analyzer.learner.store import PostgresLearnerStore
from services.analyzer.learner.threads import in_thread

_log = logging.getLogger(__name__)

LESSONS_AT_ONCE = 5_000
CATALOGUE_SECONDS = 30.0


async def learn_anew(
    store: PostgresLearnerStore, bus: Bus | None, settings: Parameters, *, switch: bool
) -> bool | None:
    """Whether lessons folded anew give what the live learner has; None where there is no learner yet.

    Where they do not, the live learner loses its election and goes on from what was learned anew, so that
    readers never see a learner that has only begun. Of ``bus`` the catalogue is read where the live learner
    has none that this code can read, as after an upgrade, and ``settings`` are what it is set to then;
    without a bus nothing is learned about choices.
    """
    lineage = await store.lineage()
    watermark = await store.watermark()
    if lineage is None or watermark is None:
        return None
    # What the live learner was set to, so that what is learned anew is what it goes on from.
    parameters = checkpoint.parameters_of(lineage.checkpoint) or settings
    catalogue = Catalogue()
    # Trap: restored first. The live learner's catalogue comes with it, and is the one to learn anew with.
    live = await in_thread(checkpoint.restore, lineage.checkpoint, parameters, catalogue)
    if live is None and bus is not None and not await _stock(bus, catalogue):
        # Trap: not handed over. The live learner waits for the catalogue, and learns all of it by itself.
        _log.warning("the catalogue cannot be read: what is learned is left to the learner")
        return False
    anew = Fold(parameters, catalogue)
    await _follow(store, anew, watermark)
    if live is not None:
        await _follow(store, live, watermark)
        if await in_thread(checkpoint.digest, live) == await in_thread(checkpoint.digest, anew):
            return True
    if switch:
        body = await in_thread(checkpoint.save, anew)
        await store.hand_over(anew.place, body)
    return False


async def _stock(bus: Bus, catalogue: Catalogue) -> bool:
    """Read all of topic ``catalogue``; False where that is not to be had."""
    view = MemoryView(bus, CATALOGUE, catalogue.on_batch)
    await view.start()
    try:
        async with asyncio.timeout(CATALOGUE_SECONDS):
            while not view.caught_up:
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    finally:
        await view.stop()
    return True


async def _follow(store: PostgresLearnerStore, fold: Fold, watermark: int) -> None:
    """Fold every lesson before ``watermark``."""
    while rows := await store.lessons(fold.place, watermark, LESSONS_AT_ONCE):
        await in_thread(fold.learn_many, rows)
    await in_thread(fold.settle, watermark * SECOND)
