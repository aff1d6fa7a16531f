"""One record of the journal, and what becomes of it: skipped as redelivered, or given exactly one fate."""

from __future__ import annotations

import logging

from libs.common.clock import DAY, Millis
from libs.common.contracts.customer_event import (
    AboutCustomer,
    CustomerEvent,
    Decision,
    Erasure,
    Outcome,
    SpoolReported,
    Tick,
    encode_event,
)
from libs.common.errors import Invalid, Rejected
from services.analyzer.handlers import early
from services.analyzer.handlers.draft import (
    APPLIED,
    DEAD_LETTERED,
    DUPLICATE,
    ID_REUSE,
    INTERNAL,
    REJECTED,
    Draft,
)
from services.analyzer.handlers.erasing import erase, spare
from services.analyzer.handlers.folding import fold_into, lesson_rows
from services.analyzer.model.arrival import Arrival, accept, content_hash, is_internal, kind_of
from services.analyzer.model.facts import fact_row
from services.analyzer.model.letters import Buried, DeadLetter, Replayed
from services.analyzer.ports import FateKey, Seen, SpoolReport, StoredEvent

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
    try:
        _decide(draft, arrival, event)
    except Invalid as error:
        _bury(draft, arrival, error)


def take_again(draft: Draft, buried: Buried, arrival: Arrival) -> None:
    """A dead letter that is replayed: it leaves `dead_lettered` and becomes what it becomes, or stays one."""
    spared = spare(draft, arrival)
    if spared is not None:
        try:
            if type(spared.event) is Erasure:
                raise Invalid("not_supported", "ask for the erasure anew: a replay cannot do it")
            _decide(draft, spared, spared.event)
        except Invalid as error:
            draft.replays.append(Replayed(buried.id, error.code, _reason(error)))
            return
    draft.move(FateKey(buried.letter.spool, buried.letter.source, DEAD_LETTERED), -1)
    draft.replays.append(Replayed(buried.id))


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


def _decide(draft: Draft, arrival: Arrival, event: CustomerEvent | None) -> None:
    """Give it the one fate that is not dead-lettered; raises `Invalid` for that one."""
    if arrival.error is not None or event is None:
        raise arrival.error or Invalid("undecodable", "no event")
    draft.journal_time = max(draft.journal_time, event.recorded_at)
    if type(event) is Tick:
        draft.count(arrival, INTERNAL)
    elif type(event) is SpoolReported:
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


def _take_event(draft: Draft, arrival: Arrival, event: AboutCustomer) -> None:
    internal = is_internal(event)
    said = Seen(draft.journal_time, content_hash(event))
    seen = draft.known.get(arrival.hash)
    if seen is not None and draft.journal_time - seen.at <= DEDUPE_WINDOW:
        if seen.content and said.content and seen.content != said.content:
            raise Invalid(ID_REUSE, "this id stood for another type or other properties before", "/id")
        draft.count(arrival, INTERNAL if internal else DUPLICATE)
        return
    body = arrival.message.value or b""
    try:
        accept(event)
        if type(event) is Erasure:
            erase(draft, event)
        elif type(event) is Outcome and early.is_unmatched(draft, event):
            draft.note("unmatched")
            if early.holds_at_once(event):
                _store(draft, event, body)
            else:
                # It changes nothing: no number, no total, no line in the timeline.
                early.keep(draft, event, body)
        else:
            _store(draft, event, body)
    except Rejected:
        draft.count(arrival, REJECTED)
        return
    draft.known[arrival.hash] = draft.ids[arrival.hash] = said
    draft.count(arrival, INTERNAL if internal else APPLIED)
    if type(event) is Decision:
        for outcome, waited in early.met(draft, event):
            _store(draft, outcome, waited)


def _store(draft: Draft, event: AboutCustomer, body: bytes) -> None:
    """Fold ``event`` and keep it, under the next number; raises `Invalid` with nothing done."""
    number = draft.number + 1
    step = fold_into(draft.customers, event, draft.journal_time, number, draft.panel)
    draft.number = number
    if step is not None:
        if step.labelled is not None:
            event, body = step.labelled, encode_event(step.labelled)
            draft.note("automatic")
        if step.lessons or step.looks:
            draft.lessons += lesson_rows(draft.state.partition, number, draft.journal_time, step)
        if step.idle:
            draft.note("idle")
        if step.dropped:
            draft.note("crowded", step.dropped)
    fact = fact_row(draft.state.partition, number, event)
    if fact is not None:
        draft.facts.append(fact)
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
            body=body,
        )
    )


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
            reason=_reason(error),
            journal_time=draft.journal_time,
            key=message.key or b"",
            value=message.value,
        )
    )
    draft.count(arrival, DEAD_LETTERED)


def _reason(error: Invalid) -> str:
    return error.reason.replace("\x00", "")[:500]
