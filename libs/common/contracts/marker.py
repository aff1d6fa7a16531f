"""The record that closes a republication: what a partition has not said again before it is gone."""

from __future__ import annotations

import msgspec
from msgspec import Struct

SCHEMA = b"marker/1"
MARKER_KEY = b"\x00marker"
"""Key of markers on compacted topics; no other key may hold a NUL."""


class Marker(Struct, frozen=True, kw_only=True):
    """On ``cluster``, everything that exists in this partition has been published before this record.

    ``number`` counts the losses after which all is published again, over all clusters. A lower one is left
    over from an earlier time on the same cluster; a higher one than expected tells of a loss unnoticed.
    """

    cluster: str
    number: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Marker)


def encode_marker(marker: Marker) -> bytes:
    return _encoder.encode(marker)


def decode_marker(data: bytes) -> Marker:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(data)
