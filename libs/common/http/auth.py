"""Who is calling: reads Authorization, finds the key, checks what it may do."""

from __future__ import annotations

import base64
import binascii

import msgspec

from libs.common.http.problems import Refused
from libs.common.keys import Key, KeyRing, Scope

_CHALLENGE = {"www-authenticate": 'Bearer realm="closedloop"'}


class _Signed(msgspec.Struct, frozen=True):
    """All that is read of a body before it is known who sends it."""

    write_key: str | None = None
    writeKey: str | None = None


_bodies = msgspec.json.Decoder(_Signed)


def presented_key(authorization: bytes) -> str | None:
    """The key in an Authorization header (Bearer, or Basic with the key as user name); None if unreadable."""
    scheme, _, rest = authorization.partition(b" ")
    kind = scheme.lower()
    credentials = rest.strip()
    try:
        if kind == b"bearer":
            return credentials.decode("ascii") or None
        if kind == b"basic":
            user, colon, _ = base64.b64decode(credentials, validate=True).partition(b":")
            return user.decode("utf-8") or None if colon else None
    except (UnicodeDecodeError, binascii.Error):
        return None
    return None


def key_missing() -> Refused:
    """The 401 for a call without a key."""
    return Refused(401, "key_missing", "send Authorization: Bearer KEY", headers=_CHALLENGE)


def authenticate(keys: KeyRing, authorization: bytes) -> Key:
    """The key of a caller who sent ``authorization``; raises 401 ``key_unknown``."""
    presented = presented_key(authorization)
    if presented is None:
        detail = (
            "the Authorization header cannot be read; send Bearer KEY, or Basic with the key as user name"
        )
        raise Refused(401, "key_unknown", detail, headers=_CHALLENGE)
    return known_key(keys, presented)


def key_in_body(keys: KeyRing, body: bytes) -> Key:
    """The key that a beacon names as ``write_key`` at the top of its body; raises 401.

    What is no JSON object names none: only who is known is told what is wrong with his data.
    """
    try:
        signed = _bodies.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise key_missing() from None
    presented = signed.write_key or signed.writeKey
    if not presented:
        raise key_missing()
    return known_key(keys, presented)


def known_key(keys: KeyRing, presented: str) -> Key:
    """The key whose secret is ``presented``; raises 401."""
    key = keys.find(presented)
    if key is None:
        raise Refused(401, "key_unknown", "no such key", headers=_CHALLENGE)
    return key


def authorize(key: Key, scope: Scope, origin: str | None) -> None:
    """Raise 403 unless ``key`` may do ``scope`` from ``origin``."""
    if scope not in key.scopes:
        raise Refused(403, "scope_missing", f"this key lacks the scope {scope.value}")
    if not key.allows_origin(origin):
        raise Refused(403, "origin_forbidden", "this key may not be used from this origin")


def require_signature(key: Key, customer_id: str, signature: str | None) -> None:
    """Raise 403 unless the caller may speak for ``customer_id``."""
    if not key.signed(customer_id, signature):
        raise Refused(
            403, "signature_missing", "a publishable key needs customer_signature to name a customer"
        )
