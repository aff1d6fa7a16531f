"""What no person can have done, told by how fast it was: views by the hundred, all links of a mail clicked.

Judged in event time, from a few numbers in the profile, so the same whatever slices are cut and whatever
clock runs. A touchpoint so labelled is kept and counted in ``totals``, and moves nothing else. What came
before the machine showed itself was learned: of a mail's first clicks it is taken back, of views it stays,
`MOST_VIEWS` of them at most.

Imports are not judged: their times are often those of a whole day. Nor are clicks at a full minute, which is
what a time of day or of an hour becomes that says no more.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

from msgspec.structs import replace

from libs.common.clock import HOUR, MINUTE, SECOND, Millis
from libs.common.contracts.customer_event import Touchpoint
from libs.common.contracts.customer_model import Activity, Clicks, Pace, Profile, Reach, RecentTouch
from libs.common.contracts.flags import AUTOMATIC
from libs.common.contracts.vocabulary.outreach import Mail
from libs.common.intake import IMPORTED
from libs.common.scoring.decay import HALF_LIFE_DAY, HALF_LIFE_FORTNIGHT, HALF_LIFE_SEASON, added
from services.analyzer.model.effects import answered_contact, campaign_of
from services.analyzer.model.profile import activity_name

VIEWS = frozenset(
    {
        "page_viewed",
        "screen_viewed",
        "product_viewed",
        "product_clicked",
        "product_list_viewed",
        "products_searched",
    }
)
"""Types that are counted together: what somebody looks at."""
MOST_VIEWS = 300
"""Views in one minute of event time beyond which nobody can be looking: five a second."""
REST: Millis = 10 * MINUTE
"""How long after such a minute views are still taken for the machine's."""
MINUTES = 3
"""Newest minutes that are counted: so far out of order views may come and still be judged."""

SCANNED = 3
"""Different links of one mail that nobody clicks within `SCAN`; mail filters follow all of them."""
SCAN: Millis = 10 * SECOND
MOST_CLICKS = 8
"""Clicks of one mail within `SCAN` that could be taken back."""
MAILS = 4
"""Mails clicked last whose clicks are remembered: a filter may follow several at once."""
CLICKED = "email_clicked"

JUDGED = VIEWS | {CLICKED}

RATE, MAIL_SCANNER = AUTOMATIC + "rate", AUTOMATIC + "mail_scanner"
_REASONS = frozenset({RATE, MAIL_SCANNER})

Counts = tuple[tuple[int, int], ...]
"""Views by minute, oldest first."""


def unjudged(event: Touchpoint) -> Touchpoint:
    """``event`` as it came, without a label of ours: whoever folds it anew judges it anew."""
    if not event.flags or _REASONS.isdisjoint(event.flags):
        return event
    return replace(event, learn=True, flags=tuple(flag for flag in event.flags if flag not in _REASONS))


def judged(profile: Profile, typed: Any, event: Touchpoint) -> tuple[Profile, str | None]:
    """The profile that remembers ``event``, of `JUDGED`, and why no person did it, if that is so."""
    if IMPORTED in event.flags:
        return profile, None
    if type(typed) is Mail and event.occurred_at % MINUTE:
        return _clicked(profile, typed, event)
    if event.type == CLICKED:
        return profile, None
    pace, fast = _paced(profile.pace, event.occurred_at)
    return (profile if pace is profile.pace else replace(profile, pace=pace)), RATE if fast else None


def _paced(pace: Pace, at: Millis) -> tuple[Pace, bool]:
    minute = at // MINUTE
    before, counted, after = _around(pace.minutes, minute)
    if not before and not counted and len(after) == MINUTES:
        # Too late to be counted with those of its minute.
        return pace, pace.since <= at < pace.until
    since, until = pace.since, pace.until
    fast = counted >= MOST_VIEWS
    if fast:
        since = min(since, at) if minute * MINUTE <= until else at
        until = max(until, (minute + 1) * MINUTE + REST)
        counted = MOST_VIEWS - 1
    left = (*before, (minute, counted + 1), *after)[-MINUTES:]
    return Pace(left, since, until), fast or since <= at < until


def _around(minutes: Counts, minute: int) -> tuple[Counts, int, Counts]:
    """What was counted before ``minute``, in it, and after it."""
    if not minutes or minutes[-1][0] < minute:
        return minutes, 0, ()
    if minutes[-1][0] == minute:
        return minutes[:-1], minutes[-1][1], ()
    before = tuple(one for one in minutes if one[0] < minute)
    after = tuple(one for one in minutes if one[0] > minute)
    return before, dict(minutes).get(minute, 0), after


def _clicked(profile: Profile, typed: Mail, event: Touchpoint) -> tuple[Profile, str | None]:
    mail = typed.email_id or typed.campaign_id or ""
    link = crc32((typed.link_id or typed.link_url or "").encode("utf-8", "surrogatepass"))
    at, remembered = event.occurred_at, (profile.clicks, *profile.other_clicks)
    known = next((one for one in remembered if one.mail == mail), Clicks())
    others = tuple(one for one in remembered if one.mail not in (mail, ""))
    if known.mail != mail or abs(at - known.at) > SCAN:
        known = Clicks(mail=mail, at=at)
    links = known.links if link in known.links or len(known.links) >= SCANNED else (*known.links, link)
    if len(links) < SCANNED:
        clicks = _held(profile, replace(known, links=links), typed, event)
        return replace(profile, clicks=clicks, other_clicks=others[: MAILS - 1]), None
    others = tuple(_never_moved(one, known) for one in others)
    clicks = replace(known, links=links, held=(), answered=0)
    profile = _taken_back(profile, known, event)
    return replace(profile, clicks=clicks, other_clicks=others[: MAILS - 1]), MAIL_SCANNER


def _never_moved(one: Clicks, taken: Clicks) -> Clicks:
    """What ``one`` held of the profile before it, had the clicks of another mail not moved it."""

    def before(mine: Millis, its: Millis) -> Millis:
        return its if mine in taken.held else mine

    return replace(
        one,
        before=before(one.before, taken.before),
        first_at=before(one.first_at, taken.first_at),
        last_at=before(one.last_at, taken.last_at),
        active_at=before(one.active_at, taken.active_at),
        undeliverable_at=taken.undeliverable_at if one.before in taken.held else one.undeliverable_at,
    )


def _held(profile: Profile, clicks: Clicks, typed: Mail, event: Touchpoint) -> Clicks:
    """``clicks`` with what ``event``, which is learned from, is about to change."""
    if len(clicks.held) >= MOST_CLICKS:
        return clicks
    if not clicks.held:
        name = activity_name(profile.activity, event.channel, event.type)
        active = profile.activity.get(name)
        clicks = replace(
            clicks,
            first_at=profile.first_at,
            last_at=profile.last_at,
            active_at=0 if active is None else active.last_at,
        )
    place = answered_contact(profile, campaign_of(typed), event)
    if not clicks.answered and place is not None and not profile.contacts[place].answered:
        contact = profile.contacts[place]
        reach = profile.reached.get(contact.channel, Reach())
        clicks = replace(
            clicks,
            answered=contact.at,
            before=reach.last_answer_at,
            undeliverable_at=reach.undeliverable_at,
        )
    return replace(clicks, held=(*clicks.held, event.occurred_at))


def _taken_back(profile: Profile, clicks: Clicks, event: Touchpoint) -> Profile:
    """``profile`` as if the clicks that are held had not been learned from; counts but for rounding."""
    if not clicks.held:
        return profile
    hours, answer_hours = list(profile.hours), list(profile.answer_hours)
    recent = list(profile.recent)
    name = activity_name(profile.activity, event.channel, event.type)
    activity = profile.activity.get(name)
    for at in clicks.held:
        hour = at // HOUR % 24
        for clock in (hours, answer_hours):
            if clock:
                clock[hour] = added(clock[hour], -1.0, at, HALF_LIFE_SEASON)
        if activity is not None:
            activity = _less_active(activity, at)
        of_it = [place for place, one in enumerate(recent) if (one.at, one.type) == (at, CLICKED)]
        if of_it:
            del recent[of_it[-1]]
    known = {other: one for other, one in profile.activity.items() if other != name}
    if activity is not None and activity.total:
        known[name] = _last_active(activity, clicks, recent)
    left = [one.at for one in recent]
    first, last = profile.first_at, profile.last_at
    if first in clicks.held:
        first = min((clicks.first_at, *left) if clicks.first_at else left, default=0)
    if last in clicks.held:
        last = max((clicks.last_at, *left))
    profile = replace(
        profile,
        first_at=first,
        last_at=last,
        hours=tuple(hours),
        answer_hours=tuple(answer_hours),
        recent=tuple(recent),
        activity=known,
    )
    return _unanswered(profile, clicks) if clicks.answered else profile


def _less_active(activity: Activity, at: Millis) -> Activity:
    return Activity(
        total=max(0, activity.total - 1),
        last_at=activity.last_at,
        day=added(activity.day, -1.0, at, HALF_LIFE_DAY),
        fortnight=added(activity.fortnight, -1.0, at, HALF_LIFE_FORTNIGHT),
        season=added(activity.season, -1.0, at, HALF_LIFE_SEASON),
    )


def _last_active(activity: Activity, clicks: Clicks, recent: list[RecentTouch]) -> Activity:
    if activity.last_at not in clicks.held:
        return activity
    clicked = (one.at for one in recent if one.type == CLICKED)
    return replace(activity, last_at=max((clicks.active_at, *clicked)))


def _unanswered(profile: Profile, clicks: Clicks) -> Profile:
    """The contact that the first of the clicks answered is open again."""
    contacts = list(profile.contacts)
    place = next((n for n, one in enumerate(contacts) if one.answered and one.at == clicks.answered), None)
    if place is None:
        return profile
    contact = contacts[place]
    contacts[place] = replace(contact, answered=False)
    old = profile.reached.get(contact.channel, Reach())
    ours = old.last_answer_at in clicks.held
    reach = replace(
        old,
        answers=max(0, old.answers - 1),
        last_answer_at=clicks.before if ours else old.last_answer_at,
        undeliverable_at=max(old.undeliverable_at, clicks.undeliverable_at) if ours else old.undeliverable_at,
        answered=added(old.answered, -1.0, clicks.held[0], HALF_LIFE_SEASON),
    )
    return replace(profile, contacts=tuple(contacts), reached={**profile.reached, contact.channel: reach})
