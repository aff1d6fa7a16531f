"""What a customer's consents allow here: a personal answer, or one from the context alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from libs.common.contracts.customer_model import Consent

UnknownConsent = Literal["personal", "contextual"]

PURPOSES = ("personalization", "personalisation", "profiling", "marketing")
"""Purposes whose consent allows to use what is known about the customer where he did not come by himself."""

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
    refused = [
        f"consent_refused:{name}"
        for name, consent in sorted(consents.items())
        # Trap: purposes are words of the caller's choosing. To honour only those we know would pass over
        # a refusal of, say, "recommendations"; too strict errs on the right side.
        if not consent.granted and ("/" not in name or name.endswith(f"/{channel}"))
    ]
    if refused:
        return Allowed(False, tuple(refused))
    granted = any(
        name in consents and consents[name].granted
        for purpose in PURPOSES
        for name in (purpose, f"{purpose}/{channel}")
    )
    if granted or (unknown == "personal" and channel in OWN_CHANNELS):
        return Allowed(True)
    return Allowed(False, (UNKNOWN,))
