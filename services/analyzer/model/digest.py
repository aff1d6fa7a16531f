"""Digests of models: equal digests mean equal models."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from libs.common.contracts.identity import CustomerKey


def partition_digest(rows: Iterable[tuple[CustomerKey, str, bytes]]) -> bytes:
    """SHA-256 over the SHA-256 of each (customer, part, body), in order of (customer, part).

    The store says the same in SQL, so that no model need leave the database.
    """
    whole = sha256()
    for customer, part, body in sorted(rows):
        whole.update(sha256(f"{customer}\x00{part}\x00".encode() + body).digest())
    return whole.digest()


def whole_digest(partitions: Iterable[bytes]) -> str:
    """One digest of all models, from those of the partitions in order."""
    return sha256(b"".join(partitions)).hexdigest()
