"""Times as callers write them, read into milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from libs.common.clock import Millis
from libs.common.errors import Invalid

_EPOCH = datetime(1970, 1, 1)
_FIRST: Millis = -62_135_596_800_000
_LAST: Millis = 253_402_300_799_999
# Trap: fromisoformat takes any character between date and time.
_SHAPE = re.compile(r"[0-9W-]{8,10}(?:[Tt ][0-9:.,]+ ?(?:[Zz]|[+-][0-9:]{2,8})?)?\Z", re.ASCII)


def parse_time(text: str, field: str, shift: Millis = 0) -> Millis:
    """Read an ISO 8601 date or time, and add ``shift``; without a zone it is UTC.

    Raises `Invalid` (``bad_time`` at ``field``) for what cannot be read or lies outside the years 1-9999.
    """
    if len(text) <= 64 and _SHAPE.match(text):
        try:
            moment = datetime.fromisoformat(text.upper())
        except ValueError:
            pass
        else:
            at = millis_of(moment) + shift
            if _FIRST <= at <= _LAST:
                return at
    reason = "must be an ISO 8601 time within the years 1-9999, e.g. 2025-03-01T12:00:00Z"
    raise Invalid("bad_time", f"{field.rpartition('/')[2] or 'time'} {reason}", field)


def millis_of(moment: datetime) -> Millis:
    """``moment`` in milliseconds; without a zone it is UTC."""
    # Trap: astimezone() overflows at both ends of the calendar, and timestamp() goes through a float.
    since = moment.replace(tzinfo=None) - _EPOCH - (moment.utcoffset() or timedelta(0))
    return since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000


def format_time(at: Millis) -> str:
    """``at`` in UTC as ISO 8601 with milliseconds and ``Z``; times outside years 1-9999 are clamped."""
    at = min(max(at, _FIRST), _LAST)
    moment = (_EPOCH + timedelta(milliseconds=at)).replace(tzinfo=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
