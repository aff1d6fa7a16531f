"""The learner's part of a rebuild: learn all lessons anew, and hand the live learner what came of it."""

from __future__ import annotations

from libs.common.clock import SECOND
from services.analyzer.learner import checkpoint
from services.analyzer.learner.catalogue import Catalogue
from services.analyzer.learner.fold import Fold, Parameters
from services.analyzer.learner.store import PostgresLearnerStore
from services.analyzer.learner.threads import in_thread

LESSONS_AT_ONCE = 5_000


async def learn_anew(store: PostgresLearnerStore, *, switch: bool) -> bool | None:
    """Whether lessons folded anew give what the live learner has; None where there is no learner yet.

    Where they do not, the live learner loses its election and goes on from what was learned anew, so that
    readers never see a learner that has only begun.
    """
    lineage = await store.lineage()
    watermark = await store.watermark()
    if lineage is None or watermark is None:
        return None
    # What the live learner was set to, so that what is learned anew is what it goes on from.
    parameters = checkpoint.parameters_of(lineage.checkpoint) or Parameters()
    catalogue = Catalogue()
    # Trap: restored first. The live learner's catalogue comes with it, and is the one to learn anew with.
    live = await in_thread(checkpoint.restore, lineage.checkpoint, parameters, catalogue)
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


async def _follow(store: PostgresLearnerStore, fold: Fold, watermark: int) -> None:
    """Fold every lesson before ``watermark``."""
    while rows := await store.lessons(fold.place, watermark, LESSONS_AT_ONCE):
        await in_thread(fold.learn_many, rows)
    await in_thread(fold.settle, watermark * SECOND)
