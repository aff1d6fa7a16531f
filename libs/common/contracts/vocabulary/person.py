"""Who somebody is, whom he belongs to, and what he allows. Nothing here may name a person."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from libs.common.contracts.vocabulary.values import Name, TouchpointType


class Session(Struct, frozen=True):
    """Coming and going; ``method`` is how (password, passkey, …)."""

    method: str | None = None


class Identified(Struct, frozen=True):
    """He said who he is; with both ids the visitor is linked to the customer."""

    method: str | None = None
    language: str | None = None
    country: str | None = None


class Membership(Struct, frozen=True):
    """He belongs to a company, household or group: his account from now on."""

    group_id: Name


class ConsentWord(Struct, frozen=True):
    """What he allows or refuses; as ``POST /v1/consents``, for systems that speak in touchpoints."""

    purpose: Annotated[str, Meta(min_length=1, max_length=100)]
    channel: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    text_version: Name | None = None
    source: Name | None = None


CONSENT_GIVEN, CONSENT_REFUSED = "consent_given", "consent_refused"
_WORD = {"purpose": "email", "text_version": "2026-03"}

TYPES = (
    TouchpointType("identified", "web", Identified, "He said who he is.", {"method": "login"}),
    TouchpointType("unlinked", "web", Session, "He is not that visitor: takes a link back.", {}),
    TouchpointType("signed_up", "web", Session, "He made himself an account.", {"method": "passkey"}),
    TouchpointType("signed_in", "web", Session, "He logged in.", {"method": "passkey"}),
    TouchpointType("signed_out", "web", Session, "He logged out.", {}),
    TouchpointType("group_joined", "web", Membership, "He belongs to a company.", {"group_id": "acme"}),
    TouchpointType(CONSENT_GIVEN, "web", ConsentWord, "He allows something.", _WORD),
    TouchpointType(CONSENT_REFUSED, "web", ConsentWord, "He refuses something.", _WORD),
)
