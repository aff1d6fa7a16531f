"""Offer tokens: what a browser hands back to say which offer it is talking about, sealed and canonical."""

from __future__ import annotations

import base64
import binascii
from binascii import b2a_base64

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from msgspec import Struct

from libs.common.clock import Millis
from libs.common.contracts.identity import CustomerKey
from libs.common.errors import Invalid

_FIELD = "/token"
_MAX_LENGTH = 4_096
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_PURPOSE = [b"closedloop offer token 1"]


class OfferToken(Struct, frozen=True, array_like=True):
    """What a token says. ``customer`` is the key the decision was filed under; ``price`` of one unit;
    ``channel`` where the offer was made, None in tokens from before it was told."""

    decision_id: str
    offer_id: str
    customer: CustomerKey
    placement: str
    issued_at: Millis
    product_id: str | None = None
    price: float | None = None
    channel: str | None = None


class TokenSealer:
    """Seals and opens tokens with the key of this data directory (`Secrets.token_key`).

    AES-SIV (RFC 5297): needs no nonce, so the same offer of the same decision has the same token.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(OfferToken)

    def seal(self, token: OfferToken) -> str:
        """The token in the alphabet A-Z a-z 0-9 - _; equal contents give equal text."""
        sealed = self._cipher.encrypt(self._encoder.encode(token), _PURPOSE)
        return b2a_base64(sealed, newline=False).translate(_URL_SAFE).rstrip(b"=").decode("ascii")

    def open(self, text: str, now: Millis, max_age: Millis) -> OfferToken:
        """Read what `seal` wrote; raises `Invalid`, ``token_invalid`` or ``token_expired`` at ``/token``."""
        token = self._unseal(text)
        if token is None:
            raise Invalid("token_invalid", "not a token this platform has given out", _FIELD)
        if now - token.issued_at > max_age:
            raise Invalid("token_expired", "the token is too old", _FIELD)
        return token

    def _unseal(self, text: str) -> OfferToken | None:
        if not 0 < len(text) <= _MAX_LENGTH:
            return None
        try:
            sealed = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            # Trap: decoders skip foreign characters and ignore the spare bits of the last one; only
            # text that encodes back to itself is the text that was given out.
            if base64.urlsafe_b64encode(sealed).rstrip(b"=") != text.encode("ascii"):
                return None
            return self._decoder.decode(self._cipher.decrypt(sealed, _PURPOSE))
        except (UnicodeError, binascii.Error, ValueError, InvalidTag, msgspec.DecodeError):
            return None
