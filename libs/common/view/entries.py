"""One record as it lies in a view: revision, round, partition, and the key where it is too long for LMDB."""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from libs.common.bus.ports import Message
from libs.common.contracts.topics import HEADER_DROPPED, HEADER_REVISION

LONGEST = 500
_HEAD = Struct(">QIIH")
_GONE = 0xFFFFFFFF


class Entry(NamedTuple):
    """What is known of a key; ``body`` None says that it was deleted at ``revision``.

    A deletion is remembered with its revision, or an older value could come back after it.
    """

    revision: int
    round: int
    partition: int
    body: bytes | None

    def takes(self, message: Message) -> bool:
        """Whether ``message`` is not older than this."""
        revision = revision_of(message)
        return revision is None or revision >= self.revision


def revision_of(message: Message) -> int | None:
    """The revision in the headers (decimal text or 8 bytes big endian); None where there is none."""
    text = message.header(HEADER_REVISION)
    if text is None:
        return None
    if text.isdigit() and len(text) <= 18:
        return int(text)
    return int.from_bytes(text, "big") if len(text) == 8 else None


def is_dropped(message: Message) -> bool:
    """Whether it deletes what may come back: then nothing is to be remembered of the deletion."""
    return message.value is None and message.header(HEADER_DROPPED) is not None


def entry_of(message: Message, round: int) -> Entry:
    """The entry ``message`` makes."""
    return Entry(revision_of(message) or 0, round, message.partition, message.value)


def stored_key(key: bytes) -> bytes:
    """The LMDB key: it takes at most 511 bytes, so long ones end in a digest and lie in the value whole."""
    if len(key) <= LONGEST:
        return b"k" + key
    return b"k" + key[: LONGEST - 40] + blake2b(key, digest_size=32).digest()


def prefix_key(prefix: bytes) -> bytes:
    """Where the keys that begin with ``prefix`` begin; others may lie among them."""
    return b"k" + prefix[: LONGEST - 40]


def pack(key: bytes, entry: Entry) -> bytes:
    """The LMDB value of ``key``."""
    full = key if len(key) > LONGEST else b""
    if entry.body is None:
        # The key stays readable: whoever hears later that it is gone must know what it was.
        return _HEAD.pack(entry.revision, _GONE, entry.round, entry.partition) + full
    return _HEAD.pack(entry.revision, len(full), entry.round, entry.partition) + full + entry.body


def unpack(stored: bytes, packed: bytes) -> tuple[bytes, Entry]:
    """Key and entry."""
    revision, length, round_, partition = _HEAD.unpack_from(packed)
    rest = packed[_HEAD.size :]
    if length == _GONE:
        return rest or stored[1:], Entry(revision, round_, partition, None)
    return rest[:length] or stored[1:], Entry(revision, round_, partition, rest[length:])


def body_of(packed: bytes) -> bytes | None:
    """The value alone, for reads that must be quick."""
    length: int = _HEAD.unpack_from(packed)[1]
    return None if length == _GONE else packed[_HEAD.size + length :]
