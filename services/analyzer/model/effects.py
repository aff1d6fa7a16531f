"""What each touchpoint type does to a profile, beyond counting it: one table, and the folds it names.

The first line of a fold's docstring is what docs/touchpoints.md says of it. All are pure, bounded and
deterministic as those of `profile`; what they read has been checked against the type's Struct.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from libs.common.clock import DAY, HOUR, Millis
from libs.common.contracts.customer_event import Touchpoint
from libs.common.contracts.customer_model import (
    MARKETING,
    MAX_CASES,
    MAX_CHANNELS,
    MAX_CONTACTS,
    MAX_LOTS,
    NEVER,
    CaseWords,
    Consent,
    Contact,
    Decayed,
    Lot,
    Profile,
    Reach,
)
from libs.common.contracts.vocabulary.outreach import Bounce
from libs.common.contracts.vocabulary.person import (
    CONSENT_GIVEN,
    CONSENT_REFUSED,
    ConsentWord,
    Membership,
)
from libs.common.contracts.vocabulary.public import Lot as LotNamed
from libs.common.contracts.vocabulary.public import Mention, Review
from libs.common.contracts.vocabulary.service import Case, Conversation
from libs.common.scoring.decay import HALF_LIFE_SEASON, added
from libs.common.scoring.merge import join_words, keep_latest, keep_words
from libs.common.times import millis_of
from services.analyzer.model import installed
from services.analyzer.model.profile import belonging, bounded_name, consent_said

ANSWERED_WITHIN: Millis = 60 * DAY
"""How long after a contact something can be an answer to it."""
NOT_REACHED = frozenset({"no_answer", "voicemail", "busy", "failed"})
"""Dispositions of calls in which nobody talked."""
DO_NOT_CALL = "do_not_call"

OBJECTIONS = {"email_unsubscribed": "email", "email_complained": "email", DO_NOT_CALL: "phone"}
"""The channel by which an objection refuses marketing."""

_NO_HOURS = (Decayed(),) * 24

Effect = Callable[[Profile, Any, Touchpoint], Profile]


def contacted(profile: Profile, typed: Any, event: Touchpoint) -> Profile:
    """One contact more in the ledger, and for the reach of its channel."""
    channel = _channel(profile, event)
    contact = Contact(event.occurred_at, channel, event.type, campaign_of(typed))
    ledger = (*profile.contacts, contact)
    if profile.contacts and contact.at < profile.contacts[-1].at:
        ledger = tuple(sorted(ledger, key=lambda one: one.at))
    old = profile.reached.get(channel, Reach())
    reach = replace(
        old,
        contacts=old.contacts + 1,
        last_contact_at=max(old.last_contact_at, contact.at),
        contacted=added(old.contacted, 1.0, contact.at, HALF_LIFE_SEASON),
    )
    return replace(profile, contacts=ledger[-MAX_CONTACTS:], reached={**profile.reached, channel: reach})


def answered(profile: Profile, typed: Any, event: Touchpoint) -> Profile:
    """He answers at this hour; the contact of the campaign, else the last by this channel, is answered."""
    at = event.occurred_at
    hours = list(profile.answer_hours or _NO_HOURS)
    hour = at // HOUR % 24
    hours[hour] = added(hours[hour], 1.0, at, HALF_LIFE_SEASON)
    profile = replace(profile, answer_hours=tuple(hours))
    place = answered_contact(profile, campaign_of(typed), event)
    if place is None or profile.contacts[place].answered:
        return profile
    contact = profile.contacts[place]
    ledger = list(profile.contacts)
    ledger[place] = replace(contact, answered=True)
    old = profile.reached.get(contact.channel, Reach())
    reach = replace(
        old,
        answers=old.answers + 1,
        last_answer_at=max(old.last_answer_at, at),
        answered=added(old.answered, 1.0, at, HALF_LIFE_SEASON),
        undeliverable_at=0 if at >= old.undeliverable_at else old.undeliverable_at,
    )
    return replace(profile, contacts=tuple(ledger), reached={**profile.reached, contact.channel: reach})


def answered_contact(profile: Profile, campaign: str | None, event: Touchpoint) -> int | None:
    for place in range(len(profile.contacts) - 1, -1, -1):
        contact = profile.contacts[place]
        same = contact.channel == event.channel if campaign is None else contact.campaign == campaign
        if same and contact.at <= event.occurred_at <= contact.at + ANSWERED_WITHIN:
            return place
    return None


def undeliverable(profile: Profile, typed: Any, event: Touchpoint) -> Profile:
    """The channel does not reach him, until he answers by it again (of e-mail: for hard bounces)."""
    if isinstance(typed, Bounce) and typed.bounce_type == "soft":
        return profile
    channel = _channel(profile, event)
    old = profile.reached.get(channel, Reach())
    if event.occurred_at <= old.last_answer_at:
        return profile
    reach = replace(old, undeliverable_at=max(old.undeliverable_at, event.occurred_at))
    return replace(profile, reached={**profile.reached, channel: reach})


def spoken(profile: Profile, typed: Conversation, event: Touchpoint) -> Profile:
    """A call out is a contact, answered if somebody talked; ``do_not_call`` refuses marketing by phone."""
    if typed.direction == "out":
        profile = contacted(profile, typed, event)
        if event.type == "call_ended" and typed.disposition not in NOT_REACHED:
            profile = answered(profile, typed, event)
    return objected(profile, typed, event) if typed.disposition == DO_NOT_CALL else profile


def objected(profile: Profile, typed: Any, event: Touchpoint) -> Profile:
    """Marketing by e-mail is refused from then on."""
    return _object(profile, typed, event, event.occurred_at)


def _object(profile: Profile, typed: Any, event: Touchpoint, at: Millis) -> Profile:
    said = DO_NOT_CALL if getattr(typed, "disposition", None) == DO_NOT_CALL else event.type
    word = Consent(False, at, event.recorded_at, event.source, said)
    return consent_said(profile, MARKETING, OBJECTIONS[said], word) if said in OBJECTIONS else profile


def consented(profile: Profile, typed: ConsentWord, event: Touchpoint) -> Profile:
    """The latest word on this purpose, and channel where one is named, holds."""
    return _say(profile, typed, event, event.occurred_at)


def _say(profile: Profile, typed: ConsentWord, event: Touchpoint, at: Millis) -> Profile:
    where, granted = typed.source or event.channel, event.type == CONSENT_GIVEN
    word = Consent(granted, at, event.recorded_at, event.source, where, typed.text_version)
    return consent_said(profile, typed.purpose, typed.channel, word)


def refused(profile: Profile, typed: Any, event: Touchpoint) -> Profile:
    """An objection, whatever else must not be learned of the touchpoint that tells it."""
    # Trap: told for the future it could not be taken back until then.
    at = min(event.occurred_at, event.recorded_at)
    if event.type == CONSENT_REFUSED and typed is not None:
        return _say(profile, typed, event, at)
    return _object(profile, typed, event, at)


def graded(profile: Profile, typed: Any, event: Touchpoint) -> Profile:
    """Satisfaction moves where a rating is given."""
    rating: float | None = typed.rating
    return profile if rating is None else _satisfied(profile, rating / 5.0 - 1.0, event.occurred_at)


def reviewed(profile: Profile, typed: Review, event: Touchpoint) -> Profile:
    """Satisfaction and sentiment move with the stars, or the sentiment where there are none."""
    mood = typed.sentiment if typed.rating is None else (typed.rating - 3.0) / 2.0
    if mood is None:
        return profile
    profile = _satisfied(profile, mood, event.occurred_at)
    said = mood if typed.sentiment is None else typed.sentiment
    return replace(profile, sentiment=_moved(profile.sentiment, said, event.occurred_at))


def mentioned(profile: Profile, typed: Mention, event: Touchpoint) -> Profile:
    """Sentiment moves where one is given."""
    if typed.sentiment is None:
        return profile
    return replace(profile, sentiment=_moved(profile.sentiment, typed.sentiment, event.occurred_at))


def _satisfied(profile: Profile, mood: float, at: Millis) -> Profile:
    return replace(profile, satisfaction=_moved(profile.satisfaction, mood, at))


def _moved(mean: tuple[Decayed, Decayed], value: float, at: Millis) -> tuple[Decayed, Decayed]:
    total, weight = mean
    return added(total, value, at, HALF_LIFE_SEASON), added(weight, 1.0, at, HALF_LIFE_SEASON)


def opened(profile: Profile, typed: Case, event: Touchpoint) -> Profile:
    """The case is open, unless it was closed later."""
    return _case_told(profile, typed.case_id, CaseWords(opened_at=event.occurred_at))


def closed(profile: Profile, typed: Case, event: Touchpoint) -> Profile:
    """The case is open no more, unless it was opened again later."""
    return _case_told(profile, typed.case_id, CaseWords(closed_at=event.occurred_at))


def _case_told(profile: Profile, case_id: str, said: CaseWords) -> Profile:
    words = join_words(profile.case_words.get(case_id, CaseWords()), said)
    # Of openings between which a close comes late the last is known, and nothing of those before it.
    since = [at for at in (profile.cases.get(case_id, NEVER), said.opened_at) if at > words.closed_at]
    cases = {other: at for other, at in profile.cases.items() if other != case_id}
    if words.open:
        cases = keep_latest({**cases, case_id: min(since, default=words.opened_at)}, MAX_CASES, lambda at: at)
    told = keep_words({**profile.case_words, case_id: words}, cases)
    return replace(profile, cases=cases, case_words=told)


_LOT_STATES = {
    "lot_listed": "listed",
    "lot_watched": "watched",
    "bid_placed": "bid",
    "bid_outbid": "outbid",
    "lot_won": "won",
}


def auctioned(profile: Profile, typed: LotNamed, event: Touchpoint) -> Profile:
    """How the lot stands for him, by the latest that happened to it."""
    old = profile.lots.get(typed.lot_id)
    at = event.occurred_at
    if old is not None and old.at > at:
        return profile
    state = _LOT_STATES[event.type]
    lot = Lot(
        # Who bid or sells goes on doing so when he also watches.
        state=old.state if old is not None and state == "watched" else state,
        at=at,
        product_id=typed.product_id or (old.product_id if old is not None else None),
        amount=typed.amount if typed.amount is not None or old is None else old.amount,
        ends_at=millis_of(typed.ends_at) if typed.ends_at is not None else old.ends_at if old else 0,
    )
    lots = keep_latest({**profile.lots, typed.lot_id: lot}, MAX_LOTS, lambda one: one.at)
    return replace(profile, lots=lots)


def ended(profile: Profile, typed: LotNamed, event: Touchpoint) -> Profile:
    """The lot is gone, unless he won it."""
    lot = profile.lots.get(typed.lot_id)
    if lot is None or lot.state == "won":
        return profile
    return replace(profile, lots={k: one for k, one in profile.lots.items() if k != typed.lot_id})


def joined(profile: Profile, typed: Membership, event: Touchpoint) -> Profile:
    """The group is his account from then on."""
    return belonging(profile, typed.group_id)


def _channel(profile: Profile, event: Touchpoint) -> str:
    return bounded_name(profile.reached, event.channel, MAX_CHANNELS)


def campaign_of(typed: Any) -> str | None:
    named = getattr(typed, "campaign_id", None) or getattr(typed, "survey_id", None)
    return named if isinstance(named, str) and len(named) <= 256 else None


EFFECTS: dict[str, tuple[Effect, ...]] = {
    "email_sent": (contacted,),
    "email_opened": (answered,),
    "email_clicked": (answered,),
    "email_bounced": (undeliverable,),
    "email_complained": (objected,),
    "email_unsubscribed": (objected,),
    "direct_mail_sent": (contacted,),
    "direct_mail_returned": (undeliverable,),
    "card_returned": (answered, graded),
    "code_scanned": (answered,),
    "call_ended": (spoken, graded),
    "call_missed": (spoken,),
    "case_opened": (opened,),
    "case_escalated": (opened,),
    "case_reopened": (opened,),
    "case_closed": (closed,),
    "survey_sent": (contacted,),
    "survey_answered": (answered, graded),
    "visit_completed": (graded,),
    "asset_registered": (installed.registered,),
    "asset_retired": (installed.retired,),
    "kit_fitted": (installed.fitted,),
    "kit_removed": (installed.removed,),
    "defect_reported": (installed.broken,),
    "mention_posted": (mentioned,),
    "review_posted": (reviewed,),
    "product_reviewed": (reviewed,),
    "rating_given": (reviewed,),
    "lot_listed": (auctioned,),
    "lot_watched": (auctioned,),
    "bid_placed": (auctioned,),
    "bid_outbid": (auctioned,),
    "lot_won": (auctioned,),
    "lot_ended": (ended,),
    "group_joined": (joined,),
    CONSENT_GIVEN: (consented,),
    CONSENT_REFUSED: (consented,),
}
"""By type, in this order. Orders, their ends and views move items too: see `fold`."""
