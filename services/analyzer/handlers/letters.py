"""A dead letter as a record: on topic ``dead-letters``, and when it is looked at."""

from __future__ import annotations

from libs.common.bus.ports import Record
from libs.common.contracts.customer_event import SCHEMA
from libs.common.contracts.topics import HEADER_SCHEMA, HEADER_SEQ, HEADER_SPOOL
from services.analyzer.model.letters import DeadLetter


def record_of(letter: DeadLetter) -> Record:
    """``letter`` as it lies on the bus."""
    headers = (
        (HEADER_SCHEMA, SCHEMA),
        (HEADER_SPOOL, letter.spool.encode()),
        (HEADER_SEQ, b"%d" % letter.seq),
        ("cluster", letter.cluster.encode()),
        ("offset", b"%d" % letter.offset),
        ("code", letter.code.encode()),
        ("reason", letter.reason.encode("utf-8", "replace")),
    )
    return Record(letter.key, letter.value, headers)
