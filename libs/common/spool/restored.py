"""A spool that came back from a backup: what it holds goes on under numbers that nobody has seen yet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from libs.common.contracts.customer_event import SpoolReported, decode_event
from libs.common.errors import Transient
from libs.common.spool.rows import counted_source
from libs.common.spool.store import SpoolStore

_log = logging.getLogger(__name__)

_READ_BYTES = 4 << 20
_ALL = 1 << 30


def is_restored(store: SpoolStore, applied: Mapping[int, int]) -> bool:
    """Whether more of ``store`` is applied, by partition, than it ever committed: then it is an old copy.

    Its next numbers were given out before, and what gets one of them would pass for applied.
    """
    return any(seq > store.committed[partition] for partition, seq in applied.items())


async def carry_over(old: SpoolStore, new: SpoolStore) -> None:
    """Append all that ``old`` holds to ``new``, for as long as it takes, and delete ``old``.

    What was applied before is known by its id and not applied again.
    """
    carried = False
    try:
        while not carried:
            try:
                await _append_all(old, new)
                carried = True
            except Transient as error:
                _log.error("spool %s cannot be carried over yet: %s", old.spool, error)
                await asyncio.sleep(error.retry_after)
    finally:
        await old.stop(delete=carried)


async def _append_all(old: SpoolStore, new: SpoolStore) -> None:
    """Committed on return; may be done again after a failure."""
    with suppress(Transient):
        # Those in line of a commit that failed have been told.
        await old.pending().committed()
    number = 0
    while packs := await old.read(number, _READ_BYTES):
        for number, rows in packs:  # noqa: B007
            for partition, _, key, value in rows:
                try:
                    event = decode_event(value)
                except (msgspec.DecodeError, RecursionError):
                    new.put([(partition, key, value)])
                    continue
                if not isinstance(event, SpoolReported):
                    source = counted_source(event)
                    new.put([(partition, key, value)], (), () if source is None else (source,))
        await new.pending().committed()
        number += 1
    if local := await old.local_rows(_ALL):
        new.put([], [(row.key, row.body) for row in local])
        await new.pending().committed()
