"""One record of the journal, and what becomes of it: skipped as redelivered, or given exactly one fate."""

from __future__ import annotations

import logging

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_event import AboutCustomer, Erasure, SpoolReported, Tick
from libs.common.errors import Invalid, Rejected
from services.analyzer.handlers.draft import (
    APPLIED,
    DEAD_LETTERED,
    DUPLICATE,
    INTERNAL,
    REJECTED,
    Draft,
)
from services.analyzer.handlers.erasing import erase, spare
from services.analyzer.handlers.folding import fold_into, lesson_row
from services.analyzer.model.arrival import Arrival, accept, id_hash, is_internal, kind_of
from services.analyzer.ports import DeadLetter, SpoolReport, StoredEvent

DEDUPE_WINDOW: Millis = 30 * DAY
"""How long an id counts once, in journal time."""

_log = logging.getLogger(__name__)


def take(draft: Draft, arrival: Arrival) -> None:
    """One record: skipped as redelivered, or given exactly one fate."""
    draft.next_offset = arrival.message.offset + 1
    if arrival.spool and not _in_order(draft, arrival):
        return
    spared = spare(draft, arrival)
    if spared is None:
        return
    arrival, event = spared, spared.event
    if arrival.error is not None or event is None:
        _bury(draft, arrival, arrival.error or Invalid("undecodable", "no event"))
        return
    draft.journal_time = max(draft.journal_time, event.recorded_at)
    if isinstance(event, Tick):
        draft.count(arrival, INTERNAL)
    elif isinstance(event, SpoolReported):
        _take_report(draft, event)
        draft.count(arrival, INTERNAL)
    else:
        _take_event(draft, arrival, event)


def _take_report(draft: Draft, report: SpoolReported) -> None:
    if report.ended:
        draft.ended.add(report.spool)
    if report.accepted or not report.ended:
        draft.reports[report.spool] = SpoolReport(
            draft.state.partition, report.spool, report.service, report.recorded_at, report.accepted
        )


def _in_order(draft: Draft, arrival: Arrival) -> bool:
    """Whether it is the next of its spool. Where one before it is missing it is passed over and `applied`
    stays: the spool sees that, and sends again from there on. Other spools of the partition go on.
    """
    spool, seq = arrival.spool, arrival.seq
    known = draft.applied.get(spool, 0)
    if seq <= known:
        draft.note("redelivered")
        return False
    if seq > max(known, arrival.floor) + 1:
        draft.note("gaps")
        if spool not in draft.gaps:
            draft.gaps.add(spool)
            _log.error(
                "records of a spool are missing on the journal",
                extra={"partition": draft.state.partition, "spool": spool, "after": known},
            )
        return False
    draft.applied[spool] = seq
    draft.sent.add(spool)
    return True


def _take_event(draft: Draft, arrival: Arrival, event: AboutCustomer) -> None:
    hashed = id_hash(event)
    seen = draft.known.get(hashed)
    internal = is_internal(event)
    if seen is not None and draft.journal_time - seen <= DEDUPE_WINDOW:
        draft.count(arrival, INTERNAL if internal else DUPLICATE)
        return
    try:
        accept(event)
        if isinstance(event, Erasure):
            erase(draft, event)
            draft.known[hashed] = draft.ids[hashed] = draft.journal_time
            draft.count(arrival, INTERNAL if internal else APPLIED)
            return
        number = draft.number + 1
        lesson = fold_into(draft.customers, event, draft.journal_time, number)
    except Rejected:
        draft.count(arrival, REJECTED)
        return
    except Invalid as error:
        _bury(draft, arrival, error)
        return
    draft.number = number
    draft.known[hashed] = draft.ids[hashed] = draft.journal_time
    if lesson.unmatched:
        draft.note("unmatched")
    if lesson.row is not None:
        draft.lessons.append(
            lesson_row(draft.state.partition, number, draft.journal_time, lesson.row),
        )
    draft.events.append(
        StoredEvent(
            partition=draft.state.partition,
            number=number,
            recorded_at=event.recorded_at,
            journal_time=draft.journal_time,
            occurred_at=event.occurred_at,
            customer=event.customer,
            kind=kind_of(event),
            id=event.id,
            body=arrival.message.value or b"",
        )
    )
    draft.count(arrival, INTERNAL if internal else APPLIED)


def _bury(draft: Draft, arrival: Arrival, error: Invalid) -> None:
    message = arrival.message
    draft.dead_letters.append(
        DeadLetter(
            partition=draft.state.partition,
            cluster=draft.state.cluster,
            offset=message.offset,
            spool=arrival.spool,
            seq=arrival.seq,
            source=arrival.source,
            code=error.code,
            reason=error.reason.replace("\x00", "")[:500],
            journal_time=draft.journal_time,
            key=message.key or b"",
            value=message.value,
        )
    )
    draft.count(arrival, DEAD_LETTERED)
