"""What no person made, told by what the sender says of itself: crawlers, headless browsers, prefetch."""

from __future__ import annotations

import re
from functools import lru_cache

_HEADLESS = re.compile(
    r"headless|phantomjs|slimerjs|puppeteer|playwright|selenium|webdriver|lighthouse|pagespeed",
    re.IGNORECASE,
)
# CUBOT makes telephones.
_CRAWLER = re.compile(
    r"(?<!cu)bot(?:\b|_)|crawl|spider|slurp|archiver|scrap|facebookexternalhit|embedly|whatsapp/"
    r"|monitor|uptime|pingdom|feedfetcher|mediapartners|apis-google|yandexbot|baiduspider"
    r"|gptbot|claude|ccbot|bytespider|ahrefs|semrush|mj12",
    re.IGNORECASE,
)


@lru_cache(maxsize=2048)
def reason_of_agent(user_agent: str) -> str | None:
    """``headless`` or ``crawler`` where ``user_agent`` says so, None where a person may sit behind it.

    A library for HTTP is no crawler: apps use it on behalf of people.
    """
    if _HEADLESS.search(user_agent):
        return "headless"
    if _CRAWLER.search(user_agent):
        return "crawler"
    return None


def is_prefetch(*purposes: str | None) -> bool:
    """Whether one of the headers ``Sec-Purpose``, ``Purpose``, ``X-Moz`` says that nobody looked yet."""
    return any(
        purpose is not None and ("prefetch" in purpose or "preview" in purpose) for purpose in purposes
    )
