"""What lies in a spool: rows for the journal, and where an event belongs."""

from __future__ import annotations

from zlib import crc32

from libs.common.contracts.customer_event import CustomerEvent, SpoolReported, Tick, encode_event
from libs.common.contracts.identity import PARTITIONS, partition_of

Row = tuple[int, int, bytes, bytes]
"""Partition, sequence number, record key, record value."""

Part = tuple[int, bytes, bytes]
"""A row that has no sequence number yet."""

Heads = list[int]
"""Highest sequence number by partition, 0 where there is none."""

TICK_KEY = b"tick"
REPORT_KEY = b"spool"


def home_of(spool: str) -> int:
    """The partition that carries the `SpoolReported` events of ``spool``."""
    return crc32(spool.encode()) % PARTITIONS


def part_of(event: CustomerEvent) -> Part:
    """Partition, key and value of ``event`` on the journal. Raises where a text is no valid Unicode."""
    kind = type(event)
    if kind is Tick:
        return event.partition, TICK_KEY, encode_event(event)  # type: ignore[union-attr]
    if kind is SpoolReported:
        return home_of(event.spool), REPORT_KEY, encode_event(event)  # type: ignore[union-attr]
    key: str = event.customer  # type: ignore[union-attr]
    return partition_of(key), key.encode(), encode_event(event)


def counted_source(event: CustomerEvent) -> str | None:
    """The source under which the ledger counts ``event``; None for what it does not count."""
    if (type(event) is Tick or type(event) is SpoolReported) or event.internal:
        return None
    return event.source


def head_mapping(heads: Heads) -> dict[int, int]:
    """``heads`` as positions have them: partitions without records left out."""
    return {partition: seq for partition, seq in enumerate(heads) if seq}
