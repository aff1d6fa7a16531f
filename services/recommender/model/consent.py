"""What a customer's consents allow here: a personal answer, or one from the context alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from libs.common.contracts.customer_model import Consent

UnknownConsent = Literal["personal", "contextual"]

PERSONALISE = "personalise"
PURPOSES = (PERSONALISE, "personalize", "personalisation", "personalization", "profiling", "marketing")
"""Purposes whose consent allows to use what is known about the customer where he did not come by himself."""

CONTACT: Mapping[str, str] = {
    "email": "email",
    "phone": "phone",
    "sms": "phone",
    "post": "post",
    "direct_mail": "post",
}
"""The purpose that allows to reach somebody on a channel, by channel."""

SCOPED = frozenset({*CONTACT.values(), "analytics"})
"""Purposes of which it is known what they are about: a refusal of e-mail does not limit the website."""

OWN_CHANNELS = frozenset(
    {"web", "app", "store", "service", "field_service", "call_centre", "sales", "auction"}
)
"""Where the customer came by himself: his own visit may be answered personally before he was asked."""

UNKNOWN, REFUSED = "consent_unknown", "consent_refused"
GPC = "gpc"
"""The browser sends Global Privacy Control: whatever was granted, this answer is not personal."""


class Policy(NamedTuple):
    """What holds where a customer was not asked.

    Parameters
    ----------
    unknown:
        What he gets on own channels.
    existing:
        Channels on which somebody who has bought may be addressed until he objects (``legal_basis:
        existing_customer``).
    """

    unknown: UnknownConsent = "personal"
    existing: frozenset[str] = frozenset()


class Allowed(NamedTuple):
    """Whether the model may be used, and what forbade it (``consent_refused:marketing/email`` …)."""

    personal: bool
    limited_by: tuple[str, ...] = ()


def allowed(
    consents: Mapping[str, Consent], channel: str, policy: Policy, *, orders: int = 0, gpc: bool = False
) -> Allowed:
    """What ``consents`` (keyed ``purpose`` or ``purpose/channel``) allow on ``channel``.

    A refusal holds whatever the settings say and whatever else was granted; where nothing was said,
    ``policy`` decides on own channels and for customers with ``orders``, and elsewhere the answer is
    contextual. The purpose that was missing is named.
    """
    contact = CONTACT.get(channel)
    limits = [GPC] if gpc else []
    for name, consent in sorted(consents.items()):
        purpose, _, only = name.partition("/")
        # Trap: purposes are words of the caller's choosing. To honour only those we know would pass over
        # a refusal of, say, "recommendations"; too strict errs on the right side.
        here = not only or CONTACT.get(only, only) == (contact or channel)
        if not consent.granted and here and (purpose == contact or purpose not in SCOPED):
            limits.append(f"{REFUSED}:{name}")
    if limits:
        return Allowed(False, tuple(limits))
    granted = bool(consents) and any(
        name in consents and consents[name].granted
        for purpose in (*PURPOSES, *([contact] if contact else ()))
        for name in (purpose, f"{purpose}/{channel}")
    )
    by_default = policy.unknown == "personal" and channel in OWN_CHANNELS
    if granted or by_default or (orders > 0 and channel in policy.existing):
        return Allowed(True)
    return Allowed(False, (f"{UNKNOWN}:{contact or PERSONALISE}",))
