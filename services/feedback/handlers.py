"""What happens when somebody says what came of an offer."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.clock import Millis
from libs.common.contracts.customer_event import CustomerEvent, Outcome
from libs.common.position import Position
from libs.common.times import parse_time
from services.feedback.model import (
    OutcomeIn,
    check_agrees,
    check_browser,
    check_outcome,
    check_value,
    named_offer,
    offer_of,
    outcome_event,
    refusals,
)
from services.feedback.ports import Clock, Durability, Intake, Journal, Tokens


class Feedback:
    """Turns reported outcomes into events and puts them on the journal.

    Reads nothing but the token, writes to the journal alone. Whether the decision exists is found out
    where it is kept: an outcome of an unknown one is accepted and counts as unmatched there. Its id is
    decision, offer and word, so reporting it again changes nothing.

    Parameters
    ----------
    token_age:
        How old a token may be, on ``clock``.
    """

    def __init__(
        self, journal: Journal, intake: Intake, tokens: Tokens, clock: Clock, token_age: Millis
    ) -> None:
        self._journal = journal
        self._intake = intake
        self._tokens = tokens
        self._clock = clock
        self._token_age = token_age

    def on_outcome(self, item: OutcomeIn, with_key: bool) -> Outcome:
        """The event of one outcome; raises `Invalid`, or `KeyNeeded` for the whole request."""
        if not with_key:
            check_browser(item)
        check_outcome(item)
        if item.token is None:
            offer = named_offer(item)
        else:
            offer = offer_of(self._tokens.open(item.token, self._clock.now(), self._token_age))
            check_agrees(item, offer)
        check_value(item, offer)
        said = None if item.occurred_at is None else parse_time(item.occurred_at, "/occurred_at")
        return outcome_event(item, offer, self._intake.admit(said))

    def append(self, outcomes: Sequence[Outcome]) -> Position:
        """Put one request's in line, with what they refuse, in one spool transaction; raises `Transient`."""
        events: list[CustomerEvent] = []
        for outcome in outcomes:
            events += (outcome, *refusals(outcome))
        return self._journal.append(events)

    async def durable(self, position: Position, level: Durability) -> Durability:
        """Wait until ``position`` may be answered with 202; raises `Transient`."""
        return await self._journal.durable(position, level)
