"""How far the analyzer is, per partition: what read-your-events, spools and the ledger need."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from libs.common.clock import Millis

SCHEMA = b"progress/1"


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one partition of the journal has become. Key on the bus: the partition in decimal.

    Parameters
    ----------
    cluster:
        Identity of the Kafka cluster the offsets belong to.
    epoch:
        Claim of the partition; readers ignore records of a lower epoch.
    applied:
        By spool: highest sequence number whose fate is decided, whatever it was.
    journal_time:
        Greatest ``recorded_at`` seen in the partition.
    models_offset:
        Next offset of this partition of ``customer-models`` after all models of this state.
    counters:
        Fates since the beginning: applied, duplicate, rejected, dead_lettered, erased, internal.
    """

    partition: int
    cluster: str
    epoch: int
    applied: dict[str, int]
    journal_time: Millis
    models_offset: int
    counters: dict[str, int] = {}


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Progress)


def encode_progress(progress: Progress) -> bytes:
    return _encoder.encode(progress)


def decode_progress(data: bytes) -> Progress:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(data)
