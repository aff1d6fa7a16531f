"""Names as other vocabularies write them: snake_case words of ours, and ids that are strings."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from libs.common.errors import Invalid

MAX_NAME = 256
_SEAM = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])")
_OTHER = re.compile(r"[^a-z0-9]+")


def word_of(name: str, field: str) -> str:
    """``name`` as a snake_case word: "Order Completed" and "orderCompleted" are ``order_completed``.

    Accents go, and a name that begins with a digit gets ``event_`` before it. Raises `Invalid` at ``field``.
    """
    # Trap: what callers choose is remembered only where it is short.
    if len(name) > MAX_NAME:
        raise Invalid("too_large", f"must have at most {MAX_NAME} characters", field)
    word = _word(name)
    if not word:
        raise Invalid("bad_string", "must have a Latin letter or a digit to be named by", field)
    return word


@lru_cache(maxsize=4096)
def _word(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    word = _OTHER.sub("_", _SEAM.sub("_", plain).lower()).strip("_")
    return f"event_{word}" if word[:1].isdigit() else word


def id_of(value: str | int | float | None, field: str) -> str | None:
    """An id as a string: numbers as JSON writes them, None for an empty one; raises `Invalid`."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        if len(value) > MAX_NAME:
            raise Invalid("too_large", f"must have at most {MAX_NAME} characters", field)
        return value
    if isinstance(value, bool):
        raise Invalid("wrong_type", "must be a string or a number, not true or false", field)
    # Trap: JavaScript has no integers; 7.0 and 7 are the same customer.
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else str(value)


def at_their_field(error: Invalid, field: str) -> Invalid:
    """``error`` at ``field`` of their message, and its reason by that name where it begins with ours."""
    ours, theirs = (where.rpartition("/")[2] for where in (error.field, field))
    reason = theirs + error.reason[len(ours) :] if error.reason.startswith(f"{ours} ") else error.reason
    return Invalid(error.code, reason, field, *error.errors[1:])
