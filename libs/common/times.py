"""Times as callers write them, read into milliseconds."""

from __future__ import annotations

from libs.common.clock import Millis


def parse_time(text: str, field: str) -> Millis:
    """Read an ISO 8601 date or time; without a zone it is UTC.

    Raises `Invalid` (``bad_time`` at ``field``) for what cannot be read or lies outside the years 1-9999.
    """
    ...


def format_time(at: Millis) -> str:
    """``at`` in UTC as ISO 8601 with milliseconds and ``Z``; times outside years 1-9999 are clamped."""
    ...
