"""What a customer's consents allow here: a personal answer, or one from the context alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from libs.common.contracts.customer_model import Consent

UnknownConsent = Literal["personal", "contextual"]

PURPOSES = ("personalization", "personalisation", "profiling", "marketing")
"""Purposes whose refusal forbids to use what is known about the customer when choosing offers."""

OWN_CHANNELS = frozenset(
    {"web", "app", "store", "service", "field_service", "call_centre", "sales", "auction"}
)
"""Where the customer came by himself: his own visit may be answered personally before he was asked."""

UNKNOWN = "consent_unknown"


class Allowed(NamedTuple):
    """Whether the model may be used, and what forbade it (``consent_refused:marketing/email`` …)."""

    personal: bool
    limited_by: tuple[str, ...] = ()


def allowed(consents: Mapping[str, Consent], channel: str, unknown: UnknownConsent) -> Allowed:
    """What ``consents`` (keyed ``purpose`` or ``purpose/channel``) allow on ``channel``.

    A refusal holds whatever the setting says and whatever else was granted; where nothing was said,
    ``unknown`` decides on own channels, and elsewhere the answer is contextual.
    """
    granted = False
    refused: list[str] = []
    for purpose in PURPOSES if consents else ():
        for name in (purpose, f"{purpose}/{channel}"):
            consent = consents.get(name)
            if consent is None:
                continue
            if consent.granted:
                granted = True
            else:
                refused.append(f"consent_refused:{name}")
    if refused:
        return Allowed(False, tuple(refused))
    if granted or (unknown == "personal" and channel in OWN_CHANNELS):
        return Allowed(True)
    return Allowed(False, (UNKNOWN,))
