"""Erased customers: how they are remembered without their keys, and what still names them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType

from msgspec.structs import replace

from libs.common.contracts.customer_event import (
    AboutCustomer,
    Decision,
    IdentityLinked,
    Touchpoint,
)
from libs.common.contracts.identity import NOBODYS, CustomerKey, anonymous_key, is_anonymous

Suppressed = Mapping[bytes, str]
"""Of one partition: hashes of the keys that must not come back, and the erasure each belongs to."""


NOBODY_ERASED: Suppressed = MappingProxyType({})


class KeyHasher:
    """Hashes customer keys with a secret of the installation: without it nobody can try keys out.

    Parameters
    ----------
    secret:
        32 bytes, the same in all processes and for ever: with another one the erased come back.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __call__(self, *keys: CustomerKey) -> bytes:
        """16 bytes that stand for ``keys`` together."""
        text = "\x00".join(keys).encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=16, key=self._secret).digest()


def named_by(event: AboutCustomer) -> list[CustomerKey]:
    """The keys that ``event`` names beside the one it is filed under."""
    if not isinstance(event, Touchpoint | Decision | IdentityLinked):
        return []
    named = [event.customer_id or "", anonymous_key(event.anonymous_id) if event.anonymous_id else ""]
    return [key for key in named if key and key != event.customer]


def without(event: AboutCustomer, key: CustomerKey) -> AboutCustomer | None:
    """``event`` not naming ``key``; None where nothing is left of it: a link, the echo of another's order."""
    if (isinstance(event, Touchpoint) and not event.echo) or isinstance(event, Decision):
        return replace(event, anonymous_id=None) if is_anonymous(key) else replace(event, customer_id=None)
    return None


def nobodys(event: AboutCustomer, key: CustomerKey) -> IdentityLinked | None:
    """Where ``event`` says that a visitor is ``key``'s from here on: that he is nobody's from here on.

    Trap: without any record the owner before would have been his owner all the time since.
    """
    if not isinstance(event, IdentityLinked) or event.unlinked or not is_anonymous(event.customer):
        return None
    return replace(event, customer_id=NOBODYS) if event.customer_id == key else None


def links_to(event: AboutCustomer, key: CustomerKey) -> bool:
    """Whether ``event`` says that ``key`` is the same person."""
    return isinstance(event, IdentityLinked) and key in named_by(event)


def echoed_under(event: AboutCustomer) -> list[CustomerKey]:
    """Other keys under which records of the platform's own name the customer of ``event``."""
    # Only orders are echoed, but an order's echo is told from its type by the collector alone.
    return named_by(event) if isinstance(event, Touchpoint | IdentityLinked) else []
