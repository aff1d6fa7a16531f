"""Records of the journal as they arrive: decoded, checked, told apart."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from libs.common.bus.ports import Message
from libs.common.clock import Millis
from libs.common.contracts.customer_event import (
    AboutCustomer,
    ConsentGiven,
    CustomerEvent,
    Decision,
    Erasure,
    IdentityLinked,
    Outcome,
    SpoolReported,
    Tick,
    Touchpoint,
    decode_event,
)
from libs.common.contracts.identity import ACCOUNT, anonymous_key, is_nobody, partition_of
from libs.common.contracts.outcome import WORDS
from libs.common.contracts.topics import HEADER_FLOOR, HEADER_SEQ, HEADER_SPOOL
from libs.common.errors import Invalid, Rejected

FIRST_TIME: Millis = -62_135_596_800_000
"""The year 1."""
LAST_TIME: Millis = 253_402_300_799_999
"""The end of the year 9999."""
MAX_ID = 1_024
"""Bytes of an id: two of them must fit into a row of an index. 256 characters of any script do."""
MAX_JOINED = 4 * MAX_ID
"""Bytes of an id that is joined of others: of outcomes, of links that touchpoints made, of notices."""
MAX_KEY = MAX_ID + len(ACCOUNT)
"""Bytes of a customer key, which may have a prefix."""
MAX_RANK = 1_000
"""Of a slot in a decision; placements have 100 at most."""
MAX_CELL = 1 << 53
"""Of the number of a cell: 36 bits are in use, and 64 can be written."""
MAX_SOURCE = 256
"""Bytes that are kept of the source of a record that cannot be processed."""
UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What `decode_event` raises."""
DECIDER = "recommender"
"""Source of all decisions."""

_SPOOL = re.compile(rb"[0-9a-f]{8,32}\Z")
_words = frozenset(WORDS)
_sorted = msgspec.json.Encoder(order="sorted")


class Arrival(NamedTuple):
    """A record of the journal: its event, or why it cannot be one.

    ``spool`` is empty and ``seq`` 0 for a record that no spool sent. ``floor``, where the spool says so, is
    the highest of its numbers that was confirmed to it: everything below is done with.
    """

    message: Message
    spool: str
    seq: int
    source: str
    event: CustomerEvent | None
    error: Invalid | None
    floor: int = 0
    hash: bytes = b""
    """`id_hash` of an event about a customer."""


class _Loose(msgspec.Struct):
    source: str = ""


_loose = msgspec.json.Decoder(_Loose)


def arrive(message: Message) -> Arrival:
    """Read one record; what is wrong with it is in ``error`` instead of raised."""
    spool, seq, floor = _origin(message)
    value = message.value or b""
    try:
        event = decode_event(value)
    except UNREADABLE as error:
        reason = str(error)[:200].replace("\x00", "")
        return Arrival(message, spool, seq, _source_of(value), None, Invalid("undecodable", reason), floor)
    # Here and where else every event comes by: the types themselves are compared. `isinstance` asks the
    # metaclass of these structs whenever it is another, which takes ten times as long.
    source = "" if type(event) is Tick or type(event) is SpoolReported else event.source
    try:
        hashed = check(event, message.partition)
    except Invalid as error:
        return Arrival(message, spool, seq, _cut(source), None, error, floor)
    return Arrival(message, spool, seq, source, event, None, floor, hashed)


def _origin(message: Message) -> tuple[str, int, int]:
    headers = dict(reversed(message.headers))
    spool, seq = headers.get(HEADER_SPOOL), _number(headers.get(HEADER_SEQ))
    if spool is None or seq is None or not _SPOOL.match(spool):
        return "", 0, 0
    floor = _number(headers.get(HEADER_FLOOR)) or 0
    return spool.decode(), seq, floor if floor < seq else 0


def _number(text: bytes | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and len(text) <= 18 else None


def _source_of(value: bytes) -> str:
    """Who sent what cannot be read, where at least that can be."""
    try:
        return _cut(_loose.decode(value).source)
    except UNREADABLE:
        return ""


def _cut(source: str) -> str:
    return source.replace("\x00", "").encode("utf-8", "ignore")[:MAX_SOURCE].decode("utf-8", "ignore")


def check(event: CustomerEvent, partition: int) -> bytes:
    """The `id_hash` of an event about a customer; raises `Invalid` for what no service of ours would send."""
    _check_time(event.recorded_at, "/recorded_at")
    if type(event) is Tick:
        return b""
    if type(event) is SpoolReported:
        for name in (event.spool, event.service, *event.accepted):
            _check_name(name, "/accepted", empty=True)
        return b""
    _check_time(event.occurred_at, "/occurred_at")
    _check_name(event.customer, "/customer", most=MAX_KEY)
    # Trap: no others. The id of a decision is in an index, beside its customer.
    joined = type(event) is Outcome or type(event) is IdentityLinked or type(event) is Erasure
    _check_name(event.id, "/id", most=MAX_JOINED if joined else MAX_ID)
    _check_name(event.source, "/source", empty=True)
    for field, key in _named(event):
        _check_name(key or "", field, empty=True, most=MAX_KEY)
    if partition_of(event.customer) != partition:
        raise Invalid("wrong_partition", "this customer belongs to another partition", "/customer")
    if type(event) is IdentityLinked and event.customer not in (
        event.customer_id,
        anonymous_key(event.anonymous_id),
    ):
        raise Invalid("wrong_customer", "a link is filed under one of the two ids it links", "/customer")
    if type(event) is Outcome and event.outcome not in _words:
        raise Invalid("wrong_type", "outcome must be one of the words of the contract", "/outcome")
    if type(event) is Decision:
        _check_numbers(event)
    return id_hash(event)


def _check_numbers(event: Decision) -> None:
    """Of what is remembered and taught of it: JSON bounds no number, what they are written to does."""
    if not 0 <= event.assumed_shown <= MAX_RANK:
        raise _out_of_range(MAX_RANK, "/assumed_shown")
    for field, offers in (("offers", event.offers), ("ghosts", event.ghosts)):
        for index, offer in enumerate(offers):
            if not 0 <= offer.rank <= MAX_RANK:
                raise _out_of_range(MAX_RANK, f"/{field}/{index}/rank")
            if not 0 <= offer.cell <= MAX_CELL:
                raise _out_of_range(MAX_CELL, f"/{field}/{index}/cell")


def _out_of_range(most: int, field: str) -> Invalid:
    return Invalid("out_of_range", f"must be between 0 and {most}", field)


def _check_time(at: Millis, field: str) -> None:
    if not FIRST_TIME <= at <= LAST_TIME:
        raise Invalid("bad_time", "outside the years 1-9999", field)


def _named(event: AboutCustomer) -> tuple[tuple[str, str | None], ...]:
    """The fields that may become a key of some row, besides the one it is filed under."""
    if type(event) is Touchpoint or type(event) is Decision or type(event) is IdentityLinked:
        return ("/customer_id", event.customer_id), ("/anonymous_id", event.anonymous_id)
    if type(event) is Outcome:
        return (("/decision_id", event.decision_id),)
    if type(event) is Erasure:
        return ("/linked", event.linked), ("/erasure", event.erasure or event.id)
    return ()


def _check_name(name: str, field: str, *, empty: bool = False, most: int = MAX_ID) -> None:
    if not name and not empty:
        raise Invalid("missing", "must not be empty", field)
    # Trap: not the characters. The database measures bytes (four a character at most), and refuses NUL in
    # any text.
    if (len(name) * 4 > most and len(name.encode("utf-8", "surrogatepass")) > most) or "\x00" in name:
        raise Invalid("bad_string", f"must be at most {most} bytes without NUL", field)


def accept(event: AboutCustomer) -> None:
    """Raise `Rejected` for a well-formed event that a rule of ours keeps out."""
    if type(event) is Erasure and is_nobody(event.customer):
        raise Rejected("nobody", "there is nobody to erase")


def is_internal(event: CustomerEvent) -> bool:
    """Whether the platform made this itself: counted apart, never listed."""
    if type(event) is Tick or type(event) is SpoolReported:
        return True
    return event.internal or (type(event) is Touchpoint and event.echo)


def kind_of(event: AboutCustomer) -> str:
    """Column ``kind``: the kinds of the timeline, or ``internal`` for what is never listed."""
    if is_internal(event):
        return "internal"
    if type(event) is Touchpoint:
        return "touchpoint"
    if type(event) is Decision:
        return "decision"
    if type(event) is Outcome:
        return "outcome"
    return "identity" if type(event) is IdentityLinked else "consent"


def id_hash(event: AboutCustomer) -> bytes:
    """16 bytes that stand for (customer, source, id)."""
    return _hash_of(event.customer, event.source, event.id)


def decision_hash(event: Outcome) -> bytes:
    """The `id_hash` of the decision that ``event`` names."""
    return _hash_of(event.customer, DECIDER, event.decision_id)


def _hash_of(customer: str, source: str, id_: str) -> bytes:
    text = f"{customer}\x00{source}\x00{id_}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def content_hash(event: AboutCustomer) -> bytes:
    """8 bytes that stand for what was said, times and context left out, because repeats change them.

    Empty where an id cannot stand for two things: those of the platform itself, and outcomes, which count
    once for each decision, offer and word whatever else they say.
    """
    said: tuple[object, ...]
    if is_internal(event):
        return b""
    if type(event) is Touchpoint:
        said = ("touchpoint", event.type, event.properties)
    elif type(event) is ConsentGiven:
        said = ("consent", event.purpose, event.channel, event.granted)
    elif type(event) is IdentityLinked:
        said = ("identity", event.customer_id, event.anonymous_id, *(("unlinked",) if event.unlinked else ()))
    else:
        return b""
    return blake2b(_sorted.encode(said), digest_size=8).digest()
