"""Outcomes whose decision is not known: a real one may have overtaken it, a forged one never finds it.

Decisions and outcomes come by two spools, so that an outcome can be first. It waits for `WAIT` of journal
time and changes nothing meanwhile; when its decision comes it is folded and stored right behind it, under a
number of its own. So what is stored tells a rebuild all there is to know.
"""

from __future__ import annotations

from collections.abc import Iterator

from libs.common.clock import DAY, MINUTE, Millis
from libs.common.contracts.customer_event import Decision, Outcome, decode_event
from libs.common.contracts.identity import is_nobody
from libs.common.contracts.outcome import OBJECTIONS
from services.analyzer.handlers.draft import Draft
from services.analyzer.model.arrival import decision_hash, id_hash
from services.analyzer.model.profile import MAX_OFFERS
from services.analyzer.ports import WaitingOutcome

WAIT: Millis = 10 * MINUTE
"""How long an outcome waits for its decision."""

REMEMBERED: Millis = 30 * DAY
"""How long a decision is known by its id after it has left the customer's model."""


def holds_at_once(event: Outcome) -> bool:
    """Whether it is an objection by token, which proves that there is such a decision."""
    return event.outcome in OBJECTIONS and event.channel is not None


def is_unmatched(draft: Draft, event: Outcome) -> bool:
    """Whether its decision is unknown, or another customer's, or did not show this offer."""
    if not is_nobody(event.customer):
        known = draft.customers[event.customer].models.at(draft.journal_time)
        for made in known.profile.decisions:
            if made.decision_id == event.decision_id:
                return event.offer_id not in made.offers and len(made.offers) < MAX_OFFERS
    decided = draft.known.get(decision_hash(event))
    return decided is None or draft.journal_time - decided.at > REMEMBERED


def keep(draft: Draft, event: Outcome, body: bytes) -> None:
    """Have it wait until it is met."""
    row = WaitingOutcome(
        partition=draft.state.partition,
        customer=event.customer,
        decision=event.decision_id,
        hash=id_hash(event),
        journal_time=draft.journal_time,
        body=body,
    )
    draft.early.setdefault((event.customer, event.decision_id), []).append(row)
    draft.waiting.append(row)


def met(draft: Draft, decision: Decision) -> Iterator[tuple[Outcome, bytes]]:
    """The outcomes that waited for ``decision``, in the order they came."""
    rows = draft.early.pop((decision.customer, decision.id), [])
    for row in sorted(rows, key=lambda row: (row.journal_time, row.hash)):
        outcome = decode_event(row.body)
        overdue = draft.journal_time - row.journal_time > WAIT
        if overdue or type(outcome) is not Outcome or is_unmatched(draft, outcome):
            continue
        draft.met.append(row)
        draft.note("unmatched", -1)
        yield outcome, row.body
