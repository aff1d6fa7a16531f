"""CloudEvents 1.0 over HTTP: binary, structured and in batches.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md and the JSON
format beside it. Attributes that are not named here are passed over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from msgspec import UNSET, Meta, Struct, UnsetType

from libs.common.errors import Invalid
from libs.common.http.batches import Batch, BatchDecoder
from libs.common.http.calls import Call
from libs.common.http.json_text import NotJson, parse_json
from libs.common.http.problems import Refused
from libs.common.items import check_values
from libs.common.personal import is_email
from services.collector.dialects.naming import MAX_NAME, at_their_field, id_of, word_of
from services.collector.model import TouchpointIn

CHANNEL = "other"
_PREFIX = b"ce-"
_FIELDS = {
    "/customer_id": "/subject",
    "/anonymous_id": "/anonymousid",
    "/account_id": "/accountid",
    "/occurred_at": "/time",
    "/properties": "/data",
}

Text = Annotated[str, Meta(min_length=1)]


class CloudEventIn(Struct, frozen=True, kw_only=True):
    """A CloudEvent: ``subject`` is the customer, the last word of ``type`` the touchpoint type.

    Extension attributes: ``channel`` (``other`` where it is missing), ``anonymousid``, ``accountid``, and
    ``customersignature`` for browsers.
    """

    specversion: Literal["1.0"]
    id: Text
    source: Text
    type: Text
    subject: str | None = None
    time: str | None = None
    data: Any = UNSET
    data_base64: str | UnsetType = UNSET
    channel: str | None = None
    anonymousid: str | int | None = None
    accountid: str | int | None = None
    customersignature: str | None = None


DECODER = BatchDecoder(CloudEventIn, "events", loose=True)


def read(call: Call) -> Batch[CloudEventIn]:
    """The events of a request in whichever mode it is; raises `Refused` 400, 413 and 415."""
    attributes = _attributes(call)
    if attributes is None:
        if call.header("content-type") is None:
            raise Refused(415, "content_type", "Content-Type must be application/cloudevents+json")
        return DECODER.decode(call.body, lines=call.lines)
    if call.body:
        attributes["data"] = parse_json(call.body)
    return DECODER.one(attributes)


def _attributes(call: Call) -> dict[str, Any] | None:
    """What stands in the headers in binary mode; None in the others."""
    headers = call.scope["headers"]
    media = (call.header("content-type") or "").lower()
    if media.startswith("application/cloudevents") or not any(
        name.startswith(_PREFIX) for name, _ in headers
    ):
        return None
    try:
        return {
            name[len(_PREFIX) :].decode("latin-1"): unquote(value.decode("latin-1"), errors="strict")
            for name, value in headers
            if name.startswith(_PREFIX) and name != b"ce-data"
        }
    except UnicodeDecodeError:
        raise Invalid("bad_string", "an attribute is not UTF-8", "/headers") from None


def translate(event: CloudEventIn) -> TouchpointIn:
    """The touchpoint an event tells of; raises `Invalid` in the words of CloudEvents."""
    customer = id_of(event.subject, "/subject")
    visitor = id_of(event.anonymousid, "/anonymousid")
    if customer is None and visitor is None:
        raise Invalid("missing", "subject (the customer) or anonymousid must be given", "/subject")
    return TouchpointIn(
        type=word_of(event.type.rpartition(".")[2], "/type"),
        channel=word_of(event.channel, "/channel") if event.channel else CHANNEL,
        id=_event_id(event),
        customer_id=customer,
        anonymous_id=visitor,
        account_id=id_of(event.accountid, "/accountid"),
        occurred_at=event.time,
        customer_signature=event.customersignature,
        properties=_properties(event),
    )


def in_their_words(error: Invalid) -> Invalid:
    """What was found wrong with a touchpoint, at the attribute it came from."""
    for ours, theirs in _FIELDS.items():
        if error.field == ours or error.field.startswith(f"{ours}/"):
            return at_their_field(error, theirs + error.field[len(ours) :])
    return error


def _event_id(event: CloudEventIn) -> str:
    """Unique where ``source`` and ``id`` are; a source is a URI, so it holds no space.

    ``mailto:`` and somebody's address is a source, too: then the id is a hash of both.
    """
    both = f"{event.source.replace(' ', '%20')} {event.id}"
    if len(both) <= MAX_NAME and not is_email(both):
        return both
    return hashlib.sha256(both.encode()).hexdigest()


def _properties(event: CloudEventIn) -> dict[str, Any]:
    data, field = event.data, "/data"
    if data is UNSET and isinstance(event.data_base64, str):
        field = "/data_base64"
        try:
            data = parse_json(base64.b64decode(event.data_base64, validate=True))
            check_values(data)
        except (binascii.Error, ValueError, NotJson):
            raise Invalid("wrong_type", "must be JSON in base64", field) from None
        except Invalid as error:
            raise Invalid(error.code, error.reason, field + error.field) from None
    if data is UNSET or data is None:
        return {}
    if not isinstance(data, dict):
        raise Invalid("wrong_type", f"{field[1:]} must be a JSON object", field)
    return data
