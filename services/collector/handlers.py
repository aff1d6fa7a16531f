"""What happens with what is posted, and how time passes in every partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from libs.common.clock import MINUTE, SECOND, Clock, JournalClock, Millis
from libs.common.contracts.customer_event import CustomerEvent, Tick
from libs.common.contracts.identity import PARTITIONS
from libs.common.intake import Admitted, JournalIntake
from libs.common.personal import Screen
from libs.common.position import Position
from libs.common.times import parse_time
from services.collector.machines import reason_of_agent
from services.collector.model import (
    AssetIn,
    ConsentIn,
    ErasureIn,
    IdentityIn,
    Sender,
    TouchpointIn,
    asset_events,
    check_asset,
    check_consent,
    check_ids,
    check_keys,
    check_names,
    check_touchpoint,
    consent_event,
    erasure_events,
    identity_events,
    touchpoint_events,
)
from services.collector.ports import Durability, Ids, Intake, Journal

QUIET: Millis = 100
"""Milliseconds without input after which a journal clock's data counts as ended for now."""


class Collector:
    """Turns posted items into events and puts them on the journal.

    Reads nothing, writes to the journal alone. An event counts once by (source, customer, id), whoever
    posts it again, so all of this may be repeated.

    Parameters
    ----------
    currency:
        The one currency amounts may be in.
    screen:
        Keeps out of free data what identifies a person.
    """

    def __init__(
        self, journal: Journal, intake: Intake, new_id: Ids, currency: str, screen: Screen | None = None
    ) -> None:
        self._journal = journal
        self._intake = intake
        self._new_id = new_id
        self._currency = currency
        self.screen = screen or Screen()

    def on_touchpoint(self, item: TouchpointIn, sender: Sender) -> Sequence[CustomerEvent]:
        """The events of one touchpoint; raises `Invalid`."""
        check_touchpoint(item, self._currency)
        times = self._intake.admit(_said(item.occurred_at, sender), sender.imported)
        if item.context:
            # Trap: before the screen, which drops the user agent.
            sender = _described(sender, item.context)
        item = self._screened(item)
        return touchpoint_events(item, item.id or self._new_id(), sender, times)

    def _screened(self, item: TouchpointIn) -> TouchpointIn:
        properties = self.screen(item.properties) if item.properties else item.properties
        context = self.screen(item.context) if item.context else item.context
        if properties is item.properties and context is item.context:
            return item
        return msgspec.structs.replace(item, properties=properties, context=context)

    def on_identity(self, item: IdentityIn, sender: Sender) -> Sequence[CustomerEvent]:
        """The two records of a link; raises `Invalid`."""
        check_ids(item.customer_id, item.anonymous_id)
        check_names(("/id", item.id))
        times = self._times_of_word(item.occurred_at, sender)
        return identity_events(item.customer_id, item.anonymous_id, item.id or self._new_id(), sender, times)

    def on_consent(self, item: ConsentIn, sender: Sender) -> Sequence[CustomerEvent]:
        """The event of a consent or refusal; raises `Invalid`."""
        check_consent(item)
        if item.source or item.text_version:
            # Trap: masked, never refused. A version may look like an address, and the word would be lost.
            kept = self.screen({"asked": item.source, "text": item.text_version})
            item = msgspec.structs.replace(item, source=kept["asked"], text_version=kept["text"])
        times = self._times_of_word(item.occurred_at, sender)
        return [consent_event(item, item.id or self._new_id(), sender, times)]

    def on_asset(self, item: AssetIn, sender: Sender) -> Sequence[CustomerEvent]:
        """The events of a machine; raises `Invalid`. However long ago it was told, it is learned from."""
        check_asset(item)
        if item.attributes:
            item = msgspec.structs.replace(item, attributes=self.screen(item.attributes))
        times = self._times_of_word(item.occurred_at, sender)._replace(learn=True)
        return asset_events(item, item.id or self._new_id(), sender, times)

    def on_erasure(self, item: ErasureIn, sender: Sender) -> Sequence[CustomerEvent]:
        """The events of an erasure; raises `Invalid`."""
        # Trap: not `check_ids`. Who was taken under an e-mail address once may be forgotten under it.
        check_keys(item.customer_id, item.anonymous_id)
        check_names(("/id", item.id))
        return erasure_events(item, item.id or self._new_id(), sender, self._intake.admit(None))

    def skew(self, sent_at: str) -> Millis:
        """What to add to the times of a sender who says that it is ``sent_at``; raises `Invalid`."""
        return self._intake.skew(parse_time(sent_at, "/sentAt"))

    def _times_of_word(self, said: str | None, sender: Sender) -> Admitted:
        """When somebody gave his word: never in a future that nobody could take it back in.

        A touchpoint out of the window is kept without being learned from; a refusal must hold all the same.
        """
        times = self._intake.admit(_said(said, sender))
        if not times.learn and times.occurred_at > times.recorded_at:
            return times._replace(occurred_at=times.recorded_at)
        return times

    def append(self, events: Sequence[CustomerEvent]) -> Position:
        """Put the events of one request in line, all in one spool transaction; raises `Transient`."""
        return self._journal.append(events)

    async def durable(self, position: Position, level: Durability) -> Durability:
        """Wait until ``position`` may be answered with 202; raises `Transient`."""
        return await self._journal.durable(position, level)


def _said(occurred_at: str | None, sender: Sender) -> Millis | None:
    return None if occurred_at is None else parse_time(occurred_at, "/occurred_at", sender.skew)


def _described(sender: Sender, context: dict[str, Any]) -> Sender:
    """``sender`` with what a touchpoint's own context says of whoever made it."""
    agent = context.get("user_agent") or context.get("userAgent")
    if sender.automatic is None and isinstance(agent, str):
        sender = sender._replace(automatic=reason_of_agent(agent))
    return sender._replace(gpc=True) if context.get("gpc") is True else sender


class WallTicker:
    """Time passes in every partition once a second, whether anything happens there or not."""

    pause = 1.0

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock

    def step(self) -> Position | None:
        """Write the tick of this second; raises `Transient` where the spool takes no more."""
        return write_tick(self._journal, self._clock.now())


class JournalTicker:
    """Time passes as the data says: a tick for each minute of it, and one when it ends.

    Called 20 times a second. Journal time that moved by a minute is told to all partitions. After
    100 ms without input a closing tick one second later lets everything that happened be judged.

    Parameters
    ----------
    clock:
        Greatest journal time known, of this collector's events and of all progress.
    wall:
        Measures the silence.
    """

    pause = 0.05

    def __init__(self, journal: Journal, intake: JournalIntake, clock: JournalClock, wall: Clock) -> None:
        self._journal = journal
        self._intake = intake
        self._clock = clock
        self._wall = wall
        self._last: Millis = 0
        self._seen = (0, 0)
        self._input_at: Millis = 0
        self._open = False

    def step(self) -> Position | None:
        """Write the tick that is due, if one is; raises `Transient` where the spool takes no more."""
        now, wall = self._clock.now(), self._wall.now()
        if now <= 0 and not self._intake.admitted:
            return None
        # Trap: progress repeats our own ticks; only what is later than the last of them is news.
        seen = (self._intake.admitted, max(now, self._last))
        if seen != self._seen:
            self._seen = seen
            self._input_at = wall
            self._open = True
        if now >= self._last + MINUTE:
            return self._tick(now)
        if self._open and wall - self._input_at >= QUIET:
            position = self._tick(max(now, self._last) + SECOND)
            self._open = False
            return position
        return None

    def _tick(self, at: Millis) -> Position:
        position = write_tick(self._journal, at)
        self._last = at
        self._clock.advance(at)
        self._seen = (self._seen[0], at)
        return position


def write_tick(journal: Journal, at: Millis) -> Position:
    """Tell every partition that it is ``at``."""
    return journal.append([Tick(partition=number, recorded_at=at) for number in range(PARTITIONS)])
