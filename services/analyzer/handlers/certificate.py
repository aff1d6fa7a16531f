"""What an erasure has done so far: the analyzer's part of a certificate, without anybody's key."""

from __future__ import annotations

from msgspec import Struct

from libs.common.times import format_time
from services.analyzer.errors import UnknownErasure
from services.analyzer.ports import ReadStore


class ErasureView(Struct, frozen=True, kw_only=True):
    """An erasure as it stands.

    Parameters
    ----------
    complete:
        Whether all keys are told and all models withdrawn on the bus.
    applied_at:
        When the erasure was applied: journal time of the partition that came last.
    keys:
        Keys erased: the customer's, and those linked to him.
    mentions:
        Other customers' records from which his keys were taken out.
    events, lessons, dead_letters:
        Rows deleted.
    waiting:
        Keys still to be told.
    unpublished:
        Models, of whatever erasure, that are still to be withdrawn on the bus.
    """

    id: str
    complete: bool
    requested_at: str
    applied_at: str
    keys: int
    mentions: int
    events: int
    lessons: int
    dead_letters: int
    waiting: int
    unpublished: int


async def certificate(store: ReadStore, id_: str) -> ErasureView:
    """How far the erasure ``id_`` is; raises `UnknownErasure` before it is applied anywhere."""
    rows = await store.erasure(id_)
    if not rows.done:
        raise UnknownErasure(id_)
    return ErasureView(
        id=id_,
        complete=not rows.waiting and not rows.unpublished,
        requested_at=format_time(min(row.recorded_at for row in rows.done)),
        applied_at=format_time(max(row.journal_time for row in rows.done)),
        keys=sum(row.whole for row in rows.done),
        mentions=sum(not row.whole for row in rows.done),
        events=sum(row.events for row in rows.done),
        lessons=sum(row.lessons for row in rows.done),
        dead_letters=sum(row.dead_letters for row in rows.done),
        waiting=rows.waiting,
        unpublished=rows.unpublished,
    )
