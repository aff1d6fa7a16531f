"""Segment's HTTP API, as its and RudderStack's clients speak it.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api and, for what messages hold,
https://segment.com/docs/connections/spec/common. Unknown members are passed over, as Segment does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from libs.common.errors import Invalid
from libs.common.http.batches import BatchDecoder
from services.collector.dialects.naming import at_their_field, id_of, word_of
from services.collector.dialects.shop import fitted, shop_event
from services.collector.model import IDENTIFIED, IdentityIn, TouchpointIn

Id = str | int | float | None
Data = dict[str, Any] | list[Any] | None

CALLS = ("track", "identify", "page", "screen", "group", "alias")
SHORT = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias"}
"""Paths of one letter, which clients in browsers use; ``b`` is ``batch``."""

CHANNEL = "web"
KEPT = (
    "page",
    "campaign",
    "locale",
    "timezone",
    "userAgent",
    "userAgentData",
    "referrer",
    "os",
    "app",
    "screen",
)
"""What is kept of ``context``; the rest is about the library, or about who somebody is."""
_DEVICE = ("type", "manufacturer", "model")

_SIGNED = "in browsers userId needs context.customer_signature"
_FIELDS = {
    "/customer_id": "/userId",
    "/anonymous_id": "/anonymousId",
    "/account_id": "/groupId",
    "/id": "/messageId",
    "/type": "/event",
    "/channel": "/context/channel",
    "/occurred_at": "/timestamp",
}


class SegmentIn(Struct, frozen=True, kw_only=True, rename="camel"):
    """A message of Segment's HTTP API; ids may be numbers."""

    type: str | None = None
    event: str | None = None
    name: str | None = None
    category: str | None = None
    message_id: Id = None
    user_id: Id = None
    anonymous_id: Id = None
    previous_id: Id = None
    group_id: Id = None
    timestamp: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None
    properties: Data = None
    traits: Data = None
    context: Data = None


class SegmentAnswer(Struct, frozen=True):
    """The answer to all calls of Segment's HTTP API."""

    success: bool
    accepted: int
    rejected: list[Any]
    position: str | None


DECODER = BatchDecoder(
    SegmentIn,
    "batch",
    id_field="message_id",
    envelope=frozenset({"sentAt", "context"}),
    loose=True,
)


class Around(NamedTuple):
    """What a request says of all its messages."""

    sent_at: str | None
    context: Mapping[str, Any]

    @classmethod
    def of(cls, envelope: Mapping[str, Any]) -> Around:
        """What stands beside the list; raises `Invalid`."""
        sent_at, context = envelope.get("sentAt"), envelope.get("context")
        if sent_at is not None and not isinstance(sent_at, str):
            raise Invalid("wrong_type", "sentAt must be a string", "/sentAt")
        if context and not isinstance(context, dict):
            raise Invalid("wrong_type", "context must be an object", "/context")
        return cls(sent_at, context or {})


class Signed(NamedTuple):
    """What a browser may say of customers: ``signed`` tells whether, ``drop`` counts those left out."""

    signed: Callable[[str, str | None], bool]
    drop: Callable[[], None]

    def customer(self, user_id: str | None, context: Mapping[str, Any]) -> str | None:
        """``user_id``, or None where a browser names it without a right signature."""
        if user_id is None:
            return None
        signature = context.get("customer_signature")
        if self.signed(user_id, signature if isinstance(signature, str) else None):
            return user_id
        self.drop()
        return None


def translate(
    message: SegmentIn, call: str | None, around: Mapping[str, Any], signed: Signed | None
) -> TouchpointIn | IdentityIn:
    """What a message says in our words; raises `Invalid` in Segment's.

    Parameters
    ----------
    call:
        What the path says it is; None where the message says so itself.
    around:
        ``context`` that holds for all messages of the request.
    signed:
        Given for publishable keys, which may name customers only by signature.
    """
    kind = call or message.type
    if kind not in CALLS:
        code = "missing" if kind is None else "wrong_type"
        raise Invalid(code, f"type must be one of {', '.join(CALLS)}", "/type")
    said = _object(message.context, "/context")
    context = {**around, **said} if around else said
    customer = id_of(message.user_id, "/userId")
    visitor = id_of(message.anonymous_id, "/anonymousId")
    if signed is not None:
        customer = signed.customer(customer, context)
    event_id = id_of(message.message_id, "/messageId")
    occurred_at = message.timestamp or message.original_timestamp
    if kind == "alias":
        previous = id_of(message.previous_id, "/previousId") or visitor
        if customer is None:
            reason = "userId must be given" if signed is None else f"{_SIGNED} to link"
            raise Invalid("missing", reason, "/userId")
        if previous is None:
            raise Invalid("missing", "previousId must be given", "/previousId")
        return IdentityIn(customer_id=customer, anonymous_id=previous, id=event_id, occurred_at=occurred_at)
    if customer is None and visitor is None:
        or_visitor = "userId or anonymousId must be given"
        reason = or_visitor if signed is None else f"{_SIGNED}; without it anonymousId must be given"
        raise Invalid("missing", reason, "/userId")
    type_, properties = _said(message, kind, context)
    group = message.group_id if kind == "group" else context.get("groupId")
    return TouchpointIn(
        type=type_,
        channel=_channel(context),
        id=event_id,
        customer_id=customer,
        anonymous_id=visitor,
        account_id=_group(group, kind),
        occurred_at=occurred_at,
        properties=properties,
        context=_kept(context),
    )


def without_misfits(said: TouchpointIn) -> tuple[TouchpointIn, int]:
    """``said`` without the optional properties that are not of the type they have here, and how many."""
    properties, dropped = fitted(said.type, said.properties or {})
    return replace(said, properties=properties), dropped


def in_their_words(error: Invalid) -> Invalid:
    """What was found wrong with a touchpoint, at the member of the message it came from."""
    field = _FIELDS.get(error.field)
    if field is None:
        return error
    return at_their_field(error, field)


def _said(message: SegmentIn, kind: str, context: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Type and properties."""
    if kind == "track":
        if not message.event:
            raise Invalid("missing", "event is required", "/event")
        return shop_event(word_of(message.event, "/event"), _object(message.properties, "/properties"))
    if kind == "identify":
        # Clients of RudderStack say traits in the context.
        return IDENTIFIED, _object(message.traits or context.get("traits"), "/traits")
    if kind == "group":
        traits = _object(message.traits, "/traits")
        return "group_joined", {**traits, "group_id": id_of(message.group_id, "/groupId")}
    properties = dict(_object(message.properties, "/properties"))
    # The name of a page, which would be taken for a person's.
    if name := message.name or properties.pop("name", None):
        properties[f"{kind}_name"] = name
    if message.category:
        properties.setdefault("category", message.category)
    return f"{kind}_viewed", properties


def _object(value: Data, field: str) -> dict[str, Any]:
    # Trap: PHP writes an empty object as an empty list.
    if not value:
        return {}
    if not isinstance(value, dict):
        raise Invalid("wrong_type", f"{field[1:]} must be an object", field)
    return value


def _channel(context: Mapping[str, Any]) -> str:
    channel = context.get("channel")
    if channel is None or channel == "":
        return CHANNEL
    if not isinstance(channel, str):
        raise Invalid("wrong_type", "channel must be a string", "/context/channel")
    return word_of(channel, "/context/channel")


def _group(value: object, kind: str) -> str | None:
    group = id_of(value, "/groupId") if isinstance(value, str | int | float) else None
    if group is None and kind == "group":
        raise Invalid("missing", "groupId is required", "/groupId")
    return group


def _kept(context: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: context[name] for name in KEPT if name in context}
    device = context.get("device")
    if isinstance(device, dict) and (known := {name: device[name] for name in _DEVICE if name in device}):
        kept["device"] = known
    return kept
