"""Deletions of which nothing may be left but a hash: what a view keeps so that no older value comes back."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import lmdb

from libs.common.bus.ports import Message
from libs.common.view.entries import prefix_key, revision_of, stored_key, unpack

_AT_ONCE = 10_000


def forgotten_key(key: bytes) -> bytes:
    """Where the revision lies at which ``key`` was deleted."""
    return b"t" + blake2b(key, digest_size=16).digest()


def is_outdated(transaction: lmdb.Transaction, message: Message) -> bool:
    """Whether ``message`` is older than the deletion of a forgotten key, or that deletion again.

    A newer value ends the memory of the deletion.
    """
    place = forgotten_key(message.key)
    held = transaction.get(place)
    if held is None:
        return False
    revision = revision_of(message)
    if message.value is None:
        transaction.put(place, max(bytes(held), (revision or 0).to_bytes(8, "big")))
        return True
    if revision is not None and revision < int.from_bytes(bytes(held), "big"):
        return True
    transaction.delete(place)
    return False


def forget(transaction: lmdb.Transaction, keys: Sequence[bytes]) -> None:
    """Turn those of ``keys`` that are deleted into hashes."""
    for key in keys:
        stored = stored_key(key)
        packed = transaction.get(stored)
        if packed is None:
            continue
        entry = unpack(stored, bytes(packed))[1]
        if entry.body is None:
            transaction.delete(stored)
            transaction.put(forgotten_key(key), entry.revision.to_bytes(8, "big"))


def deleted_keys(transaction: lmdb.Transaction) -> list[bytes]:
    """Keys that are deleted and not forgotten."""
    found = []
    with transaction.cursor() as cursor:
        more = cursor.set_range(prefix_key(b""))
        while more and (stored := bytes(cursor.key())).startswith(prefix_key(b"")):
            key, entry = unpack(stored, bytes(cursor.value()))
            if entry.body is None:
                found.append(key)
            more = cursor.next()
    return found


def copy_anew(env: lmdb.Environment, folder: Path) -> None:
    """Write what ``env`` holds into a new file in ``folder``, entry by entry.

    Trap: LMDB's own copy takes pages as they are; what was deleted from one may still be in it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fresh = lmdb.open(str(folder), map_size=env.info()["map_size"], sync=False, mode=0o600)
    try:
        with env.begin() as transaction, transaction.cursor() as cursor:
            more = cursor.first()
            while more:
                with fresh.begin(write=True) as target:
                    for _ in range(_AT_ONCE):
                        target.put(bytes(cursor.key()), bytes(cursor.value()), append=True)
                        more = cursor.next()
                        if not more:
                            break
        fresh.sync(True)
    finally:
        fresh.close()
